"""Executors by name. A module is imported when one of its executors is chosen.

A new executor is a package below ``art.executors`` and one line in :data:`EXECUTORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from art.errors import ConfigurationError

if TYPE_CHECKING:
    from art.executors.protocol import Sampler, Trainer

# Told a stage of loading, and the fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """The options that every executor takes.

    Attributes:
        base_model: A folder, or a name on the Hugging Face hub; clients ask for it by this text.
        device: As torch names it; ``"auto"`` takes the best there is.
        dtype: Of the base model's weights: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
    """

    base_model: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorEntry:
    """One executor.

    Attributes:
        package: The package that has ``load(options, progress)``.
        trains: Whether ``load`` gives a :class:`~art.executors.protocol.Trainer`.
        samples: Whether it gives a :class:`~art.executors.protocol.Sampler`.
    """

    package: str
    trains: bool
    samples: bool


EXECUTORS = {
    "torch": ExecutorEntry(package="art.executors.torch", trains=True, samples=True),
}


class _ExecutorPackage(Protocol):
    def load(self, options: ExecutorOptions, progress: Progress) -> "Trainer | Sampler": ...


def load_executors(
    trainer: str, sampler: str, options: ExecutorOptions, progress: Progress
) -> "tuple[Trainer, Sampler]":
    """Load the executors of a server.

    Args:
        trainer: The name of the one that trains.
        sampler: The name of the one that samples. The same name is the same object.
        options: What to load.
        progress: Told each stage.

    Raises:
        ConfigurationError: A name is unknown, or its executor does not train or sample.
        MissingExtraError: The executor is not installed.
        UnknownBaseModelError: The base model cannot be found or loaded.
    """
    check_executors(trainer, sampler)
    trains = _load(trainer, options, progress)
    samples = trains if sampler == trainer else _load(sampler, options, progress)
    # Which of the two each is, `check_executors` has read in the table.
    return cast("Trainer", trains), cast("Sampler", samples)


def check_executors(trainer: str, sampler: str) -> None:
    """Refuse names that :func:`load_executors` would refuse, without importing anything.

    Raises:
        ConfigurationError: A name is unknown, or its executor does not train or sample.
    """
    _check(trainer, "trainer", {name for name, entry in EXECUTORS.items() if entry.trains})
    _check(sampler, "sampler", {name for name, entry in EXECUTORS.items() if entry.samples})


def _check(name: str, role: str, able: set[str]) -> None:
    if name in able:
        return
    known = ", ".join(sorted(able))
    if name in EXECUTORS:
        raise ConfigurationError(f"the executor {name!r} cannot be the {role}; known: {known}")
    near = get_close_matches(name, able, n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(f"unknown {role} {name!r}; known: {known}{hint}")


def _load(name: str, options: ExecutorOptions, progress: Progress) -> "Trainer | Sampler":
    progress(f"importing {name}", 0.0)
    package = cast(_ExecutorPackage, import_module(EXECUTORS[name].package))
    return package.load(options, progress)
