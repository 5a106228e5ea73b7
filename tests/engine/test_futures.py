"""Results that clients come back for."""

import asyncio
import contextlib

import pytest

from art.engine.futures import Failure, FutureStore, Payload
from art.errors import NotFoundError

DONE = Payload("text/plain", b"done")


async def test_results_are_bounded_and_the_fetched_go_first() -> None:
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
    kept: list[int] = []
    for number in range(5):
        with contextlib.suppress(NotFoundError):
            await futures.wait(str(number), 0)
            kept.append(number)
    assert kept == [4]
    assert await futures.wait("running", 0) is None


async def test_a_repeated_outcome_changes_nothing() -> None:
    futures = FutureStore()
    assert futures.create("a")
    assert not futures.create("a")
    futures.resolve("a", DONE)
    futures.resolve("a", Failure("late", "user"))
    assert await futures.wait("a", 0) == DONE


async def test_groups_tell_what_has_ended_since() -> None:
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
