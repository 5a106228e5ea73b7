"""Which third-party packages each way into art may load: the run-time half of the layers."""

import subprocess
import sys

import pytest

# The first name of everything that an entry point may load beyond the standard library.
ALLOWED = {
    "import art": {"art", "lazy_loader"},
    "import art.errors": {"art", "lazy_loader"},
    "import art.megatron.model_support.registry": {"art", "lazy_loader"},
    "from art.megatron.model_support import default_target_modules_for_model as f;"
    " f('Qwen/Qwen3-4B')": {"art", "lazy_loader"},
    "import art.megatron.model_support.handlers": {"art", "lazy_loader"},
    "from art.tinker import TinkerBackend": {"art", "lazy_loader"},
    "import art.tinker.backend": {"art", "lazy_loader"},
    "import art.dev.get_model_config": {"art", "lazy_loader"},
}
FORBIDDEN_TO_THE_CLIENT = {
    "accelerate", "fastapi", "megatron", "numpy", "peft", "tinker", "torch", "transformers",
}  # fmt: skip


def third_party_loaded_by(code: str) -> set[str]:
    """The root packages in `sys.modules` after `code`, that are neither built in nor stdlib."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    roots = {name.partition(".")[0] for name in result.stdout.split()}
    return roots - set(sys.stdlib_module_names) - {"__mp_main__"}


@pytest.mark.parametrize("code", ALLOWED, ids=str)
def test_an_entry_point_loads_what_it_is_allowed_to_and_no_more(code: str) -> None:
    assert third_party_loaded_by(code) <= ALLOWED[code]


@pytest.mark.parametrize(
    "name", ["Backend", "Model", "TrainableModel", "Trajectory", "TrajectoryGroup", "TrainConfig"]
)
def test_the_client_loads_no_engine_and_no_sdk(name: str) -> None:
    assert not third_party_loaded_by(f"import art; art.{name}") & FORBIDDEN_TO_THE_CLIENT


def test_training_data_needs_numpy_and_no_engine() -> None:
    loaded = third_party_loaded_by("import art.rl.sequences, art.rl.advantages")
    assert not loaded & (FORBIDDEN_TO_THE_CLIENT - {"numpy"})
