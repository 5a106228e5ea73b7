"""How sampling requests join, end and are dropped, seen from the sampler."""

import asyncio
from pathlib import Path

import pytest

from art.engine.futures import Failure, Payload
from art.errors import EngineBusyError
from art.executors.types import EndedRequest, LoraConfig

from .queues import TEXT, job, outcome, sampling, until
from .unigram import LONG, UnigramExecutor

CANCELLED = Failure("the request was cancelled", "user")


def submitted(unigram: UnigramExecutor) -> list[object]:
    return [argument for name, argument in unigram.calls if name == "submit"]


def began(unigram: UnigramExecutor) -> bool:
    return any(name == "begin" for name, _ in unigram.calls)


async def test_requests_that_arrive_together_are_computed_together(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram, window_s=0.05) as (queue, futures):
        for number in range(8):
            queue.submit(job(number))
            await asyncio.sleep(0.005)
        for number in range(8):
            assert await outcome(futures, f"s:{number}") == Payload(TEXT, b"1")
    assert unigram.sizes_of_steps == [8]


async def test_requests_that_arrive_during_a_step_are_computed_together_after_it(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram) as (queue, futures):
        unigram.gate.clear()
        queue.submit(job(0))
        await until(lambda: began(unigram))
        for number in range(1, 65):
            queue.submit(job(number))
        await asyncio.sleep(0.05)
        unigram.gate.set()
        for number in range(65):
            assert await outcome(futures, f"s:{number}") == Payload(TEXT, b"1")
    assert unigram.sizes_of_steps == [1, 64]


async def test_a_request_joins_and_ends_while_a_long_one_runs(unigram: UnigramExecutor) -> None:
    async with sampling(unigram) as (queue, futures):
        queue.submit(job(0, max_tokens=LONG))
        await until(lambda: began(unigram))
        queue.submit(job(1))
        assert await outcome(futures, "s:1") == Payload(TEXT, b"1")
        assert await futures.wait("s:0", 0.01) is None
        unigram.ending.set()
        assert await outcome(futures, "s:0") == Payload(TEXT, b"1")


async def test_a_bound_on_running_sequences_is_kept(unigram: UnigramExecutor) -> None:
    async with sampling(unigram, max_running_sequences=8) as (queue, futures):
        for number in range(6):
            queue.submit(job(number, samples=3))
        queue.submit(job(6, samples=20))  # more than the bound: alone
        assert await outcome(futures, "s:6") == Payload(TEXT, b"20")
    assert unigram.sizes_of_steps == [2, 2, 2, 1]


async def test_a_wrong_request_fails_alone(unigram: UnigramExecutor) -> None:
    async with sampling(unigram) as (queue, futures):
        for number in range(4):
            queue.submit(job(number, token=99 if number == 2 else 1))
        outcomes = [await outcome(futures, f"s:{number}") for number in range(4)]
    assert outcomes.pop(2) == Failure("a token is not in the vocabulary", "user")
    assert outcomes == [Payload(TEXT, b"1")] * 3


async def test_a_step_that_fails_fails_what_ran_and_nothing_later(
    unigram: UnigramExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[EndedRequest]:
        unigram._requests.clear()
        raise MemoryError("no room")

    async with sampling(unigram) as (queue, futures):
        with monkeypatch.context() as broken:
            broken.setattr(unigram, "step", fail)
            queue.submit(job(0))
            queue.submit(job(1))
            for number in (0, 1):
                failed = await outcome(futures, f"s:{number}")
                assert failed == Failure("MemoryError: no room", "server")
        queue.submit(job(2))
        assert await outcome(futures, "s:2") == Payload(TEXT, b"1")


async def test_a_waiting_request_that_is_cancelled_is_never_sampled(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram, max_waiting=3) as (queue, futures):
        unigram.gate.clear()
        queue.submit(job(0))
        await until(lambda: began(unigram))
        for number in (1, 2, 3):
            queue.submit(job(number))
        with pytest.raises(EngineBusyError):
            queue.submit(job(4))
        queue.cancel("s:2")
        unigram.gate.set()
        assert await outcome(futures, "s:2") == CANCELLED
        await outcome(futures, "s:3")
    assert submitted(unigram) == ["s:0", "s:1", "s:3"]


async def test_a_running_request_that_is_cancelled_stops_costing_steps(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram) as (queue, futures):
        queue.submit(job(0, max_tokens=LONG))
        await until(lambda: began(unigram))
        queue.cancel("s:0")
        assert await outcome(futures, "s:0") == CANCELLED
        await until(lambda: ("cancel", "s:0") in unigram.calls)
        count = len(unigram.calls)
        await asyncio.sleep(0.1)
        assert len(unigram.calls) == count
        queue.submit(job(1))
        assert await outcome(futures, "s:1") == Payload(TEXT, b"1")


async def test_all_requests_of_a_sampling_session_are_cancelled_with_it(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram, max_running_sequences=2) as (queue, futures):
        for number in range(4):  # two run, two wait
            queue.submit(job(number, max_tokens=LONG, session="gone"))
        queue.submit(job(0, session="stays"))
        await until(lambda: began(unigram))
        queue.cancel_sessions({"gone"})
        for number in range(4):
            assert await outcome(futures, f"gone:{number}") == CANCELLED
        assert await outcome(futures, "stays:0") == Payload(TEXT, b"1")


async def test_cancelling_an_ended_or_unknown_request_changes_nothing(
    unigram: UnigramExecutor,
) -> None:
    async with sampling(unigram) as (queue, futures):
        queue.submit(job(0))
        ended = await outcome(futures, "s:0")
        queue.cancel("s:0")
        queue.cancel("nobody's")
        assert await outcome(futures, "s:0") == ended


async def test_adapters_come_and_go_with_use(unigram: UnigramExecutor, tmp_path: Path) -> None:
    unigram.create_model("m", LoraConfig(rank=1, alpha=32.0))
    folders = {name: tmp_path / name for name in "abc"}
    for folder in folders.values():
        folder.mkdir()
        unigram.save_weights("m", folder, optimizer=False)
    async with sampling(unigram, max_adapters=2) as (queue, futures):
        for number, name in enumerate("abacb"):
            queue.submit(job(number, adapter_id=name, folder=folders[name]))
            assert isinstance(await outcome(futures, f"s:{number}"), Payload)
        await queue.forget_adapter("c")
        queue.submit(job(9, adapter_id="d", folder=tmp_path / "d"))
        queue.submit(job(10, adapter_id="b", folder=folders["b"]))
        assert await outcome(futures, "s:9") == Failure("d is gone", "user")
        assert isinstance(await outcome(futures, "s:10"), Payload)
    moves = [call for call in unigram.calls if call[0].endswith("load_adapter")]
    assert moves[:7] == [
        ("load_adapter", "a"),
        ("load_adapter", "b"),
        ("unload_adapter", "b"),
        ("load_adapter", "c"),
        ("unload_adapter", "a"),
        ("load_adapter", "b"),
        ("unload_adapter", "c"),
    ]


async def test_no_more_adapters_run_at_a_time_than_fit(
    unigram: UnigramExecutor, tmp_path: Path
) -> None:
    unigram.create_model("m", LoraConfig(rank=1, alpha=32.0))
    unigram.save_weights("m", tmp_path, optimizer=False)
    async with sampling(unigram, max_adapters=2) as (queue, futures):
        for number, name in enumerate("abcab"):
            queue.submit(job(number, adapter_id=name, folder=tmp_path, max_tokens=LONG))
        await until(lambda: began(unigram))
        await asyncio.sleep(0.05)
        assert submitted(unigram) == ["s:0", "s:1"]
        unigram.ending.set()
        for number in range(5):
            assert isinstance(await outcome(futures, f"s:{number}"), Payload)
