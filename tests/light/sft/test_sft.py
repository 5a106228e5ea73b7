"""Examples in chunks and from files, and the learning rates of their batches."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import art
from art.errors import ConfigurationError, TrainingDataError
from art.types import TrainResult
from art.utils.sft import (
    create_lr_schedule,
    create_sft_dataset_iterator,
    get_file_row_count,
    iterate_file,
    train_sft_from_file,
)


def text_of(trajectory: art.Trajectory) -> str:
    return str(trajectory.messages()[-1].get("content"))


def example(number: int) -> art.Trajectory:
    return art.Trajectory(
        messages_and_choices=[
            {"role": "user", "content": "count"},
            {"role": "assistant", "content": str(number)},
        ]
    )


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.55, 1, 1, 0.7, 0.4, 0.1]),
        ("cosine", [0.55, 1, *(0.1 + 0.45 * (1 + math.cos(math.pi * k / 3)) for k in range(4))]),
    ],
)
def test_learning_rates_rise_and_fall(method: str, expected: list[float]) -> None:
    low = 0.0 if method == "constant" else 0.1
    rates = create_lr_schedule(6, 1.0, method, warmup_steps=2, min_lr=low)  # type: ignore[arg-type]  # a name
    assert rates == pytest.approx(expected)


@given(total=st.integers(0, 30), warmup=st.integers(0, 40), peak=st.floats(1e-6, 1))
def test_there_are_as_many_rates_as_batches_all_within_bounds(
    total: int, warmup: int, peak: float
) -> None:
    rates = create_lr_schedule(total, peak, "cosine", warmup)
    assert len(rates) == total
    assert all(0 <= rate <= peak for rate in rates)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="known: cosine, linear, constant"):
        create_lr_schedule(1, 1.0, "stairs")  # type: ignore[arg-type]  # what is tested


@given(
    size=st.integers(0, 12),
    chunk=st.integers(1, 4),
    batch=st.integers(1, 4),
    epochs=st.integers(0, 3),
    data=st.data(),
)
def test_chunks_hold_every_example_once_an_epoch_with_the_rates_of_the_whole_run(
    size: int, chunk: int, batch: int, epochs: int, data: st.DataObject
) -> None:
    examples = [example(number) for number in range(size)]
    options = {"chunk_size": chunk, "epochs": epochs, "batch_size": batch, "show_progress": False}
    chunks = list(create_sft_dataset_iterator(examples, **options))  # type: ignore[arg-type]  # by name
    seen = Counter(text_of(each) for chunk in chunks for each in chunk.trajectories)
    assert seen == {str(number): epochs for number in range(size) if epochs}
    rates = [
        rate
        for each in chunks
        for rate in each.config.learning_rates(-(-len(each.trajectories) // batch))
    ]
    total = -(-size // batch) * epochs
    assert rates == create_lr_schedule(total, 2e-4, "linear", int(total * 0.1))
    # A resumed run begins with the chunk that the batch lies in.
    start = data.draw(st.integers(0, total + 1))
    resumed = list(create_sft_dataset_iterator(examples, **options, initial_step=start))  # type: ignore[arg-type]  # by name
    later = [each for each in chunks if each.step + -(-len(each.trajectories) // batch) > start]
    assert [each.step for each in resumed] == [each.step for each in later]
    assert [text_of(t) for c in resumed for t in c.trajectories] == [
        text_of(t) for c in later for t in c.trajectories
    ]


def test_a_chunk_is_unpacked_like_a_tuple() -> None:
    (chunk,) = create_sft_dataset_iterator([example(1)], show_progress=False)
    trajectories, config, *places = chunk
    assert (trajectories, config) == (chunk.trajectories, chunk.config)
    assert places == [0, 0, 0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five examples, with an empty line among them."""
    path = tmp_path / "examples.jsonl"
    lines = [json.dumps({"messages": example(number).messages()}) for number in range(5)]
    path.write_text("\n".join([*lines[:2], "", *lines[2:]]))
    return path


@pytest.mark.parametrize("buffer", [1, 2, 100])
def test_a_file_is_read_once_an_epoch_and_can_be_resumed(file: Path, buffer: int) -> None:
    assert get_file_row_count(file) == 5
    read = [text_of(each) for each in iterate_file(file, 2, buffer)]
    assert sorted(read[:5]) == sorted(read[5:]) == list("01234")
    assert [text_of(each) for each in iterate_file(file, 2, buffer, initial_skip=7)] == read[7:]
    if buffer > 1:
        assert read[:5] != read[5:]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is no example"),
        ("[]", "line 2 of .* must be an object with a list of messages"),
        ('{"messages": [1]}', "line 2 of .* is no example"),
        ('{"messages": [], "tools": 1}', "line 2 of .* is no example"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"messages": []}}\n{line}\n')
    with pytest.raises(TrainingDataError, match=message):
        list(iterate_file(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ends in \.jsonl"):
        get_file_row_count(tmp_path / "examples.csv")


class Trained:
    """Keeps what it was to be trained on."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], art.TrainSFTConfig | None]] = []

    async def train_sft(
        self,
        trajectories: Iterable[art.Trajectory],
        config: art.TrainSFTConfig | None = None,
        _config: Mapping[str, object] | None = None,
        verbose: bool = False,
    ) -> TrainResult:
        self.calls.append(([text_of(each) for each in trajectories], config))
        return TrainResult(1)


async def test_a_file_is_trained_on_in_parts_as_in_one(file: Path) -> None:
    whole, parts = Trained(), Trained()
    await train_sft_from_file(whole, file, epochs=2, batch_size=3)
    await train_sft_from_file(parts, file, epochs=2, batch_size=3, final_step=2)
    await train_sft_from_file(parts, file, epochs=2, batch_size=3, initial_step=2)
    ((texts, config),) = whole.calls
    assert [text for part, _ in parts.calls for text in part] == texts
    assert len(texts) == 10
    assert config is not None
    assert config.learning_rates(4) == create_lr_schedule(4, 2e-4)
    assert await train_sft_from_file(parts, file, initial_step=5) is None
