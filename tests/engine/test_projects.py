"""Copies of checkpoints, projects, and the search for sessions, by the SDK's REST client."""

import secrets
import warnings
from collections.abc import Iterator

import httpx
import pytest
import tinker
from tinker import RestClient, ServiceClient, TrainingClient, types

from ..engine_server import EngineServer
from .sdk import PROMPT, connect, train


@pytest.fixture(autouse=True)
def _no_warning_of_experiments() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tinker.ExperimentalWarning)
        yield


@pytest.fixture
def project() -> str:
    return f"project-{secrets.token_hex(4)}"


def logprobs(client: ServiceClient, path: str) -> list[float | None]:
    sampler = client.create_sampling_client(model_path=path).result()
    return sampler.compute_logprobs(PROMPT).result()


def test_a_copy_outlives_its_source(
    client: ServiceClient, rest: RestClient, trainer: TrainingClient, project: str
) -> None:
    train(trainer)
    path = trainer.save_weights_for_sampler("one", user_metadata={"a": "b"}).result().path
    before = logprobs(client, path)
    copied = rest.copy_weights(path, project, ttl_seconds=7200).result()
    rest.delete_checkpoint_from_tinker_path(path).result()
    assert logprobs(client, copied) == before

    [run] = rest.list_training_runs(project_id=project).result().training_runs
    assert copied == f"tinker://{run.training_run_id}/sampler_weights/one"
    assert run.last_sampler_checkpoint is not None
    assert run.last_sampler_checkpoint.user_metadata == {"a": "b"}
    assert run.last_sampler_checkpoint.expires_at is not None


def test_training_goes_on_exactly_from_a_copy(
    client: ServiceClient, engine_server: EngineServer, trainer: TrainingClient, project: str
) -> None:
    train(trainer, steps=2)
    path = trainer.save_state("two").result().path
    expected = train(trainer, steps=2)
    copied = connect(engine_server, project_id=project).copy_weights(path).result()
    resumed = client.create_training_client_from_state_with_optimizer(copied).result()
    assert train(resumed, steps=2) == pytest.approx(expected, rel=1e-6)


def test_a_copy_is_made_once_however_often_it_is_asked_for(
    trainer: TrainingClient, engine_server: EngineServer, project: str
) -> None:
    path = trainer.save_state("one").result().path
    url = f"{engine_server.base_url}/api/v1/copy_weights"
    headers = {"X-API-Key": engine_server.api_key, "X-Idempotency-Key": secrets.token_hex(8)}
    body = {"source_path": path, "destination_project_id": project}
    answers = [httpx.post(url, json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "send destination_project_id, or session_id and model_seq_id"),
        ({"destination_project_id": "p", "weights_access_token": "t"}, "one owner"),
        ({"destination_project_id": "p", "ttl_seconds": 5}, "ttl_seconds is 5"),
        ({"destination_project_id": "p", "source_path": "tinker://x"}, "not a checkpoint path"),
    ],
)
def test_a_copy_that_cannot_be_made_is_explained(
    trainer: TrainingClient, engine_server: EngineServer, body: dict[str, object], text: str
) -> None:
    path = trainer.save_state("one").result().path
    answer = httpx.post(
        f"{engine_server.base_url}/api/v1/copy_weights",
        json={"source_path": path, **body},
        headers={"X-API-Key": engine_server.api_key},
    )
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_older_sdks_copy_into_a_session_of_theirs(
    client: ServiceClient, trainer: TrainingClient, engine_server: EngineServer
) -> None:
    path = trainer.save_state("one").result().path
    session_id = client.holder.get_session_id()

    def copy(number: int) -> httpx.Response:
        return httpx.post(
            f"{engine_server.base_url}/api/v1/copy_weights",
            json={"source_path": path, "session_id": session_id, "model_seq_id": number},
            headers={"X-API-Key": engine_server.api_key},
        )

    number = client.holder.get_training_client_id()
    copied = f"tinker://{session_id}:train:{number}/weights/one"
    assert copy(number).json() == {"tinker_path": copied}
    taken = copy(int(trainer.model_id.rpartition(":")[2]))
    assert taken.status_code == 400
    assert "a copy needs a number of its own" in taken.json()["error"]


def test_a_session_moves_into_a_project_with_its_models_and_checkpoints(
    engine_server: EngineServer, rest: RestClient, project: str
) -> None:
    mine = connect(engine_server)
    trainer = mine.create_lora_training_client(engine_server.base_model, rank=2).result()
    trainer.save_state("one").result()
    session_id = mine.holder.get_session_id()
    assert rest.list_training_runs(project_id=project).result().training_runs == []
    rest.assign_session_project(session_id, project).result()
    [run] = rest.list_training_runs(project_id=project).result().training_runs
    assert run.training_run_id == trainer.model_id
    mine.close("success").result()
    [run] = rest.list_training_runs(project_id=project).result().training_runs
    assert run.training_run_id == trainer.model_id, "the checkpoint knows its project"


def search(rest: RestClient, **fields: object) -> list[types.SessionSummary]:
    request = types.SessionSearchRequest.model_validate(fields)
    return rest.search_sessions(request).result().sessions


def test_sessions_are_found_by_what_they_are(
    engine_server: EngineServer, rest: RestClient, project: str
) -> None:
    mine = connect(engine_server, project_id=project, display_name="Nightly run seven")
    session_id = mine.holder.get_session_id()
    trainer = mine.create_lora_training_client(engine_server.base_model, rank=2).result()
    trainer.save_state("one").result()
    [found] = search(rest, project_ids=[project])
    assert (found.session_id, found.project_id, found.owner) == (session_id, project, "local")
    assert found.status == types.SessionActive()
    assert found.checkpoints_count == 1
    assert (found.checkpoint_storage_bytes or 0) > 0
    here = {"project_ids": [project]}
    assert search(rest, **here, display_name="SEVEN night") == [found]
    assert search(rest, **here, display_name="eight") == []
    assert search(rest, **here, display_name="eight", session_id=session_id) == [found]
    assert search(rest, **here, session_id="other") == []
    assert search(rest, **here, user_metadata={"a": "b"}) == []
    assert search(rest, **here, owner={"type": "accessible"}) == [found]
    assert search(rest, **here, owner={"type": "user", "owner_urns": ["someone"]}) == []
    assert search(rest, **here, statuses=[{"type": "active"}]) == [found]
    assert search(rest, **here, statuses=[{"type": "failed"}]) == []


def test_sessions_that_ended_are_found_by_their_end(
    engine_server: EngineServer, rest: RestClient, project: str
) -> None:
    mine = connect(engine_server, project_id=project)
    mine.close("errored", "out of ideas").result()
    [found] = search(rest, project_ids=[project])
    assert found.status == types.ClientSessionFinished(
        reason=types.ClientSessionFinishErrored(), detail="out of ideas"
    )
    finished = {"type": "client_finished"}
    assert search(rest, project_ids=[project], statuses=[finished]) == [found]
    for reasons, expected in ((["errored"], [found]), (["success", "interrupted"], [])):
        query = [{**finished, "reasons": reasons}]
        assert search(rest, project_ids=[project], statuses=query) == expected


def test_pages_of_a_search_hold_each_session_once_the_newest_first(
    engine_server: EngineServer, rest: RestClient, project: str
) -> None:
    made = [connect(engine_server, project_id=project).holder.get_session_id() for _ in range(5)]
    request = types.SessionSearchRequest(project_ids=[project], limit=2)
    found: list[str] = []
    while True:
        page = rest.search_sessions(request).result()
        found += [session.session_id for session in page.sessions]
        if page.next_cursor is None:
            break
        assert len(page.sessions) == 2
        request = request.model_copy(update={"cursor": page.next_cursor})
    assert found == made[::-1]
