"""Scenarios for an agent with MCP tools, and collections of them."""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, overload

from art.errors import ConfigurationError

_DIFFICULTIES = range(1, 6)


@dataclass
class GeneratedScenario:
    """A task for an agent.

    Attributes:
        task: The task, as a user would say it.
        difficulty: From 1, a single call of a tool, to 5.

    Raises:
        art.errors.ConfigurationError: The difficulty is none of 1 to 5.
    """

    task: str
    difficulty: int

    def __post_init__(self) -> None:
        if type(self.difficulty) is not int or self.difficulty not in _DIFFICULTIES:
            raise ConfigurationError(
                f"a difficulty is an integer from 1 to 5, not {self.difficulty!r}"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a scenario from what :meth:`to_dict` gives."""
        return cls(data["task"], data["difficulty"])

    def to_dict(self) -> dict[str, Any]:
        """Render the scenario as JSON values."""
        return asdict(self)

    def preview(self, max_length: int = 120) -> str:
        """Shorten the task to so many characters, and an ellipsis where that cuts it."""
        short = self.task[:max_length]
        return short if short == self.task else f"{short.strip()}…"


class GeneratedScenarioCollection:
    """Scenarios in an order.

    Args:
        scenarios: The scenarios.
    """

    def __init__(self, scenarios: Iterable[GeneratedScenario]) -> None:
        self.scenarios = list(scenarios)

    @classmethod
    def from_dicts(cls, data: Iterable[Mapping[str, Any]]) -> Self:
        """Make a collection from what :meth:`to_dicts` gives."""
        return cls(GeneratedScenario.from_dict(each) for each in data)

    @classmethod
    def from_json(cls, json_str: str) -> Self:
        """Make a collection from what :meth:`to_json` gives, or from a list alone.

        Raises:
            art.errors.ConfigurationError: The text is something else.
        """
        data = json.loads(json_str)
        scenarios = data.get("scenarios") if isinstance(data, dict) else data
        if not isinstance(scenarios, list):
            raise ConfigurationError('scenarios are {"scenarios": [...]}, or a list')
        return cls.from_dicts(scenarios)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Render the scenarios as JSON values."""
        return [scenario.to_dict() for scenario in self.scenarios]

    def to_json(self, indent: int | None = None) -> str:
        """Render the collection as JSON text."""
        return json.dumps({"scenarios": self.to_dicts()}, indent=indent)

    def __len__(self) -> int:
        return len(self.scenarios)

    def __iter__(self) -> Iterator[GeneratedScenario]:
        return iter(self.scenarios)

    @overload
    def __getitem__(self, index: int) -> GeneratedScenario: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[GeneratedScenario]: ...

    def __getitem__(self, index: int | slice) -> GeneratedScenario | Sequence[GeneratedScenario]:
        return self.scenarios[index]

    def shuffle(self) -> Self:
        """Copy the collection in a random order; ``random.seed`` decides which."""
        return type(self)(random.sample(self.scenarios, len(self.scenarios)))

    def split(self, train_size: int) -> tuple[Self, Self]:
        """Split the collection after so many scenarios, into those to train on and the others.

        Raises:
            art.errors.ConfigurationError: There are not so many.
        """
        if not 0 <= train_size <= len(self):
            raise ConfigurationError(
                f"train_size is {train_size}, and there are {len(self)} scenarios"
            )
        return type(self)(self.scenarios[:train_size]), type(self)(self.scenarios[train_size:])

    def filter_by_difficulty(self, min_difficulty: int = 1, max_difficulty: int = 5) -> Self:
        """Copy the scenarios whose difficulty lies within the bounds, both included."""
        return type(self)(
            each for each in self if min_difficulty <= each.difficulty <= max_difficulty
        )

    def get_difficulty_distribution(self) -> Counter[int]:
        """Count the scenarios of each difficulty."""
        return Counter(scenario.difficulty for scenario in self)

    def preview(self, n: int = 5, max_task_length: int = 120) -> None:
        """Write the first scenarios to standard output."""
        for number, scenario in enumerate(self.scenarios[:n], start=1):
            task = scenario.preview(max_task_length)
            sys.stdout.write(f"{number}. {task} (difficulty {scenario.difficulty}/5)\n")

    def print_difficulty_distribution(self) -> None:
        """Write how many scenarios each difficulty has to standard output."""
        counts = self.get_difficulty_distribution()
        for difficulty in _DIFFICULTIES:
            sys.stdout.write(f"{difficulty}/5: {counts[difficulty]}\n")

    def get_summary(self) -> dict[str, Any]:
        """Sum the collection up: its size, difficulties, and characters of a task on average."""
        count = max(len(self), 1)
        return {
            "total_scenarios": len(self),
            "difficulty_distribution": dict(self.get_difficulty_distribution()),
            "avg_difficulty": sum(each.difficulty for each in self) / count,
            "avg_task_length": sum(len(each.task) for each in self) / count,
        }
