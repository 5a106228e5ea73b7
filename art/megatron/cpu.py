"""megatron-core on a CPU: everything that stands between the two, in one context manager.

megatron-core 0.16.1 asks for CUDA in a few places where the work itself would run anywhere. Each
patch below names what it replaces and quotes the line that makes it necessary. When that line is
gone from megatron-core the context raises, so that no patch outlives its reason. Nothing happens
on import, and nothing happens where there is CUDA.
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
    """One name that is replaced on a CPU.

    Args:
        owner: The module or class whose attribute is replaced.
        name: The attribute.
        replacement: What it is replaced by.
        needed_by: The code of megatron-core that cannot run on a CPU as it is.
        line: What that code contains, and the reason for the patch.
    """

    owner: object
    name: str
    replacement: object
    needed_by: Callable[..., object]
    line: str


@contextmanager
def megatron_on_cpu() -> Iterator[None]:
    """Let megatron-core build and run models on a CPU.

    It does nothing where there is CUDA, nor inside itself. Enter it before a model is built, and
    leave it after the model's last use. The process group (gloo) and ``parallel_state`` are the
    caller's. Inside, random numbers for dropout come from torch's own generator, and what
    megatron would compile runs as it is written.

    Raises:
        IncompatibleEngineError: megatron-core is not as the patches expect it.
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
        # The fused functions are under torch.compile, whose first call takes tens of seconds.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        # The default tracker keeps states of CUDA generators.
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
        # The copy of tied embeddings on the last rank of a pipeline.
        Patch(
            torch.Tensor,
            "cuda",
            lambda tensor, *_, **__: tensor,
            GPTModel.setup_embeddings_and_output_layer,
            "weight.data.cuda()",
        ),
        # Its copy from the device runs on a stream of its own; here there is nothing to copy.
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
        # Its kernels are Triton's; megatron-core has the same rule in torch, for its
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
            "which art.megatron.cpu adapts it. Install the version that the extra [megatron] "
            "pins, or bring that module up to date"
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
    # FLA's default epsilon, added to the sum of squares.
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)


def _as_numpy_where_asked(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    return tensor.numpy() if as_numpy and isinstance(tensor, Tensor) else tensor


class _CudaIsCpu(TorchFunctionMode):
    """Makes on the CPU what is asked for with ``device="cuda"``: masks, counts of tokens."""

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
        """Call a function of torch's, on the CPU where it was to be on a CUDA device."""
        kwargs = kwargs or {}
        if kwargs.get("device") == "cuda":
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


class _NoStream:
    """A stream of a device that has none: all work is done when its call returns."""

    def wait_stream(self, stream: object) -> None:
        """Have nothing to wait for."""

    def record_event(self) -> "_NoStream":
        """Be its own event."""
        return self

    def synchronize(self) -> None:
        """Have nothing to wait for."""


def _no_stream(stream: object) -> AbstractContextManager[None]:
    return nullcontext()
