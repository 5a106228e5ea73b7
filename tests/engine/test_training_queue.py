"""The order and the turns of models' requests, seen from the training lane."""

import asyncio
import itertools
import threading
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art.engine.futures import Failure, Payload
from art.errors import EngineBusyError, InvalidRequestError, NotFoundError

from .queues import TEXT, outcome, training, until


def hold(runs: threading.Event, gate: threading.Event) -> None:
    runs.set()
    assert gate.wait(10)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(1, 9)), repeats=st.lists(st.integers(1, 8), max_size=6))
def test_requests_run_once_in_the_order_of_seq_id(order: list[int], repeats: list[int]) -> None:
    async def run() -> list[int]:
        ran: list[int] = []
        async with training() as models:
            models.add_model("m")
            for seq_id in [*order, *repeats]:
                models.submit("m", seq_id, partial(ran.append, seq_id))
                await asyncio.sleep(0)
            for seq_id in order:
                assert await outcome(models.futures, f"m:{seq_id}") == Payload(
                    TEXT, str(seq_id).encode()
                )
            for seq_id in repeats:  # late: all have run
                models.submit("m", seq_id, lambda: ran.append(-1))
            await asyncio.sleep(0.01)
        return ran

    assert asyncio.run(run()) == list(range(1, 9))


async def test_models_take_turns() -> None:
    ran: list[tuple[str, int]] = []
    async with training() as models:
        for model_id in "ab":
            models.add_model(model_id)
            await outcome(models.futures, f"{model_id}:0")
        for seq_id, model_id in itertools.product(range(1, 4), "ab"):
            models.submit(model_id, seq_id, partial(ran.append, (model_id, seq_id)))
        for model_id in "ab":
            await outcome(models.futures, f"{model_id}:3")
    assert ran == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]


async def test_the_event_loop_stays_free_while_the_lane_computes() -> None:
    gate = threading.Event()
    async with training() as models:
        models.add_model("m", lambda: gate.wait(10))
        for _ in range(50):  # heartbeats would be answered
            await asyncio.sleep(0.001)
        assert models.lane.busy
        assert await models.futures.wait("m:0", 0.01) is None
        gate.set()
        await outcome(models.futures, "m:0")


async def test_a_failure_does_not_stop_the_requests_behind_it() -> None:
    def fault() -> None:
        raise RuntimeError("boom")

    def refuse() -> None:
        raise InvalidRequestError("no")

    async with training() as models:
        models.add_model("m")
        models.submit("m", 1, fault)
        models.submit("m", 2, refuse)
        models.submit("m", 3)
        assert await outcome(models.futures, "m:3") == Payload(TEXT, b"3")
        assert await outcome(models.futures, "m:1") == Failure("RuntimeError: boom", "server")
        assert await outcome(models.futures, "m:2") == Failure("no", "user")


async def test_a_model_that_cannot_be_created_is_gone() -> None:
    def create() -> None:
        raise InvalidRequestError("no such layer")

    async with training() as models:
        models.add_model("m", create)
        models.submit("m", 1)
        assert await outcome(models.futures, "m:0") == Failure("no such layer", "user")
        behind = await outcome(models.futures, "m:1")
        assert isinstance(behind, Failure)
        assert "could not be created" in behind.error
        with pytest.raises(NotFoundError):
            models.submit("m", 2)


async def test_a_request_that_never_arrives_fails_those_behind_it_and_no_later_ones() -> None:
    ran: list[int] = []
    async with training(gap_timeout_s=0.02) as models:
        models.add_model("m")
        await outcome(models.futures, "m:0")
        models.submit("m", 2, lambda: ran.append(2))
        models.submit("m", 3, lambda: ran.append(3))
        models.queue.fail_gaps()
        assert await models.futures.wait("m:2", 0.03) is None
        models.queue.fail_gaps()
        for request_id in ("m:2", "m:3"):
            failed = await outcome(models.futures, request_id)
            assert isinstance(failed, Failure)
            assert "seq_id 1 of m never arrived" in failed.error
        models.submit("m", 1, lambda: ran.append(1))  # after all: nobody waits for it any more
        late = await outcome(models.futures, "m:1")
        assert isinstance(late, Failure)
        assert "too late" in late.error
        models.submit("m", 4, lambda: ran.append(4))
        await outcome(models.futures, "m:4")
    assert ran == [4]


async def test_a_request_that_runs_for_long_is_not_taken_for_one_that_never_arrived() -> None:
    """A pass of eight minutes, with its optimizer step queued behind it."""
    gate, runs = threading.Event(), threading.Event()
    async with training(gap_timeout_s=0.01) as models:
        models.add_model("m")
        models.submit("m", 1, lambda: hold(runs, gate))
        models.submit("m", 2)
        await until(runs.is_set)
        for _ in range(5):
            await asyncio.sleep(0.02)
            models.queue.fail_gaps()
        gate.set()
        assert await outcome(models.futures, "m:2") == Payload(TEXT, b"2")


async def test_the_wait_for_an_absent_request_begins_when_nothing_of_the_model_runs() -> None:
    gate, runs = threading.Event(), threading.Event()
    async with training(gap_timeout_s=0.2) as models:
        models.add_model("m")
        models.submit("m", 1, lambda: hold(runs, gate))
        models.submit("m", 3)
        await until(runs.is_set)
        await asyncio.sleep(0.3)
        gate.set()
        await outcome(models.futures, "m:1")
        models.queue.fail_gaps()
        models.submit("m", 2)
        assert await outcome(models.futures, "m:3") == Payload(TEXT, b"3")


async def test_an_unloaded_model_answers_the_requests_that_waited() -> None:
    unloaded: list[str] = []
    async with training() as models:
        models.add_model("m")
        await outcome(models.futures, "m:0")
        models.submit("m", 5)
        await models.queue.remove_model("m", lambda: unloaded.append("m"))
        waited = await outcome(models.futures, "m:5")
        assert isinstance(waited, Failure)
        assert "was unloaded" in waited.error
    assert unloaded == ["m"]


async def test_a_model_is_unloaded_only_if_it_was_created() -> None:
    gate, calls = threading.Event(), list[str]()

    def create() -> None:
        calls.append("create runs")
        gate.wait(10)

    async with training() as models:
        models.add_model("runs", create)
        await until(lambda: calls)
        models.add_model("waits", lambda: calls.append("create waits"))
        removed = [
            asyncio.create_task(
                models.queue.remove_model(model_id, partial(calls.append, f"unload {model_id}"))
            )
            for model_id in ("runs", "waits")
        ]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*removed)
        waited = await outcome(models.futures, "waits:0")
        assert isinstance(waited, Failure)
        assert "was unloaded" in waited.error
    assert calls == ["create runs", "unload runs"]


@pytest.mark.parametrize(("max_waiting", "max_waiting_bytes"), [(2, 1000), (100, 20)])
async def test_the_queue_behind_an_absent_request_is_bounded_and_the_absent_one_is_taken(
    max_waiting: int, max_waiting_bytes: int
) -> None:
    async with training(max_waiting=max_waiting, max_waiting_bytes=max_waiting_bytes) as models:
        models.add_model("m")
        await outcome(models.futures, "m:0")
        models.submit("m", 2, size=10)
        models.submit("m", 3, size=10)
        with pytest.raises(EngineBusyError, match="2 requests of this model wait"):
            models.submit("m", 4, size=10)
        models.submit("m", 1, size=500)
        assert await outcome(models.futures, "m:3") == Payload(TEXT, b"3")
        models.submit("m", 4, size=10)
        assert await outcome(models.futures, "m:4") == Payload(TEXT, b"4")
