"""Metrics of a step's trajectories, and the names under which they are logged."""

from collections.abc import Iterable, Mapping, Sequence

from art._internal.numbers import plain_number
from art.trajectories import TrajectoryGroup

# A name whose first part is one of these stands as it is; others get the split in front.
_SECTIONS = frozenset(
    ["costs", "data", "loss", "offpolicy", "pipeline", "reward", "throughput", "time"]
)
_SPLITS = frozenset(["train", "val", "test"])


def split_metrics(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    """Name metrics as ``history.jsonl`` does.

    Args:
        metrics: Numbers by name, such as ``reward`` or ``data/step_num_sequences``.
        split: Such as ``"train"``.

    Returns:
        The same numbers: ``train/reward``, but ``data/step_num_sequences`` as it was. Under a
        split other than train, val and test every name gets the split in front.
    """
    kept = _SECTIONS | _SPLITS if split in _SPLITS else frozenset[str]()
    return {
        name if "/" in name and name.partition("/")[0] in kept else f"{split}/{name}": float(
            plain_number(value)
        )
        for name, value in metrics.items()
    }


def step_metrics(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """Sum up one step's groups.

    Args:
        groups: The step's groups.

    Returns:
        Means over all trajectories of ``reward`` and of each of their metrics, but sums of those
        called ``costs/…``; ``exception_rate``,
        the part of the rollouts that raised; ``group_<name>``, the mean of each group metric over
        the groups that have trajectories; ``reward_std_dev``, the mean over the groups of two or
        more of their rewards' standard deviation (of a population), 0 without any.
    """
    trajectories = [trajectory for group in groups for trajectory in group]
    means = _means(trajectory.metrics for trajectory in trajectories)
    for name in [name for name in means if name.startswith("costs/")]:
        means[name] = sum(float(each.metrics.get(name, 0.0)) for each in trajectories)
    means |= _means({"reward": trajectory.reward} for trajectory in trajectories)
    exceptions = sum(len(group.exceptions) for group in groups)
    if rollouts := len(trajectories) + exceptions:
        means["exception_rate"] = exceptions / rollouts
    grouped = _means(group.metrics for group in groups if group.trajectories)
    means |= {f"group_{name}": value for name, value in grouped.items()}
    deviations = [
        _standard_deviation([_real(trajectory.reward) for trajectory in group])
        for group in groups
        if len(group) > 1
    ]
    means["reward_std_dev"] = sum(deviations) / len(deviations) if deviations else 0.0
    return means


def _real(value: object) -> float:
    return float(plain_number(value))


def _means(samples: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.items():
            values.setdefault(name, []).append(_real(value))
    return {name: sum(each) / len(each) for name, each in values.items()}


def _standard_deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    # A product, not a power: infinite rewards must give NaN here, not an OverflowError.
    return float((sum((value - mean) * (value - mean) for value in values) / len(values)) ** 0.5)
