"""Handlers cross processes: they are pickled by the module that defines them, spawned or not."""

import subprocess
import sys

import pytest

WRITE = """\
import cloudpickle, pickle, sys
from art.megatron import model_support
from art.megatron.model_support import get_model_support_handler, handlers

handler = get_model_support_handler("Qwen/Qwen3-8B")
def ask():
    return model_support.get_model_support_handler("Qwen/Qwen3-8B"), handlers.QWEN3_DENSE_HANDLER
print(pickle.dumps(handler).hex(), cloudpickle.dumps((handler, type(handler), ask)).hex())
"""
READ = """\
import pickle, sys
data, cloud = map(bytes.fromhex, sys.argv[1:])
handler = pickle.loads(data)
import cloudpickle
twin, kind, ask = cloudpickle.loads(cloud)
from art.megatron.model_support import handlers
print(type(handler) is type(twin) is kind is handlers.Qwen3DenseHandler)
print(handler.key, handler.meta == handlers.QWEN3_DENSE_HANDLER.meta)
print(ask() == (handlers.QWEN3_DENSE_HANDLER, handlers.QWEN3_DENSE_HANDLER))
print("art.megatron.model_support.handlers.qwen3_moe" in sys.modules)
"""


def test_handlers_and_functions_that_use_them_are_pickled() -> None:
    pytest.importorskip("cloudpickle")

    def run(code: str, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    answers = run(READ, *run(WRITE).split()).splitlines()
    assert answers == ["True", "qwen3_dense True", "True", "False"]
