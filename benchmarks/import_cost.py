"""What importing art costs, as a ratio to starting Python: ``python benchmarks/import_cost.py``.

Every figure is the median wall time of fresh processes, taken in turn (A B C A B C …), so that a
machine whose speed drifts changes all of them alike. Only ratios within one run mean anything.
"""

import argparse
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

BASELINE = "bare Python"
REGISTRY = (
    "from art.megatron.model_support import default_target_modules_for_model as f; "
    "f('Qwen/Qwen3-4B-Instruct-2507')"
)
PROGRAMS = {
    BASELINE: "pass",
    "import art": "import art",
    "registry: import and ask": REGISTRY,
    "import art.tinker.backend": "import art.tinker.backend",
    "art.TrainableModel": "import art; art.TrainableModel",
    "import pydantic": "import pydantic; pydantic.BaseModel",
    "import openai": "import openai",
    "import tinker": "import tinker",
    "import torch": "import torch",
}


def seconds(code: str) -> float:
    """Wall time of one fresh process that runs `code`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def measure(programs: dict[str, str], runs: int) -> dict[str, float]:
    """Median seconds of each program, over `runs` rounds, after one round to warm the disk."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(runs + 1):
        for name, code in programs.items():
            elapsed = seconds(code)
            if number:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def plot(medians: dict[str, float], path: Path) -> None:
    """Draw each program's cost beyond bare Python, in units of bare Python's start."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    base = medians[BASELINE]
    names = [name for name in medians if name != BASELINE]
    ratios = [medians[name] / base - 1 for name in names]
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(names) + 1), layout="constrained")
    bars = axes.barh(names, [max(ratio, 0.001) for ratio in ratios])
    axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3)
    axes.set(xscale="log", xlabel="added to starting Python (1 = bare Python's own start)")
    axes.invert_yaxis()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print a table, and draw a picture if asked to."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python benchmarks/import_cost.py --runs 31 --plot import_cost.png",
    )
    parser.add_argument("--runs", type=int, default=31, help="fresh processes for each program")
    parser.add_argument("--plot", type=Path, help="write a picture to this file")
    options = parser.parse_args()
    programs = {
        name: code
        for name, code in PROGRAMS.items()
        if not name.startswith("import ") or find_spec(name.split()[1].split(".")[0])
    }
    medians = measure(programs, options.runs)
    base = medians[BASELINE]
    print(f"{'program':28} {'median':>10} {'over bare':>11} {'ratio':>7}")
    for name, value in medians.items():
        print(
            f"{name:28} {value * 1e3:7.1f} ms {(value - base) * 1e3:8.1f} ms {value / base:6.2f}x"
        )
    if options.plot:
        plot(medians, options.plot)


if __name__ == "__main__":
    main()
