"""Every public method of the SDK's clients, called against a real engine; docs/wire-methods.md."""

import ast
import asyncio
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
import tinker
import torch
from tinker import AdminClient, RestClient, SamplingClient, ServiceClient, TrainingClient, types
from tinker.lib.api_future_impl import QueueState

from tools.wire_methods import CLIENTS, Method, public_methods, read_methods

from ..engine_server import EngineServer
from ..processes import ROOT
from .sdk import ADAM, PROMPT, connect, datum, rest_client, train

DATA = [datum([1, 2, 3])]
ONE = types.SamplingParams(max_tokens=1)
DAY = ("2026-01-01", "2026-01-02")


@dataclass
class World:
    """Clients of every kind, and names of what there is."""

    engine: EngineServer
    service: ServiceClient
    trainer: TrainingClient
    sampler: SamplingClient
    rest: RestClient
    admin: AdminClient
    state: str
    weights: str
    external: str

    @property
    def session_id(self) -> str:
        return self.service.holder.get_session_id()

    def new_state(self) -> str:
        path: str = self.trainer.save_state(f"extra-{next(_NUMBERS)}").result().path
        return path


_NUMBERS = iter(range(10_000))


@pytest.fixture(scope="module")
def world(engine_server: EngineServer) -> World:
    service = connect(engine_server)
    trainer = service.create_lora_training_client(engine_server.base_model, rank=2).result()
    train(trainer)
    return World(
        engine=engine_server,
        service=service,
        trainer=trainer,
        sampler=trainer.save_weights_and_get_sampling_client().result(),
        rest=rest_client(engine_server),
        admin=AdminClient(base_url=engine_server.base_url, api_key=engine_server.api_key),
        state=trainer.save_state("state").result().path,
        weights=trainer.save_weights_for_sampler("weights").result().path,
        external=trainer.save_weights_external("external").result().path,
    )


@pytest.fixture(autouse=True)
def _no_warnings_of_deprecation() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", tinker.ExperimentalWarning)
        yield


def per_datum_loss(logprobs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = -logprobs.sum()
    return loss, {"custom/mine:sum": loss}


def batch_loss(
    data: list[types.Datum], logprobs: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    return -torch.stack([each.sum() for each in logprobs]).sum(), {}


Arguments: TypeAlias = tuple[object, tuple[object, ...]]
# The client of each method, and what to call it with; the same for its `_async` twin.
CALLS: dict[str, Callable[[World], Arguments]] = {
    "ServiceClient.close": lambda w: (connect(w.engine), ("success",)),
    "ServiceClient.copy_weights": lambda w: (
        connect(w.engine, project_id="copies"),
        (w.state,),
    ),
    "ServiceClient.create_custom_loss": lambda w: (
        connect(w.engine),
        (per_datum_loss, {"logprobs": 1}),
    ),
    "ServiceClient.create_lora_training_client": lambda w: (
        w.service,
        (w.engine.base_model, 2),
    ),
    "ServiceClient.create_rest_client": lambda w: (w.service, ()),
    "ServiceClient.create_sampling_client": lambda w: (w.service, (w.weights,)),
    "ServiceClient.create_training_client_from_state": lambda w: (w.service, (w.state,)),
    "ServiceClient.create_training_client_from_state_with_optimizer": lambda w: (
        w.service,
        (w.state,),
    ),
    "ServiceClient.get_console_url": lambda w: (w.service, ()),
    "ServiceClient.get_server_capabilities": lambda w: (w.service, ()),
    "ServiceClient.get_telemetry": lambda w: (w.service, ()),
    "TrainingClient.create_sampling_client": lambda w: (w.trainer, (w.weights,)),
    "TrainingClient.forward": lambda w: (w.trainer, (DATA, "cross_entropy")),
    "TrainingClient.forward_backward": lambda w: (w.trainer, (DATA, "cross_entropy")),
    "TrainingClient.forward_backward_custom": lambda w: (w.trainer, (DATA, batch_loss)),
    "TrainingClient.get_console_url": lambda w: (w.trainer, ()),
    "TrainingClient.get_info": lambda w: (w.trainer, ()),
    "TrainingClient.get_telemetry": lambda w: (w.trainer, ()),
    "TrainingClient.get_tokenizer": lambda w: (w.trainer, ()),
    "TrainingClient.load_state": lambda w: (w.trainer, (w.state,)),
    "TrainingClient.load_state_with_optimizer": lambda w: (w.trainer, (w.state,)),
    "TrainingClient.optim_step": lambda w: (with_gradient(w.trainer), (ADAM,)),
    "TrainingClient.save_state": lambda w: (w.trainer, (f"call-{next(_NUMBERS)}",)),
    "TrainingClient.save_weights_and_get_sampling_client": lambda w: (w.trainer, ()),
    "TrainingClient.save_weights_external": lambda w: (w.trainer, ("again",)),
    "TrainingClient.save_weights_for_sampler": lambda w: (w.trainer, ("again",)),
    "SamplingClient.compute_logprobs": lambda w: (w.sampler, (PROMPT,)),
    "SamplingClient.create": lambda w: (
        lambda holder: SamplingClient.create(holder, base_model=w.engine.base_model),
        (w.service.holder,),
    ),
    "SamplingClient.from_sampler_handle": lambda w: (
        lambda handle: SamplingClient.from_sampler_handle(handle, api_key=w.engine.api_key),
        (w.sampler.get_sampler_handle(),),
    ),
    "SamplingClient.get_base_model": lambda w: (w.sampler, ()),
    "SamplingClient.get_sampler_handle": lambda w: (w.sampler, ()),
    "SamplingClient.get_telemetry": lambda w: (w.sampler, ()),
    "SamplingClient.get_tokenizer": lambda w: (w.sampler, ()),
    "SamplingClient.on_queue_state_change": lambda w: (
        lambda: w.sampler.on_queue_state_change(QueueState.ACTIVE, None),
        (),
    ),
    "SamplingClient.sample": lambda w: (w.sampler, (PROMPT, 1, ONE)),
    "RestClient.assign_session_project": lambda w: (w.rest, (w.session_id, "mine")),
    "RestClient.copy_weights": lambda w: (w.rest, (w.state, "copies")),
    "RestClient.delete_checkpoint": lambda w: (
        w.rest,
        tuple(w.new_state().removeprefix("tinker://").split("/", 1)),
    ),
    "RestClient.delete_checkpoint_from_tinker_path": lambda w: (w.rest, (w.new_state(),)),
    "RestClient.export_session_trace": lambda w: (w.rest, (w.session_id,)),
    "RestClient.get_audit_log": lambda w: (w.rest, ()),
    "RestClient.get_billing_usage": lambda w: (w.rest, DAY),
    "RestClient.get_current_checkpoint_storage_usage": lambda w: (w.rest, ()),
    "RestClient.get_external_weights_urls": lambda w: (w.rest, (w.external,)),
    "RestClient.get_sampler": lambda w: (w.rest, (w.sampler._sampling_session_id,)),
    "RestClient.get_server_capabilities": lambda w: (w.rest, ()),
    "RestClient.get_session": lambda w: (w.rest, (w.session_id,)),
    "RestClient.get_telemetry": lambda w: (w.rest, ()),
    "RestClient.get_training_run": lambda w: (w.rest, (w.trainer.model_id,)),
    "RestClient.get_training_run_by_tinker_path": lambda w: (w.rest, (w.state,)),
    "RestClient.get_weights_info_by_tinker_path": lambda w: (w.rest, (w.state,)),
    "RestClient.list_checkpoints": lambda w: (w.rest, (w.trainer.model_id,)),
    "RestClient.list_sessions": lambda w: (w.rest, ()),
    "RestClient.list_training_runs": lambda w: (w.rest, ()),
    "RestClient.list_user_checkpoints": lambda w: (w.rest, ()),
    "RestClient.publish_checkpoint_from_tinker_path": lambda w: (w.rest, (w.state,)),
    "RestClient.search_sessions": lambda w: (w.rest, (types.SessionSearchRequest(),)),
    "RestClient.set_checkpoint_ttl_from_tinker_path": lambda w: (w.rest, (w.state, None)),
    "RestClient.unpublish_checkpoint_from_tinker_path": lambda w: (w.rest, (w.state,)),
    "RestClient.whoami": lambda w: (w.rest, ()),
    "AdminClient.get_audit_log": lambda w: (w.admin, ()),
    "AdminClient.get_billing_usage": lambda w: (w.admin, DAY),
    "AdminClient.get_current_checkpoint_storage_usage": lambda w: (w.admin, ()),
    "AdminClient.get_telemetry": lambda w: (w.admin, ()),
}


def with_gradient(trainer: TrainingClient) -> TrainingClient:
    trainer.forward_backward(DATA, "cross_entropy").result()
    return trainer


def call(world: World, method: Method, name: str) -> Any:
    """Call a method, and wait for what its future, if it gives one, comes to."""
    client, arguments = CALLS[method.name](world)
    bound = client if inspect.isfunction(client) else getattr(client, name)
    value = bound(*arguments)  # type: ignore[operator]  # whatever the table says
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    return value.result() if hasattr(value, "result") else value


METHODS = read_methods()
CASES = [
    pytest.param(method, name, id=f"{method.name.partition('.')[0]}.{name}")
    for method in METHODS
    for name in (
        method.name.partition(".")[2],
        *([f"{method.name.partition('.')[2]}_async"] if method.has_twin else []),
    )
]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_every_method_is_answered_as_the_page_says(world: World, method: Method, name: str) -> None:
    if method.state != "refused":
        call(world, method, name)
        return
    with pytest.raises((tinker.TinkerError, RuntimeError)) as caught:
        call(world, method, name)
    pattern = ".*".join(map(re.escape, method.detail.split("…")))
    assert re.search(pattern, str(caught.value))


def test_every_method_of_the_sdk_is_called() -> None:
    assert CALLS.keys() == {method.name for method in METHODS}
    assert len(CASES) == sum(len(public_methods(client)) for client in CLIENTS)


@pytest.mark.parametrize("test", sorted({m.detail for m in METHODS if m.state == "served"}))
def test_a_test_that_the_page_names_exists_and_calls_the_method(test: str) -> None:
    """By itself, or through a function of its file or of sdk.py."""
    file, _, name = test.partition("::")
    functions = functions_of("engine/sdk.py") | functions_of(file)
    assert name in functions
    called = called_names(functions[name])
    for helper in called & functions.keys():
        called |= called_names(functions[helper])
    assert {m.name.partition(".")[2] for m in METHODS if m.detail == test} <= called


def functions_of(file: str) -> dict[str, ast.AST]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def called_names(tree: ast.AST) -> set[str]:
    """The names of the functions and methods that code calls."""
    return {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


def test_the_clients_know_the_base_model(
    client: ServiceClient, trainer: TrainingClient, engine_server: EngineServer
) -> None:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    train(trainer)
    path = trainer.save_weights_for_sampler("named").result().path
    named = client.create_sampling_client(model_path=path).result()
    own = SamplingClient.create(client.holder, model_path=path).result()
    for each in (sampler, named, own):
        assert each.get_base_model() == engine_server.base_model
    tokens = sampler.get_tokenizer().encode("hello")
    assert tokens == trainer.get_tokenizer().encode("hello")


def test_a_training_run_is_found_by_its_checkpoint(
    rest: RestClient, trainer: TrainingClient
) -> None:
    path = trainer.save_state("one").result().path
    assert rest.get_training_run_by_tinker_path(path).result().training_run_id == trainer.model_id
