"""megatron-core on a CPU: all patches that it needs, in one context manager.

megatron-core 0.16.1 asks for CUDA in a few places where the computation itself would run anywhere.
Each patch below names the attribute that it replaces and quotes the line that makes it necessary.
When that line is gone from megatron-core the context raises, so that no patch outlives its reason.
Nothing happens on import, and nothing happens on a machine with CUDA.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt import GPTModel
from megatron.core.pipeline_parallel import schedules
from megatron.core.ssm import gated_delta_net
from megatron.core.tensor_parallel.random import initialize_rng_tracker
from megatron.core.transformer.moe import moe_utils, token_dispatcher
from megatron.core.transformer.utils import get_default_causal_mask
from torch import Tensor
from torch.overrides import TorchFunctionMode

from art.errors import IncompatibleEngineError


class Patch(NamedTuple):
    """The replacement of one attribute on a CPU.

    Args:
        owner: The module or class whose attribute is replaced.
        name: The attribute.
        replacement: Its new value.
        needed_by: The code of megatron-core that cannot run on a CPU without the patch.
        line: The part of that code that is the reason for the patch.
    """

    owner: object
    name: str
    replacement: object
    needed_by: Callable[..., object]
    line: str


@contextmanager
def megatron_on_cpu() -> Iterator[None]:
    """Let megatron-core build and run models on a CPU.

    It does nothing on a machine with CUDA, nor inside itself. Enter it before a model is built, and
    leave it after the model's last use. The caller sets up the process group (gloo) and
    ``parallel_state``. Inside, random numbers for dropout come from torch's own generator, and
    functions that megatron would compile run eagerly.

    Raises:
        IncompatibleEngineError: megatron-core does not contain the lines that the patches are for.
    """
    is_on = token_dispatcher.maybe_move_tensor_to_cpu is _as_numpy_where_asked
    if torch.cuda.is_available() or is_on:
        yield
        return
    patches = _patches()
    for patch in patches:
        _check(patch.needed_by, patch.line)
    for needs_cuda in _CudaIsCpu.NEEDED_BY:
        _check(needs_cuda, 'device="cuda"')
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(_replaced(patch.owner, patch.name, patch.replacement))
        stack.enter_context(_CudaIsCpu())
        # The first call of the fused functions, which are compiled, takes tens of seconds.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        # The default tracker keeps the states of CUDA generators.
        initialize_rng_tracker(inference_rng_tracker=True, force_reset=True)
        stack.callback(initialize_rng_tracker, force_reset=True)
        yield


def _patches() -> list[Patch]:
    dispatcher = token_dispatcher.MoEAlltoAllTokenDispatcher
    patches = [
        Patch(
            torch.cuda,
            "current_device",
            lambda: torch.device("cpu"),
            RotaryEmbedding.get_emb,
            "device=torch.cuda.current_device()",
        ),
        # For the copy of tied embeddings on the last rank of a pipeline.
        Patch(
            torch.Tensor,
            "cuda",
            lambda tensor, *_, **__: tensor,
            GPTModel.setup_embeddings_and_output_layer,
            "weight.data.cuda()",
        ),
        # The dispatcher copies from the device on a stream; here there is nothing to copy.
        *(
            Patch(torch.cuda, name, replacement, needed_by, f"torch.cuda.{name}(")
            for name, replacement, needed_by in (
                ("Stream", _NoStream, dispatcher.__init__),
                ("current_stream", _NoStream, dispatcher._maybe_dtoh_and_synchronize),
                ("stream", _no_stream, dispatcher._maybe_dtoh_and_synchronize),
            )
        ),
        Patch(
            dispatcher,
            "cuda_dtoh_stream",
            None,
            dispatcher.__init__,
            "cuda_dtoh_stream is None",
        ),
        Patch(
            token_dispatcher,
            "maybe_move_tensor_to_cpu",
            _as_numpy_where_asked,
            moe_utils.maybe_move_tensor_to_cpu,
            "tensor.is_cuda",
        ),
    ]
    if not gated_delta_net.HAVE_FLA:
        # FLA's kernels are Triton's; megatron-core has the same rule in torch, for its
        # deterministic mode.
        layer = gated_delta_net.GatedDeltaNet
        rule = gated_delta_net.torch_chunk_gated_delta_rule
        patches += [
            Patch(gated_delta_net, "HAVE_FLA", True, layer.__init__, "if not HAVE_FLA:"),
            Patch(gated_delta_net, "l2norm", _l2norm, layer.forward, "l2norm(query.contiguous())"),
            Patch(
                gated_delta_net,
                "chunk_gated_delta_rule",
                rule,
                layer.forward,
                "= chunk_gated_delta_rule(",
            ),
        ]
    return patches


def _check(needed_by: Callable[..., object], line: str) -> None:
    if line not in inspect.getsource(needed_by):
        version = sys.modules["megatron.core"].__version__
        raise IncompatibleEngineError(
            f"megatron-core {version}: {needed_by.__qualname__} no longer contains {line!r}, for "
            "which art.megatron.cpu patches it. Install the version that the extra [megatron] "
            "pins, or update the patch in that module"
        )


@contextmanager
def _replaced(owner: object, name: str, replacement: object) -> Iterator[None]:
    absent = object()
    before = vars(owner).get(name, absent)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if before is absent:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _l2norm(x: Tensor) -> Tensor:
    """Normalise the last axis of ``[..., D]`` (D dimension of a head), with FLA's epsilon."""
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)


def _as_numpy_where_asked(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    return tensor.numpy() if as_numpy and isinstance(tensor, Tensor) else tensor


class _CudaIsCpu(TorchFunctionMode):
    """Creates tensors on the CPU that are requested with ``device="cuda"``: masks, token counts."""

    NEEDED_BY = (
        inspect.unwrap(get_default_causal_mask),
        schedules.forward_backward_no_pipelining,
        schedules.forward_backward_pipelining_without_interleaving,
    )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, with the CPU in place of a CUDA device."""
        kwargs = kwargs or {}
        if kwargs.get("device") == "cuda":
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


class _NoStream:
    """A stand-in for a CUDA stream: on a CPU all work is done when its call returns."""

    def wait_stream(self, stream: object) -> None:
        """Return at once."""

    def record_event(self) -> "_NoStream":
        """Return itself, as an event that has happened."""
        return self

    def synchronize(self) -> None:
        """Return at once."""


def _no_stream(stream: object) -> AbstractContextManager[None]:
    return nullcontext()
