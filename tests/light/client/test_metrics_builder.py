"""Metrics that are summed up within a step, their totals over a run, and costs."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

import art
from art.errors import ConfigurationError
from art.metrics import MetricsBuilder, record_response_cost
from art.runs.history import read_history


async def test_metrics_are_summed_up_and_costs_also_by_their_paths() -> None:
    builder = MetricsBuilder("train")
    builder.add_cost("train/judge/ruler", 1.0)
    builder.add_cost("train/judge/ruler", 0.5)
    builder.add_cost("train/sampling", 2.0)
    builder.add_cost("gpu", 4.0)
    builder.add_metric("reward/bonus", 3)
    flushed = await builder.flush()
    assert {name: value for name, value in flushed.items() if "/cum/" not in name} == {
        "costs/train/judge/ruler": 1.5,
        "costs/train/judge": 1.5,
        "costs/train/sampling": 2.0,
        "costs/train": 3.5,
        "costs/gpu": 4.0,
        "costs/all": 7.5,
        "reward/bonus": 3,
    }
    assert await builder.flush() == {}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["costs/a/x", "costs/a/y", "costs/b", "time/step_eval_s"]),
            st.floats(0, 1e6),
        ),
        max_size=5,
    )
)
async def test_totals_are_sums_over_steps_also_after_a_restart(
    steps: list[dict[str, float]],
) -> None:
    builder = MetricsBuilder("train")
    totals: dict[str, float] = {}
    for step in steps:
        for name, value in step.items():
            builder.add_metric(name, value)
            total = name.replace("/", "/cum/", 1).replace("step_", "")
            totals[total] = totals.get(total, 0.0) + value
        flushed = await builder.flush()
        restarted = MetricsBuilder("train")
        restarted.load_state_dict(builder.state_dict())
        builder = restarted
        cost = sum(value for name, value in totals.items() if name.startswith("costs/"))
        for name in step:
            total = name.replace("/", "/cum/", 1).replace("step_", "")
            assert flushed[total] == pytest.approx(totals[total])
        if any(name.startswith("costs/") for name in step):
            assert flushed["costs/cum/all"] == pytest.approx(cost)


async def test_rates_are_tokens_by_seconds_of_all_steps() -> None:
    builder = MetricsBuilder("train")
    for tokens, seconds in [(100, 1.0), (300, 3.0)]:
        builder.add_data(step_actor_tokens=tokens, scenario_ids=["a", str(tokens)])
        builder.add_user_timing(step_actor_s=seconds)
        builder.add_idle_times(step_trainer_idle_s=0.5)
        flushed = await builder.flush()
    assert flushed["throughput/avg_actor_tok_per_s"] == 100
    assert flushed["throughput/cum/trainer_idle_s"] == 1.0
    assert flushed["data/cum/num_unique_scenarios"] == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("loss", "needs a section"),
        ("costs/cum/all", "a running total"),
        ("costs/a", "one contains the other"),
        ("costs/a/b/c", "one contains the other"),
    ],
)
def test_a_name_that_cannot_be_summed_up_is_refused(key: str, message: str) -> None:
    builder = MetricsBuilder("train")
    builder.add_metric("costs/a/b", 1.0)
    with pytest.raises(ConfigurationError, match=message):
        builder.add_metric(key, 1.0)


OPENAI = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
}
ANTHROPIC = {
    "input_tokens": 600,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 200,
    "output_tokens": 100,
}


@pytest.mark.parametrize(
    ("provider", "usage", "usd"),
    [
        ("openai", OPENAI, (600 * 2 + 400 * 1 + 100 * 8) / 1e6),
        ("anthropic", ANTHROPIC, (600 * 2 + 400 * 0.5 + 200 * 3 + 100 * 8) / 1e6),
        ("openrouter", {**OPENAI, "cost": 0.25}, 0.25),
        ("free", OPENAI, 0.0),
    ],
    ids=["openai", "anthropic", "reported", "extractor"],
)
async def test_a_response_costs_what_its_usage_says(
    provider: str, usage: dict[str, Any], usd: float
) -> None:
    builder = MetricsBuilder("eval")
    builder.register_cost_extractor("free", lambda _: 0.0)
    builder.register_model_pricing(
        "m",
        prompt_per_million=2,
        completion_per_million=8,
        cached_prompt_per_million=1,
        cache_creation_per_million=3,
        cache_read_per_million=0.5,
    )
    response: Any = {"usage": usage}
    if provider == "openai":  # as its client gives it
        response = ChatCompletion.model_validate(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [],
                "usage": usage,
            }
        )
    cost = builder.add_response_cost("user", response, provider=provider, model_name="m")
    assert cost == pytest.approx(usd)
    assert (await builder.flush())["costs/eval/user"] == pytest.approx(usd)


def test_a_model_without_a_price_is_an_error_and_an_explicit_price_is_enough() -> None:
    builder = MetricsBuilder("eval")
    options: Any = {"provider": "openai", "model_name": "m"}
    with pytest.raises(ConfigurationError, match=r"register_model_pricing\('m'"):
        builder.add_response_cost("user", {"usage": OPENAI}, **options)
    cost = builder.add_response_cost(
        "user",
        {"usage": OPENAI},
        **options,
        prompt_price_per_million=1,
        completion_price_per_million=1,
    )
    assert cost == pytest.approx(1100 / 1e6)
    assert (
        builder.add_response_cost(
            "user", {}, **options, prompt_price_per_million=1, completion_price_per_million=1
        )
        is None
    )


def test_without_an_active_builder_nothing_is_charged() -> None:
    record_response_cost("judge", {"usage": OPENAI}, "openai/m")
    with pytest.raises(LookupError):
        MetricsBuilder.get_active()


async def test_a_model_logs_its_builder_and_goes_on_from_its_totals(tmp_path: Path) -> None:
    for step in (1, 2):
        model: art.Model[None] = art.Model(name="m", project="p", base_path=tmp_path)
        model.metrics_builder("train").add_cost("train/judge", 1.0)
        model.metrics_builder("eval").add_cost("eval/judge", 10.0)
        trajectories = [
            art.Trajectory(reward=1.0, metrics={"costs/train/user": 2.0, "turns": 3.0})
            for _ in range(2)
        ]
        await model.log(trajectories, split="train", step=step, metrics={"costs/gpu": 0.5})
        await model.log(metrics={"reward": 0.5}, split="val", step=step)
    train, _, _, val = read_history(model.get_output_dir())
    assert (train["train/reward"], train["train/turns"]) == (1.0, 3.0)
    assert train["costs/train/user"] == 4.0
    assert train["costs/all"] == train["costs/cum/all"] == 5.5
    assert "costs/eval/judge" not in train
    assert (val["costs/eval/judge"], val["costs/cum/eval/judge"]) == (10.0, 20.0)
    assert val["costs/cum/all"] == 2 * 5.5 + 2 * 10.0


async def test_a_model_without_costs_keeps_no_state_of_them(tmp_path: Path) -> None:
    model: art.Model[None] = art.Model(name="m", project="p", base_path=tmp_path)
    await model.log(metrics={"reward": 0.5}, split="val")
    assert model.read_state() is None


async def test_an_activated_context_is_charged(tmp_path: Path) -> None:
    model: art.Model[None] = art.Model(name="m", project="p", base_path=tmp_path)
    model.metrics_builder().register_model_pricing(
        "openai/m", prompt_per_million=1, completion_per_million=1
    )
    token = model.activate_metrics_context("eval")
    record_response_cost("judge", {"usage": OPENAI}, "openai/m")
    token.var.reset(token)
    record_response_cost("judge", {"usage": OPENAI}, "openai/m")
    await model.log(metrics={"reward": 1.0}, split="val")
    (row,) = read_history(model.get_output_dir())
    assert row["costs/eval/judge"] == pytest.approx(1100 / 1e6)
