"""The table of losses: what it refuses, and what it completes."""

import math
from typing import get_args

import pytest

from art.errors import InvalidRequestError
from art.formats.losses import LOSSES, LossName, complete_config, find_loss


def test_the_names_that_type_checkers_know_are_those_of_the_table() -> None:
    assert set(LOSSES) == set(get_args(LossName))


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InvalidRequestError, match="Did you mean 'importance_sampling'"):
        find_loss("importance_samplin")


def test_settings_that_are_left_out_get_their_defaults() -> None:
    assert complete_config("ppo", {"clip_low_threshold": 0.5}) == {
        "clip_low_threshold": 0.5,
        "clip_high_threshold": 1.2,
    }


@pytest.mark.parametrize(
    ("name", "config", "problem"),
    [
        ("ppo", {"epsilon": 0.2}, "no configuration key 'epsilon'; it takes: clip_high_threshold"),
        ("importance_sampling", {"beta": 0.1}, "it takes: none"),
        ("ppo", {"clip_low_threshold": 1.5}, "is above clip_high_threshold"),
        ("dro", {"beta": math.nan}, "must be 0 or more"),
        ("dro", {"beta": -1.0}, "must be 0 or more"),
        ("cispo", {"clip_high_threshold": math.inf}, "must be 0 or more"),
    ],
)
def test_settings_that_a_loss_cannot_use_are_refused(
    name: str, config: dict[str, float], problem: str
) -> None:
    with pytest.raises(InvalidRequestError, match=problem):
        complete_config(name, config)
