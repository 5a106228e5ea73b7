"""What importing art costs, as a ratio to starting Python: ``python -m benchmarks.import_cost``.

Every figure is the median wall time of fresh processes, taken in turn (A B C A B C …), so that a
machine whose speed drifts changes all of them alike. Only ratios within one run mean anything.
Byte code is cached, as it is where a package was installed; a first round that is not counted
writes it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import lazy_loader

from benchmarks.import_environments import ENVIRONMENTS, make_environments
from benchmarks.import_variants import TECHNIQUES, write_variant

ROOT = Path(__file__).parents[1]
REGISTRY = (
    "from art.megatron.model_support import default_target_modules_for_model as f; "
    "f('Qwen/Qwen3-4B-Instruct-2507')"
)
ART = {
    "import art": "import art",
    "registry: import and ask": REGISTRY,
    "from art.tinker import TinkerBackend": "from art.tinker import TinkerBackend",
    "art.Trajectory": "import art; art.Trajectory",
    "art.TrainableModel": "import art; art.TrainableModel",
}


class Program(NamedTuple):
    """One line of code that fresh processes run."""

    label: str
    code: str
    python: Path
    path: Path | None = None


def seconds(program: Program, byte_code: Path) -> float:
    """Wall time of one fresh process that runs a program."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "ART_EAGER_IMPORT", "EAGER_IMPORT")
    }
    environment["PYTHONPYCACHEPREFIX"] = str(byte_code)
    if program.path is not None:
        environment["PYTHONPATH"] = str(program.path)
    started = time.perf_counter()
    # The working directory is on sys.path; it must hold no package that is measured.
    subprocess.run(
        [program.python, "-c", program.code],
        check=True,
        env=environment,
        cwd=byte_code,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def measure(programs: list[Program], runs: int, slow_runs: int) -> dict[Program, list[float]]:
    """Seconds of each program, round by round, after one round to warm the disk.

    Programs that take 25 times as long as bare Python run in `slow_runs` of the rounds: their
    ratio is far from every bound, and they would take nearly all of the time.
    """
    times: dict[Program, list[float]] = {program: [] for program in programs}
    slow: set[Program] = set()
    with tempfile.TemporaryDirectory() as byte_code:
        for number in range(runs + 1):
            for program in programs:
                if program in slow and len(times[program]) * runs >= number * slow_runs:
                    continue
                elapsed = seconds(program, Path(byte_code))
                if number:
                    times[program].append(elapsed)
                if number == 1 and elapsed > 25 * times[programs[0]][0]:
                    slow.add(program)
            print(f"round {number} of {runs}", end="\r", file=sys.stderr)
    return times


def programs_of_art(python: Path, folder: Path) -> list[Program]:
    """Bare Python, and the ways into art: into a copy, so that nobody changes it meanwhile."""
    path = write_variant(ROOT / "art", folder / "as-it-is")
    return [
        Program("bare Python", "pass", python),
        *(Program(label, code, python, path) for label, code in ART.items()),
    ]


def programs_of_techniques(python: Path, folder: Path, known: set[str]) -> list[Program]:
    """The same package, made lazy in other ways."""
    programs = []
    for technique in TECHNIQUES:
        if technique in known:
            path = write_variant(ROOT / "art", folder / technique.replace(" ", "-"), technique)
            programs.append(Program(f"{technique}: import art", "import art", python, path))
            programs.append(Program(f"{technique}: registry", REGISTRY, python, path))
    return programs


def programs_of_others(folder: Path) -> list[Program]:
    """Other packages, each with the bare Python of its own environment."""
    programs = []
    for name, (python, missing) in make_environments(folder).items():
        programs.append(Program(f"bare Python ({name})", "pass", python))
        for package, code in ENVIRONMENTS[name].items():
            if code and package not in missing:
                programs.append(Program(f"{package}: {code}", code, python))
    return programs


def table(times: dict[Program, list[float]]) -> list[dict[str, float | str]]:
    """Rows of the table; each program's ratio is to bare Python in its own environment."""
    medians = {program: statistics.median(values) for program, values in times.items()}
    base = {program.python: value for program, value in medians.items() if program.code == "pass"}
    return [
        {
            "program": program.label,
            "runs": len(times[program]),
            "median_ms": value * 1e3,
            "over_bare_ms": (value - base[program.python]) * 1e3,
            "added": value / base[program.python] - 1,
        }
        for program, value in medians.items()
    ]


def plot(rows: list[dict[str, float | str]], path: Path) -> None:
    """Draw each program's cost beyond bare Python, in units of bare Python's start."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if not str(row["program"]).startswith("bare Python")]
    names = [str(row["program"]).replace("; ", ";\n", 1)[:60] for row in rows]
    added = [float(row["added"]) for row in rows]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(names) + 1.2), layout="constrained")
    ours = set(ART)
    colours = ["C0" if row["program"] in ours else "0.65" for row in rows]
    bars = axes.barh(names, [max(value, 0.01) for value in added], color=colours)
    axes.bar_label(bars, [f"{value:.2f}" for value in added], padding=3)
    axes.axvline(0.2, color="C3", linewidth=1, linestyle="--")
    axes.set(
        xscale="log",
        xlim=(0.005, 4 * max(added)),
        xlabel="added to starting Python (1 = bare Python's own start)",
    )
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python -m benchmarks.import_cost --runs 31 --plot import_cost.png",
    )
    parser.add_argument("--runs", type=int, default=31, help="fresh processes for each program")
    parser.add_argument(
        "--slow-runs",
        type=int,
        help="runs of what takes 25 times as long as Python (default: all)",
    )
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter to measure"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FOLDER",
        help="measure other packages too, in environments made below this folder",
    )
    parser.add_argument("--plot", type=Path, help="write a picture to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def main() -> None:
    """Measure, print a table, and write the picture and the figures if asked to."""
    options = _options()
    known = set(TECHNIQUES) - {"lazy-imports", "etils"}
    with tempfile.TemporaryDirectory() as folder:
        programs = programs_of_art(options.python.absolute(), Path(folder))
        programs += programs_of_techniques(options.python.absolute(), Path(folder), known)
        if options.compare is not None:
            others = programs_of_others(options.compare.absolute())
            # These two need their distributions, which the environment of the others has. What
            # art's own modules need, the copy brings along.
            loader = Path(lazy_loader.__file__).parent
            for technique in ("lazy-imports", "etils"):
                others += programs_of_techniques(others[0].python, Path(folder), {technique})
                copy = others[-1].path
                assert copy is not None
                (copy / "lazy_loader").symlink_to(loader)
            programs += others
        rows = table(measure(programs, options.runs, options.slow_runs or options.runs))
    print(f"{'program':62} {'runs':>4} {'median':>10} {'over bare':>11} {'added':>7}")
    for row in rows:
        print(
            f"{row['program']:62} {row['runs']:4} {row['median_ms']:7.1f} ms"
            f" {row['over_bare_ms']:8.1f} ms {row['added']:7.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
