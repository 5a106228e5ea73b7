"""The executor of this folder's tests."""

import pytest

from .unigram import UnigramExecutor


@pytest.fixture
def unigram() -> UnigramExecutor:
    return UnigramExecutor()
