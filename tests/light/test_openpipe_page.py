"""docs/from-openpipe-art.md against art: each row is true."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, cast, is_typeddict

import pytest

import art
from art._internal.refused_names import REFUSED, REFUSED_OPTIONS
from art.errors import ConfigurationError, MissingExtraError
from tools.openpipe_page import BETTER, Row, main, rows

ROWS = {row.name: row for row in rows()}
SERVED = [row for row in ROWS.values() if row.verdict != "refused"]
REFUSALS = [
    row for row in ROWS.values() if row.verdict == "refused" and not row.name.startswith("`")
]


def model(**options: Any) -> art.Model[None]:
    return art.Model(name="m", project="p", **options)


def trainable_model(**options: Any) -> art.TrainableModel[None]:
    return art.TrainableModel(name="m", project="p", base_model="b", **options)


# Attributes of objects, not of classes, are what code touches.
OBJECTS: dict[str, Callable[..., object]] = {
    "art.Model": model,
    "art.TrainableModel": trainable_model,
    "art.local.LocalBackend": art.LocalBackend,
}


def resolve(name: str) -> Any:
    """Import what can be imported of a name, then touch the rest."""
    parts = name.split(".")
    value: Any = importlib.import_module("art")
    for depth in range(1, len(parts)):
        path = ".".join(parts[:depth])
        if path in OBJECTS:
            value = OBJECTS[path]()
        try:
            value = getattr(value, parts[depth])
        except AttributeError as error:
            if depth > 1 and not error.args[0].rpartition(": ")[2].startswith("module"):
                raise
            if REFUSED.get(".".join(parts[: depth + 1])):
                raise
            value = importlib.import_module(".".join(parts[: depth + 1]))
    return value


def test_the_page_is_fresh() -> None:
    assert main(["--check"]) == 0


def test_notes_and_refusals_are_of_names_that_art_has() -> None:
    import tomllib

    better = tomllib.loads(BETTER.read_text(encoding="utf-8"))
    assert [name for name in better if ROWS[name].verdict != "better"] == []
    assert [
        name
        for name in REFUSED
        if name not in ROWS
        and not any(each.startswith(f"{name}.") for each in ROWS)
        # Inherited by TrainableModel.
        and name.replace("Trainable", "") not in ROWS
    ] == []


@pytest.mark.parametrize("row", SERVED, ids=lambda row: row.name)
def test_a_name_that_is_served_resolves_and_takes_arts_parameters(row: Row) -> None:
    try:
        value = resolve(row.name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    if row.parameters is None or is_typeddict(value) or not callable(value):
        return
    if row.name == "art.local.LocalBackend.train":
        taken: set[str] = {
            *inspect.signature(value).parameters, *art.TrainConfig.model_fields,
            *REFUSED_OPTIONS["backend.train"],
        }  # fmt: skip
    else:
        call = row.name.replace(".local.", ".").replace(".tinker.", ".").replace(".types.", ".")
        call = "backend.train" if call.endswith("TrainConfig") else call
        taken = {*inspect.signature(value).parameters, *REFUSED_OPTIONS.get(call, {})}
    assert [each for each in row.parameters if each not in taken] == []


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.name)
def test_a_name_that_is_refused_says_the_way_where_python_asks_art(row: Row) -> None:
    with pytest.raises((AttributeError, ImportError)) as raised:
        resolve(row.name)
    parent = row.name.rpartition(".")[0]
    asks = parent in {"art", "art.dev", "art.tinker", "art.utils", "art.utils.sft", *OBJECTS}
    if asks or any(
        row.name.startswith(f"art.{each}.")
        for each in ("serverless", "tinker_native", "pipeline_trainer", "api_costs")
    ):
        assert row.note in str(raised.value)


CALLS: dict[str, Callable[..., object]] = {
    "art.Model": model,
    "art.TrainableModel": trainable_model,
    "art.LocalBackend": art.LocalBackend,
    "art.TinkerBackend": art.TinkerBackend,
    "backend.train": lambda **options: art.TrainConfig().with_options(cast(Any, options)),
}


@pytest.mark.parametrize(
    ("call", "option"),
    [(call, option) for call, options in REFUSED_OPTIONS.items() for option in options],
)
def test_an_option_is_refused_with_the_way_unless_it_is_neutral(call: str, option: str) -> None:
    neutral, way = REFUSED_OPTIONS[call][option]
    CALLS[call](**{option: neutral})
    with pytest.raises(ConfigurationError) as raised:
        CALLS[call](**{option: "another value"})
    assert way in str(raised.value)
    assert option in str(raised.value)


def test_an_option_that_art_never_had_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        art.LocalBackend(devise="cpu")
