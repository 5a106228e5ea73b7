"""The executor of this folder's tests, alone and behind a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .unigram import UnigramExecutor
from .unigram_server import Server, serve


@pytest.fixture
def unigram() -> UnigramExecutor:
    return UnigramExecutor()


@pytest.fixture
def server(unigram: UnigramExecutor, tmp_path: Path) -> Iterator[Server]:
    with serve(unigram, tmp_path) as running:
        yield running
