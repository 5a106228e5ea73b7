"""The settings of a training step: defaults, ranges, and options that override them."""

import math
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from art.errors import ConfigurationError
from art.formats.adam import AdamParams
from art.formats.losses import LOSSES, LossName
from art.types import LocalTrainResult, TrainConfig, TrainOptions, TrainResult


def test_options_have_the_names_and_types_of_the_config() -> None:
    options = get_type_hints(TrainOptions)
    config = get_type_hints(TrainConfig)
    assert {name: config[name] for name in TrainConfig.model_fields} == options
    assert list(options) == list(TrainConfig.model_fields)


def test_the_optimizers_defaults_are_those_of_the_wire() -> None:
    wire = AdamParams()
    assert TrainConfig(learning_rate=wire.learning_rate).adam() == wire


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1e-5),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("loss_fn", "grpo"),
        ("loss_fn_config", {"clip_low_threshold": math.nan}),
        ("loss_fn_config", {"clip_low_threshold": "high"}),
        ("kl_penalty_coef", -0.1),
        ("beta1", 1.0),
        ("beta1", "high"),
        ("beta2", -0.1),
        ("eps", -1e-8),
        ("weight_decay", -1.0),
        ("grad_clip_norm", math.inf),
        ("grad_clip_norm", -1.0),
        ("learning_rat", 1e-5),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainConfig.model_validate({name: value})
    with pytest.raises(ConfigurationError, match=name):
        TrainConfig().with_options({name: value})  # type: ignore[misc]


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_every_loss_can_be_named_with_all_of_its_settings(loss_fn: LossName) -> None:
    settings = dict(LOSSES[loss_fn].defaults)
    assert TrainConfig(loss_fn=loss_fn, loss_fn_config=settings).loss_fn_config == settings


@pytest.mark.parametrize(
    ("loss_fn", "settings", "problem"),
    [
        ("ppo", {"epsilon": 0.2}, "no configuration key 'epsilon'; it takes: clip_high_threshold"),
        ("importance_sampling", {"beta": 0.1}, "it takes: none"),
        ("dro", {"beta": -1.0}, "must be 0 or more"),
    ],
)
def test_settings_that_a_loss_cannot_use_are_refused_before_anything_is_sent(
    loss_fn: LossName, settings: dict[str, float], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        TrainConfig(loss_fn=loss_fn, loss_fn_config=settings)
    with pytest.raises(ConfigurationError, match=problem):
        TrainConfig().with_options({"loss_fn": loss_fn, "loss_fn_config": settings})


def test_options_override_and_leave_the_config_as_it_was() -> None:
    config = TrainConfig(learning_rate=1e-4, beta1=0.8)
    assert config.with_options({"learning_rate": 1e-3}) == TrainConfig(
        learning_rate=1e-3, beta1=0.8
    )
    assert config.learning_rate == 1e-4
    with pytest.raises(ValidationError, match="frozen"):
        config.learning_rate = 1.0  # type: ignore[misc]


def test_a_local_result_is_a_result_with_a_checkpoint() -> None:
    assert TrainResult(3).metrics == {}
    result = LocalTrainResult(step=3, metrics={"loss": 0.5}, checkpoint_path="a/b")
    assert isinstance(result, TrainResult)
    assert (result.step, result.checkpoint_path) == (3, "a/b")
