"""Order, batches and turns, seen from the executor."""

import asyncio
import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from art.engine.futures import Failure, FutureStore, Payload
from art.engine.scheduler import SamplingJob, Scheduler
from art.errors import EngineBusyError, InvalidRequestError, NotFoundError
from art.executors.types import LoraConfig, SampleRequest, SamplingParams

LORA = LoraConfig(rank=1, alpha=32.0)
DONE = Payload("text/plain", b"done")


@contextlib.asynccontextmanager
async def running(executor, **options):
    futures = FutureStore()
    scheduler = Scheduler(executor, futures, **options)
    scheduler.start()
    try:
        yield scheduler, futures
    finally:
        executor.gate.set()
        assert await scheduler.close()


def add_model(scheduler, futures, executor, model_id="m"):
    def create():
        executor.create_model(model_id, LORA)
        return DONE

    futures.create(f"{model_id}:0")
    scheduler.add_model(model_id, f"{model_id}:0", create)


def submit(scheduler, ran, seq_id, model_id="m"):
    def work():
        ran.append((model_id, seq_id))
        return Payload("text/plain", str(seq_id).encode())

    scheduler.submit(model_id, seq_id, f"{model_id}:{seq_id}", work)


def job(number, *, token=1, sampler_id=None, folder=None, samples=1):
    return SamplingJob(
        request_id=f"s:{number}",
        group="s#0",
        request=SampleRequest(
            sampler_id=sampler_id,
            prompt=np.array([token]),
            num_samples=samples,
            params=SamplingParams(max_tokens=1),
        ),
        folder=folder,
        encode=lambda result: Payload("text/plain", str(len(result.sequences)).encode()),
    )


def passes(executor):
    return [size for name, size in executor.calls if name == "sample"]


async def until_sampling(executor):
    while not passes(executor):  # noqa: ASYNC110 - it is another thread that says so
        await asyncio.sleep(0.001)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(1, 9)), repeats=st.lists(st.integers(1, 8), max_size=6))
def test_requests_run_once_in_the_order_of_seq_id(unigram, order, repeats):
    async def run():
        ran = []
        async with running(unigram) as (scheduler, futures):
            add_model(scheduler, futures, unigram)
            for seq_id in [*order, *repeats]:
                submit(scheduler, ran, seq_id)
                await asyncio.sleep(0)
            for seq_id in order:
                outcome = await futures.wait(f"m:{seq_id}", 5)
                assert outcome.body == str(seq_id).encode()
            for seq_id in repeats:  # late: all have run
                submit(scheduler, ran, seq_id)
            await asyncio.sleep(0.01)
        assert ran == [("m", seq_id) for seq_id in range(1, 9)]

    asyncio.run(run())


async def test_what_waits_for_sampling_is_one_pass(unigram):
    async with running(unigram) as (scheduler, futures):
        unigram.gate.clear()
        scheduler.submit_sample(job(0))
        await until_sampling(unigram)
        for number in range(1, 65):
            scheduler.submit_sample(job(number))
        unigram.gate.set()
        for number in range(65):
            assert await futures.wait(f"s:{number}", 5) == Payload("text/plain", b"1")
    assert passes(unigram) == [1, 64]


async def test_requests_that_trickle_in_are_one_pass(unigram):
    async with running(unigram, window_s=0.05) as (scheduler, futures):
        for number in range(8):
            scheduler.submit_sample(job(number))
            await asyncio.sleep(0.005)
        await futures.wait("s:7", 5)
    assert passes(unigram) == [8]


async def test_a_batch_has_a_largest_size(unigram):
    async with running(unigram, max_batch_sequences=8) as (scheduler, futures):
        for number in range(6):
            scheduler.submit_sample(job(number, samples=3))
        scheduler.submit_sample(job(6, samples=20))
        assert (await futures.wait("s:6", 5)).body == b"20"
    assert passes(unigram) == [2, 2, 2, 1]


async def test_training_and_sampling_take_turns(unigram):
    ran = []
    async with running(unigram, max_batch_sequences=1, window_s=0.0) as (scheduler, futures):
        add_model(scheduler, futures, unigram)
        await futures.wait("m:0", 5)
        unigram.gate.clear()
        scheduler.submit_sample(job(0))
        await until_sampling(unigram)
        for seq_id in range(1, 6):
            scheduler.submit(
                "m", seq_id, f"m:{seq_id}", lambda: unigram.calls.append(("train", 0)) or DONE
            )
            scheduler.submit_sample(job(seq_id))
        unigram.gate.set()
        await futures.wait("m:5", 5)
        await futures.wait("s:5", 5)
    names = [name for name, _ in unigram.calls if name in ("train", "sample")]
    assert names == ["sample", *["train", "sample"] * 5]
    assert ran == []


async def test_models_take_turns(unigram):
    ran = []
    async with running(unigram) as (scheduler, futures):
        for model_id in "ab":
            add_model(scheduler, futures, unigram, model_id)
            await futures.wait(f"{model_id}:0", 5)
        for seq_id, model_id in itertools.product(range(1, 4), "ab"):
            submit(scheduler, ran, seq_id, model_id)
        for model_id in "ab":
            await futures.wait(f"{model_id}:3", 5)
    assert ran == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]


async def test_one_thread_computes_and_the_loop_stays_free(unigram):
    async with running(unigram) as (scheduler, futures):
        unigram.gate.clear()
        add_model(scheduler, futures, unigram)
        scheduler.submit_sample(job(0))
        beats = 0
        while beats < 50:  # heartbeats would be answered
            await asyncio.sleep(0.001)
            beats += 1
        assert scheduler.busy
        assert await futures.wait("m:0", 0.01) is None
        unigram.gate.set()
        await futures.wait("m:0", 5)
        await futures.wait("s:0", 5)
    assert len(unigram.threads) == 1


async def test_a_wrong_request_fails_alone(unigram):
    async with running(unigram) as (scheduler, futures):
        for number in range(4):
            scheduler.submit_sample(job(number, token=99 if number == 2 else 1))
        outcomes = [await futures.wait(f"s:{number}", 5) for number in range(4)]
    assert outcomes[2] == Failure("a token is not in the vocabulary", "user")
    assert [outcomes[index].body for index in (0, 1, 3)] == [b"1"] * 3


async def test_a_failure_does_not_stop_what_follows(unigram):
    async with running(unigram) as (scheduler, futures):
        add_model(scheduler, futures, unigram)

        def fault():
            raise RuntimeError("boom")

        def refuse():
            raise InvalidRequestError("no")

        scheduler.submit("m", 1, "m:1", fault)
        scheduler.submit("m", 2, "m:2", refuse)
        scheduler.submit("m", 3, "m:3", lambda: DONE)
        assert await futures.wait("m:3", 5) == DONE
        assert await futures.wait("m:1", 5) == Failure("RuntimeError: boom", "server")
        assert await futures.wait("m:2", 5) == Failure("no", "user")


async def test_a_model_that_cannot_be_created_is_gone(unigram):
    async with running(unigram) as (scheduler, futures):

        def create():
            raise InvalidRequestError("no such layer")

        futures.create("m:0")
        scheduler.add_model("m", "m:0", create)
        submit(scheduler, [], 1)
        assert (await futures.wait("m:0", 5)).error == "no such layer"
        assert "could not be created" in (await futures.wait("m:1", 5)).error
        with pytest.raises(NotFoundError):
            submit(scheduler, [], 2)


async def test_a_request_that_never_arrives_does_not_hold_the_others_for_ever(unigram):
    ran = []
    async with running(unigram, gap_timeout_s=0.02) as (scheduler, futures):
        add_model(scheduler, futures, unigram)
        await futures.wait("m:0", 5)
        submit(scheduler, ran, 2)
        submit(scheduler, ran, 3)
        scheduler.fail_gaps()
        assert await futures.wait("m:2", 0.03) is None
        scheduler.fail_gaps()
        assert "seq_id 1 of m never arrived" in (await futures.wait("m:2", 5)).error
        submit(scheduler, ran, 4)
        await futures.wait("m:4", 5)
    assert ran == [("m", 4)]


async def test_samplers_come_and_go_with_use(unigram, tmp_path):
    unigram.create_model("m", LORA)
    folders: list[Path] = []
    for name in "abc":
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        unigram.save_weights("m", folders[-1], optimizer=False)
    async with running(unigram, max_samplers=2) as (scheduler, futures):
        for number, index in enumerate([0, 1, 0, 2, 1]):
            scheduler.submit_sample(job(number, sampler_id="abc"[index], folder=folders[index]))
            assert isinstance(await futures.wait(f"s:{number}", 5), Payload)
        await scheduler.remove_sampler("c")
        scheduler.submit_sample(job(9, sampler_id="d", folder=tmp_path / "d"))
        scheduler.submit_sample(job(10, sampler_id="b", folder=folders[1]))
        assert await futures.wait("s:9", 5) == Failure("d is gone", "user")
        assert isinstance(await futures.wait("s:10", 5), Payload)
    moves = [call for call in unigram.calls if call[0].endswith("_sampler")]
    assert moves[:7] == [
        ("load_sampler", "a"),
        ("load_sampler", "b"),
        ("unload_sampler", "b"),
        ("load_sampler", "c"),
        ("unload_sampler", "a"),
        ("load_sampler", "b"),
        ("unload_sampler", "c"),
    ]


async def test_cancelled_requests_are_not_sampled(unigram):
    async with running(unigram, max_waiting_samples=3) as (scheduler, futures):
        unigram.gate.clear()
        scheduler.submit_sample(job(0))
        await until_sampling(unigram)
        for number in (1, 2, 3):
            scheduler.submit_sample(job(number))
        with pytest.raises(EngineBusyError):
            scheduler.submit_sample(job(4))
        scheduler.cancel_sample("s:2")
        unigram.gate.set()
        assert await futures.wait("s:2", 5) == Failure("the request was cancelled", "user")
        await futures.wait("s:3", 5)
    assert passes(unigram) == [1, 2]


async def test_an_unloaded_model_answers_what_it_still_had(unigram):
    async with running(unigram) as (scheduler, futures):
        add_model(scheduler, futures, unigram)
        await futures.wait("m:0", 5)
        submit(scheduler, [], 5)
        await scheduler.remove_model("m")
        assert "was unloaded" in (await futures.wait("m:5", 5)).error
    assert unigram.calls[-1] == ("unload_model", "m")


async def test_a_model_that_is_not_created_yet_can_be_removed(unigram):
    async with running(unigram) as (scheduler, futures):
        unigram.gate.clear()
        add_model(scheduler, futures, unigram, "runs")
        while not unigram.calls:  # noqa: ASYNC110 - it is another thread that says so
            await asyncio.sleep(0.001)
        add_model(scheduler, futures, unigram, "waits")
        removed = [
            asyncio.create_task(scheduler.remove_model(model_id)) for model_id in ("runs", "waits")
        ]
        await asyncio.sleep(0.01)
        unigram.gate.set()
        await asyncio.gather(*removed)
        assert "was unloaded" in (await futures.wait("waits:0", 5)).error
    assert unigram.calls == [("create_model", "runs"), ("unload_model", "runs")]


async def test_results_are_bounded_and_the_fetched_go_first():
    futures = FutureStore(max_bytes=100, max_results=4)
    for number in range(3):
        futures.create(str(number))
        futures.resolve(str(number), Payload("x", bytes(30)))
    futures.create("running")
    futures.mark_fetched("1")
    futures.create("3")
    futures.resolve("3", Payload("x", bytes(30)))
    with pytest.raises(NotFoundError, match="dropped"):
        await futures.wait("1", 0)
    assert (await futures.wait("0", 0)) is not None
    futures.create("4")
    futures.resolve("4", Payload("x", bytes(99)))
    kept = []
    for number in range(5):
        with contextlib.suppress(NotFoundError):
            await futures.wait(str(number), 0)
            kept.append(number)
    assert kept == [4]
    assert await futures.wait("running", 0) is None


async def test_a_repeated_outcome_changes_nothing():
    futures = FutureStore()
    assert futures.create("a")
    assert not futures.create("a")
    futures.resolve("a", DONE)
    futures.resolve("a", Failure("late", "user"))
    assert await futures.wait("a", 0) == DONE


async def test_groups_tell_what_has_ended_since():
    futures = FutureStore()
    for name in "abc":
        futures.create(name, group="g")
    futures.create("other", group="h")
    futures.resolve("b", DONE)
    futures.resolve("other", DONE)
    ended, cursor = await futures.wait_for_group("g", 0, 1)
    assert [name for name, _ in ended] == ["b"]
    assert await futures.wait_for_group("g", cursor, 0.01) == ([], cursor)
    waiting = asyncio.create_task(futures.wait_for_group("g", cursor, 5))
    await asyncio.sleep(0.01)
    futures.resolve("a", Failure("no", "user"))
    ended, cursor = await waiting
    assert [name for name, _ in ended] == ["a"]
    futures.resolve("c", DONE)
    assert [name for name, _ in (await futures.wait_for_group("g", cursor, 0))[0]] == ["c"]
