import math
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from art.errors import ConfigurationError
from art.types import LocalTrainResult, TrainConfig, TrainOptions, TrainResult


def test_train_options_mirror_the_config() -> None:
    options = get_type_hints(TrainOptions)
    config = get_type_hints(TrainConfig)
    assert {name: config[name] for name in TrainConfig.model_fields} == options
    assert list(options) == list(TrainConfig.model_fields)


def test_defaults() -> None:
    assert TrainConfig().model_dump() == {
        "learning_rate": 5e-6,
        "loss_fn": "importance_sampling",
        "loss_fn_config": None,
        "normalize_advantages": True,
        "kl_penalty_coef": 0.0,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "grad_clip_norm": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-5),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("loss_fn", "grpo"),
        ("loss_fn_config", {"clip_low_threshold": math.nan}),
        ("kl_penalty_coef", -0.1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
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


def test_options_override_and_leave_the_config_as_it_was() -> None:
    config = TrainConfig(learning_rate=1e-4, beta1=0.8)
    assert config.with_options({"learning_rate": 1e-3}) == TrainConfig(
        learning_rate=1e-3, beta1=0.8
    )
    assert config.learning_rate == 1e-4
    with pytest.raises(ValidationError, match="frozen"):
        config.learning_rate = 1.0  # type: ignore[misc]


def test_results() -> None:
    assert TrainResult(3).metrics == {}
    result = LocalTrainResult(step=3, metrics={"loss": 0.5}, checkpoint_path="a/b")
    assert isinstance(result, TrainResult)
    assert (result.step, result.checkpoint_path) == (3, "a/b")
