"""Annotations can be evaluated at run time, as documentation tools and validators do."""

import inspect
import typing
from collections.abc import Iterator

import pytest

import art

CLASSES: list[type] = [
    art.Backend,
    art.History,
    art.LocalBackend,
    art.Model,
    art.TinkerBackend,
    art.TrainableModel,
    art.TrainConfig,
    art.Trajectory,
    art.TrajectoryGroup,
]
FUNCTIONS = [art.gather_trajectories, art.gather_trajectory_groups, art.retry]


def public_methods(owner: type) -> Iterator[tuple[str, object]]:
    for name, method in inspect.getmembers(owner, inspect.isfunction):
        is_public = name.startswith("__") or not name.startswith("_")
        if is_public and method.__module__.startswith("art."):
            yield f"{owner.__name__}.{name}", method


CASES = dict(
    [
        *(case for owner in CLASSES for case in public_methods(owner)),
        *((function.__name__, function) for function in FUNCTIONS),
    ]
)


@pytest.mark.parametrize("name", CASES)
def test_every_annotation_of_a_public_function_can_be_evaluated(name: str) -> None:
    typing.get_type_hints(CASES[name])


def test_the_annotations_are_the_types_themselves() -> None:
    hints = typing.get_type_hints(art.TinkerBackend.train)
    assert hints["config"] == art.TrainConfig | None
    assert hints["return"] is art.LocalTrainResult
