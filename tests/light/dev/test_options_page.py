"""docs/options.md against the code: the same options, with the defaults that run."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest

from art.dev.get_model_config import get_model_config
from art.dev.get_server_args import get_server_args
from art.dev.model import InternalModelConfig
from art.dev.openai_server import OpenAIServerConfig
from art.formats.losses import LOSSES
from art.types import TrainConfig, TrainSFTConfig

PAGE = Path(__file__).parents[3] / "docs" / "options.md"


def table(heading: str) -> dict[str, str]:
    """The first two columns of the table under a heading, without its head."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")]
    return {name.strip(" `"): value.strip() for name, value in rows[2:]}


def values(defaults: dict[str, str]) -> dict[str, Any]:
    """The defaults that are Python values; others are said in words."""
    return {
        name: ast.literal_eval(text.strip("`"))
        for name, text in defaults.items()
        if text.startswith("`")
    }


def options(config: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all options of a TypedDict and of those within it."""
    for name, kind in get_type_hints(config).items():
        inner = [each for each in (kind, *getattr(kind, "__args__", ())) if is_typeddict(each)]
        if inner:
            yield from options(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config


def test_the_options_of_a_step_are_the_fields_of_train_config() -> None:
    fields = {name: field.default for name, field in TrainConfig.model_fields.items()}
    page = table("A training step")
    assert list(page) == list(fields)
    assert values(page) == fields


def test_the_options_of_supervised_fine_tuning_are_the_fields_of_its_config() -> None:
    fields = {name: field.default for name, field in TrainSFTConfig.model_fields.items()}
    page = table("Supervised fine-tuning")
    assert list(page) == list(fields)
    assert values(page) == fields


def test_the_losses_have_the_settings_that_are_documented() -> None:
    page = table("Losses")
    assert list(page) == list(LOSSES)
    for name, settings in page.items():
        call = ast.parse(f"f({settings.replace('`', '')})", mode="eval").body
        assert isinstance(call, ast.Call)
        documented = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        assert documented == pytest.approx(dict(LOSSES[name].defaults))  # type: ignore[index]


def test_the_options_of_a_model_are_those_that_are_typed() -> None:
    page = table("A model")
    assert list(page) == list(options(InternalModelConfig))
    completed = get_model_config("Qwen/Qwen3-4B", "", None)
    for name, default in values(page).items():
        assert at(completed, name) == default, name


def test_the_options_of_an_endpoint_are_those_that_are_typed() -> None:
    page = table("The endpoint")
    assert list(page) == list(options(OpenAIServerConfig))
    completed = {"server_args": get_server_args(None)}
    assert {name: at(completed, name) for name in page} == values(page)
