"""art against a Tinker server, in an environment that has no torch and no megatron at all.

This file runs where `.[tinker]` is installed and nothing else (`make test-light`), so what must
not be imported is not hidden: it is not there.
"""

import textwrap
from importlib.util import find_spec

import pytest

from tests.processes import run_python

ENGINES = ("megatron", "torch", "transformer_engine")


@pytest.fixture(autouse=True)
def no_engine_here() -> None:
    """The environment is what it must be; in another one these tests would prove nothing."""
    present = [name for name in ENGINES if find_spec(name) is not None]
    assert not present, f"{present} installed here: run these tests with `make test-light`"


def run(code: str) -> list[str]:
    """Run code in a fresh interpreter, then check what it loaded; return the lines it printed."""
    epilogue = f"""
    import sys
    loaded = {{name.partition(".")[0] for name in sys.modules}}
    assert not loaded & set({ENGINES!r}), loaded & set({ENGINES!r})
    """
    result = run_python(textwrap.dedent(code) + textwrap.dedent(epilogue))
    return result.stdout.splitlines()


def test_the_backend_module_imports() -> None:
    run("import art.tinker.backend")


def test_get_model_config_returns_arts_config() -> None:
    (modules,) = run(
        """
        from art.dev.get_model_config import get_model_config
        config = get_model_config(
            base_model="Qwen/Qwen3-4B-Instruct-2507", output_dir="/nonexistent", config=None
        )
        print(*config["peft_args"]["target_modules"])
        """
    )
    assert modules == "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"


def test_a_moe_model_trains_its_experts() -> None:
    (modules,) = run(
        """
        from art.megatron.model_support import default_target_modules_for_model
        print(*default_target_modules_for_model("Qwen/Qwen3-30B-A3B-Instruct-2507"))
        """
    )
    assert modules.split()[-1] == "experts"


def test_the_backend_makes_its_service() -> None:
    (service,) = run(
        """
        import asyncio, os, tempfile
        import art
        from art.tinker import TinkerBackend

        os.environ.pop("TINKER_API_KEY", None)

        async def main():
            with tempfile.TemporaryDirectory() as path:
                model = art.TrainableModel(
                    name="m", project="p", base_model="Qwen/Qwen3-4B-Instruct-2507"
                )
                service = await TinkerBackend(path=path)._get_service(model)
                print(type(service).__name__)

        asyncio.run(main())
        """
    )
    assert service == "TinkerService"


@pytest.mark.parametrize(
    ("touch", "extra"),
    [
        ("from art.executors.torch import TorchExecutor", "local"),
        ("from art.megatron.model_support.handlers import QWEN3_DENSE_HANDLER", "megatron"),
    ],
)
def test_a_missing_engine_names_its_extra_and_the_pip_command(touch: str, extra: str) -> None:
    kind, message = run(
        f"""
        try:
            {touch}
        except ImportError as error:
            print(type(error).__name__)
            print(error)
        """
    )
    assert kind == "MissingExtraError"
    assert message.endswith(f'pip install "art-rl[{extra}]"')


def test_local_backend_names_its_extra_when_it_is_used() -> None:
    kind, message = run(
        """
        import asyncio, tempfile
        import art

        async def main():
            with tempfile.TemporaryDirectory() as path:
                model = art.TrainableModel(name="m", project="p", base_model="b", base_path=path)
                try:
                    await model.register(art.LocalBackend(path=path))
                except ImportError as error:
                    print(type(error).__name__)
                    print(error)

        asyncio.run(main())
        """
    )
    assert kind == "MissingExtraError"
    assert message.endswith('pip install "art-rl[local]"')
