"""Handlers in other processes: they are pickled by the module that defines them."""

import pytest

from tests.processes import run_python

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

    flags = ("-W", "ignore")
    written = run_python(WRITE, flags=flags).stdout
    answers = run_python(READ, *written.split(), flags=flags).stdout.splitlines()
    assert answers == ["True", "qwen3_dense True", "True", "False"]
