"""The executor of this folder's tests, alone and behind a server; clients of a real engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tinker import RestClient, ServiceClient, TrainingClient

from ..engine_server import EngineServer
from .sdk import connect, rest_client
from .unigram import UnigramExecutor
from .unigram_server import Server, serve


@pytest.fixture
def unigram() -> UnigramExecutor:
    return UnigramExecutor()


@pytest.fixture
def server(unigram: UnigramExecutor, tmp_path: Path) -> Iterator[Server]:
    with serve(unigram, tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def client(engine_server: EngineServer) -> ServiceClient:
    return connect(engine_server)


@pytest.fixture(scope="session")
def rest(engine_server: EngineServer) -> RestClient:
    return rest_client(engine_server)


@pytest.fixture
def trainer(client: ServiceClient, engine_server: EngineServer) -> TrainingClient:
    return client.create_lora_training_client(
        base_model=engine_server.base_model, rank=4, seed=1, train_unembed=False
    ).result()
