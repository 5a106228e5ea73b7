"""AdamW's numbers: the SDK's defaults, and the ranges."""

import math
from dataclasses import asdict

import pytest
import tinker

from art.errors import InvalidRequestError
from art.formats.adam import AdamParams


def test_names_and_defaults_are_those_of_the_sdk() -> None:
    assert asdict(AdamParams()) == tinker.AdamParams().model_dump()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("eps", 10**400),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", math.inf),
        ("weight_decay", "0.1"),
        ("grad_clip_norm", True),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        AdamParams(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
