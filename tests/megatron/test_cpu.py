"""The patches for a CPU: active only in their context, and refused once upstream has changed."""

import pytest

from tests.processes import run_python


def run(program: str) -> str:
    """Run a program in a process of its own, in which the tests' context is not active."""
    return run_python(program).stdout


# All attributes of torch and megatron that are patched, with their current values.
STATE = """
    import torch, megatron.core
    from megatron.core.ssm import gated_delta_net
    from megatron.core.tensor_parallel import random
    from megatron.core.transformer.moe import token_dispatcher

    def state():
        return [
            torch.cuda.current_device, torch.cuda.Stream, torch.cuda.stream,
            torch.cuda.current_stream, torch.Tensor.cuda,
            token_dispatcher.maybe_move_tensor_to_cpu,
            token_dispatcher.MoEAlltoAllTokenDispatcher.cuda_dtoh_stream,
            gated_delta_net.HAVE_FLA, gated_delta_net.chunk_gated_delta_rule,
            hasattr(gated_delta_net, "l2norm"),
            type(random.get_cuda_rng_tracker()),
            len(torch.overrides._get_current_function_mode_stack()),
        ]
"""


def test_nothing_is_patched_before_or_after_the_context() -> None:
    output = run(
        STATE
        + """
    before = state()
    from art.megatron.cpu import megatron_on_cpu
    assert state() == before, "on import"
    for _ in range(2):
        with megatron_on_cpu():
            inside = state()
            assert not any(a == b for a, b in zip(inside[:6], before[:6]))
            with megatron_on_cpu():
                assert state() == inside, "inside itself"
            assert state() == inside
            assert torch.zeros(2, device="cuda").device.type == "cpu"
        assert state() == before, "after it"
    try:
        with megatron_on_cpu():
            raise KeyError
    except KeyError:
        assert state() == before, "after an error"
    print("ok")
    """
    )
    assert output == "ok\n"


def test_nothing_is_patched_on_a_machine_with_cuda() -> None:
    output = run(
        STATE
        + """
    from art.megatron.cpu import megatron_on_cpu
    torch.cuda.is_available = lambda: True
    before = state()
    with megatron_on_cpu():
        assert state() == before
    print("ok")
    """
    )
    assert output == "ok\n"


def test_each_patch_is_refused_once_its_reason_is_gone() -> None:
    """The line is removed from the source that the check reads."""
    output = run(
        STATE
        + """
    import inspect
    from art.errors import IncompatibleEngineError
    from art.megatron import cpu
    before, getsource = state(), inspect.getsource
    reasons = [(patch.needed_by, patch.line) for patch in cpu._patches()]
    reasons += [(code, 'device="cuda"') for code in cpu._CudaIsCpu.NEEDED_BY]
    assert len(reasons) > 10
    for code, line in reasons:
        inspect.getsource = lambda of: (
            getsource(of).replace(line, "") if of is code else getsource(of)
        )
        try:
            with cpu.megatron_on_cpu():
                raise SystemExit(f"{line} is not checked")
        except IncompatibleEngineError as error:
            assert repr(line) in str(error) and code.__qualname__ in str(error), error
        assert state() == before
    print("ok")
    """
    )
    assert output == "ok\n"


def test_the_l2norm_equals_that_of_fla() -> None:
    """Of fla/modules/l2norm.py: x * rsqrt(sum(x ** 2) + eps), over the last dimension."""
    import torch
    from transformers.models.qwen3_next.modeling_qwen3_next import l2norm

    from art.megatron.cpu import _l2norm

    x = torch.randn(2, 5, 3, 8)
    torch.testing.assert_close(_l2norm(x), l2norm(x, dim=-1, eps=1e-6), rtol=0, atol=0)


@pytest.mark.parametrize("as_numpy", [True, False])
def test_splits_are_numpy_arrays_on_request(as_numpy: bool) -> None:
    import numpy
    import torch

    from art.megatron.cpu import _as_numpy_where_asked

    moved = _as_numpy_where_asked(torch.tensor([1, 2]), as_numpy=as_numpy)
    assert isinstance(moved, numpy.ndarray if as_numpy else torch.Tensor)
    assert _as_numpy_where_asked(None, as_numpy=as_numpy) is None
