"""Supervised fine-tuning on a real engine, against transformers' loss of the same examples."""

import re
from pathlib import Path
from typing import Any

import pytest

import art
from art.errors import ConfigurationError, NoTrainableTokensError, NotRegisteredError
from art.runs.history import read_history
from tests.engine_server import EngineServer

PAIRS = [
    ("Is the sky blue?", "Yes, by day."),
    ("Can a dog fly?", "No."),
    ("Is ice warm?", "No, it is cold."),
    ("Is two even?", "Yes."),
    ("Do fish swim?", "Yes, most of them do."),
]


def example(question: str, answer: str) -> art.Trajectory:
    return art.Trajectory(
        messages_and_choices=[
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    )


def reference_loss(folder: str, batch: list[art.Trajectory]) -> float:
    """The mean loss a token of the answers and their ends, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    total, count = 0.0, 0
    for trajectory in batch:
        text = tokenizer.apply_chat_template(trajectory.messages(), tokenize=False)
        ids: list[int] = []
        labels: list[int] = []
        # What the assistant says, between the opening of its turn and the end of it.
        for part in re.split(r"(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", text):
            tokens = tokenizer.encode(part, add_special_tokens=False)
            is_answer = part.endswith("<|im_end|>") and not part.startswith("<|im_start|>")
            ids += tokens
            labels += tokens if is_answer else [-100] * len(tokens)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels[1:]), reduction="sum", ignore_index=-100
        )
        total += float(loss)
        count += sum(label != -100 for label in labels)
    return total / count


async def test_the_loss_is_that_of_transformers_and_goes_down(
    model: art.TrainableModel[None], tmp_path: Path
) -> None:
    examples = [example(*pair) for pair in PAIRS]
    untrained = await model.train_sft(examples, art.TrainSFTConfig(learning_rate=0.0))
    batches = [examples[0:2], examples[2:4], examples[4:5]]
    expected = [reference_loss(model.base_model, batch) for batch in batches]
    assert untrained.metrics["loss/train"] == pytest.approx(sum(expected) / 3, abs=1e-4)
    assert untrained.metrics["data/step_num_gradient_steps"] == 3

    losses = []
    for _ in range(4):
        config = art.TrainSFTConfig(learning_rate=6e-3, batch_size=5)
        losses.append((await model.train_sft(examples, config)).metrics["loss/train"])
    assert losses[0] == pytest.approx(reference_loss(model.base_model, examples), abs=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]

    # One step of the model, one checkpoint and one row of history for each call.
    assert await model.get_step() == 5
    rows = read_history(model.get_output_dir())
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss/train"] for row in rows[1:]] == losses
    assert all(row["time/step_trainer_s"] > 0 for row in rows)
    assert (tmp_path / "p" / "models" / "agent" / "checkpoints" / "0005").is_dir()


async def test_what_was_imitated_is_then_sampled(model: art.TrainableModel[None]) -> None:
    rates = [1e-2] * 20 + [3e-3] * 10
    examples = [example("hello", "Yes")] * len(rates)
    await model.train_sft(examples, art.TrainSFTConfig(learning_rate=rates, batch_size=1))
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(),
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=1,
        temperature=0,
    )
    assert completion.choices[0].message.content == "Yes"


async def test_every_turn_of_every_history_is_imitated(
    model: art.TrainableModel[None],
) -> None:
    conversation: art.MessagesAndChoices = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c?"},
        {"role": "assistant", "content": "d"},
    ]
    trajectory = art.Trajectory(
        messages_and_choices=conversation,
        additional_histories=[art.History(messages_and_choices=conversation[:2])],
    )
    result = await model.train_sft(iter([trajectory]), art.TrainSFTConfig(learning_rate=0.0))
    # Each answer is one token and its end.
    assert result.metrics["data/step_trainer_tokens"] == 3 * 2
    assert result.metrics["data/step_num_sequences"] == 2


async def test_a_completion_of_the_model_is_imitated_by_its_exact_tokens(
    model: art.TrainableModel[None],
) -> None:
    messages: art.Messages = [{"role": "user", "content": "hello"}]
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(), messages=messages, max_tokens=7, seed=1, logprobs=True
    )
    choice = completion.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content
    trajectory = art.Trajectory(messages_and_choices=[*messages, choice])
    result = await model.train_sft([trajectory], art.TrainSFTConfig(learning_rate=0.0))
    logprobs = [token.logprob for token in choice.logprobs.content]
    assert result.metrics["loss/train"] == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-4)


async def test_one_bad_example_is_dropped_and_counted(
    model: art.TrainableModel[None], caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[art.Trajectory] = [
        art.Trajectory(messages_and_choices=[{"role": "user", "content": "alone"}]),
        example("long", "word " * 600),
        art.Trajectory(),
    ]
    config = art.TrainSFTConfig(learning_rate=0.0, batch_size=1)
    result = await model.train_sft([bad[0], example(*PAIRS[0]), *bad[1:]], config)
    assert result.metrics["data/step_num_dropped_trajectories"] == 3
    assert result.metrics["data/step_num_gradient_steps"] == 1
    assert "3 of 4 trajectories are left out, the first since it has no message" in caplog.text
    with pytest.raises(NoTrainableTokensError, match="none of 3 trajectories"):
        await model.train_sft(bad)
    with pytest.raises(NoTrainableTokensError, match="none of 0 trajectories"):
        await model.train_sft([])
    assert await model.get_step() == 1


async def test_options_that_cannot_be_used_are_refused_before_anything_is_sent(
    model: art.TrainableModel[None], engine_server: EngineServer
) -> None:
    examples = [example(*pair) for pair in PAIRS]
    with pytest.raises(ConfigurationError, match="lists 2 values for 3 batches of 2"):
        await model.train_sft(examples, art.TrainSFTConfig(learning_rate=[1e-3, 1e-3]))
    with pytest.raises(ConfigurationError, match="_config has foo"):
        await model.train_sft(examples, None, {"foo": 1})
    assert await model.get_step() == 0
    other: art.TrainableModel[Any] = art.TrainableModel(name="o", project="p", base_model="b")
    with pytest.raises(NotRegisteredError):
        await other.train_sft(examples)
