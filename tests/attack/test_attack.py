"""A short run of each part of the attack; ``make attack`` is the long one.

The engine around the tiny executor takes the volume; the real ``art serve`` takes a share.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from fastapi.routing import APIRoute

from art.engine.routes import ROUTERS
from tests.attack import kills, parts, targets
from tests.attack.chat import ChatAttacker
from tests.attack.fuzz import endpoint_problem, engine_problem
from tests.attack.http_client import Answer, Client, Request
from tests.attack.json_routes import ROUTES
from tests.attack.report import Report
from tests.attack.targets import Target, UnigramServers

SEED = 20
# A machine on which other tests run answers later than one that is attacked alone.
HEALTH_S = 15.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnigramServers]:
    with targets.unigram_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture(scope="module")
def art_serve(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = targets.start_art_serve(tiny_model, tmp_path_factory.mktemp("real"))
    yield target
    target.kill()


@pytest.fixture
def run() -> parts.Run:
    return parts.Run(report=Report(), seed=SEED, health_s=HEALTH_S, bombs=0.004)


@pytest.fixture
def idle() -> Client:
    """A client that sends nothing."""
    return Client("http://127.0.0.1:1", {})


def test_every_route_of_the_wire_is_attacked() -> None:
    routes = {
        f"{method} {route.path.removeprefix('/')}"
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert routes == set(ROUTES)


@pytest.mark.slow
def test_hostile_requests_get_a_4xx_and_harm_nobody(
    run: parts.Run, servers: UnigramServers, tmp_path: Path
) -> None:
    parts.attack_engine(run, servers.start(tmp_path), json=1200, protobuf=400)
    run.report.check()
    assert run.report.inputs > 1600


@pytest.mark.slow
def test_hostile_requests_to_a_real_engine(run: parts.Run, art_serve: Target) -> None:
    parts.attack_engine(run, art_serve, json=60, protobuf=40, name="art serve", max_growth=3 << 30)
    run.report.check()


def test_hostile_chat_requests_get_a_4xx(run: parts.Run, tiny_model: Path, tmp_path: Path) -> None:
    with targets.endpoint(tiny_model, tmp_path) as target:
        parts.attack_endpoint(run, target, inputs=400)
    run.report.check()


def test_training_through_a_faulty_connection_ends_with_the_same_weights(
    run: parts.Run, servers: UnigramServers, tmp_path: Path
) -> None:
    parts.attack_connection(run, servers.start(tmp_path), rounds=1, steps=4)
    run.report.check()
    faults = {fault for _, _, fault in run.report.counts}
    assert faults > {"none"}, "no fault happened"


def test_killed_engines_keep_what_they_acknowledged(
    run: parts.Run, servers: UnigramServers, tmp_path: Path
) -> None:
    parts.attack_process(run, kills.unigram_engines(servers, tmp_path), kill=6)
    run.report.check()
    assert run.report.inputs == 6


@pytest.mark.parametrize("damage", ["lost", "changed", "litter"])
def test_damage_to_a_root_is_found(servers: UnigramServers, tmp_path: Path, damage: str) -> None:
    """The check after a kill can fail."""
    engines = kills.unigram_engines(servers, tmp_path)
    checked = kills.KillLoop(engines, Random(SEED))
    # Of a checkpoint that was being written again or deleted, either state is right.
    while not (
        settled := checked.disk.acknowledged.keys() - {checked.disk.saving, checked.disk.deleting}
    ):
        checked.train_and_kill()
    path = sorted(settled)[0]
    folder = kills.folder_of(tmp_path / "root", path)
    if damage == "lost":
        folder.rename(tmp_path / "root" / "checkpoints" / "moved")
    elif damage == "changed":
        other = folder / "adapter_model.safetensors"
        other.write_bytes(other.read_bytes()[:-1] + b"\x01")
    else:
        (tmp_path / "root" / "scratch-new").mkdir()
        (folder.parent / ".tmp-x").mkdir()
        (tmp_path / "stray").touch()
    expected = {"lost": "is lost", "changed": "other weights", "litter": "stray"}[damage]
    assert any(expected in problem for problem in checked.check())


@pytest.mark.parametrize(
    ("status", "content_type", "body", "problem"),
    [
        (200, "application/json", b"{}", None),
        (422, "application/json", b'{"error":"x","category":"user"}', None),
        (408, "application/json", b'{"type":"try_again"}', None),
        (500, "application/json", b'{"error":"x","category":"user"}', "neither 2xx nor 4xx"),
        (302, "text/html", b"", "neither 2xx nor 4xx"),
        (400, "application/json", b'{"error":"x","category":"server"}', "a fault of the server"),
        (400, "application/json", b'{"detail":"x"}', "of another shape"),
        (400, "text/plain", b"Invalid HTTP request received.", "no JSON object"),
        (404, "application/json", b'{"error":"' + b"x" * 5000 + b'"}', "an error of 50"),
        (200, "application/json", b'{"a":NaN}', "no JSON"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_found(
    status: int, content_type: str, body: bytes, problem: str | None
) -> None:
    found = engine_problem(Request("", "GET", "/"), Answer(status, content_type, body))
    assert found == problem or (problem is not None and found is not None and problem in found)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', None),
        (b'data: {"error":{"type":"invalid_request_error"}}\n\n', None),
        (b'data: {"error":{"type":"server_error"}}\n\n', "a fault in a stream"),
        (b'data: {"a":1}\n\n', "a stream without an end"),
    ],
)
def test_a_stream_that_breaks_a_rule_is_found(body: bytes, problem: str | None) -> None:
    answer = Answer(200, "text/event-stream; charset=utf-8", body)
    assert endpoint_problem(Request("", "GET", "/"), answer) == problem


def test_a_seed_makes_the_same_inputs_again(idle: Client) -> None:
    requests = [
        [ChatAttacker(idle).request(Random(f"{seed}:chat:{index}")) for index in range(50)]
        for seed in (1, 1, 2)
    ]
    assert requests[0] == requests[1] != requests[2]
