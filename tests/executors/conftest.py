"""A torch executor on the tiny model, a model that it trains, and a frozen copy of that."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from art.executors.torch.executor import TorchExecutor


@pytest.fixture(scope="module")
def executor(tiny_model: Path) -> "TorchExecutor":
    from art.executors.torch.executor import TorchExecutor

    # Small bounds, so that several passes and batches are needed.
    return TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64)


@pytest.fixture
def model(executor: "TorchExecutor") -> Iterator[str]:
    """A model whose adapter changes what it says: B is not zero."""
    from tests.executors.torch_cases import LORA, randomise

    executor.create_model("model", LORA)
    randomise(executor, "model")
    yield "model"
    executor.unload_model("model")


@pytest.fixture
def adapter(executor: "TorchExecutor", model: str, tmp_path: Path) -> Iterator[str]:
    """The model's adapter as it is now, to sample from."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    executor.save_weights(model, folder, optimizer=False)
    executor.load_adapter("adapter", folder)
    yield "adapter"
    executor.unload_adapter("adapter")
