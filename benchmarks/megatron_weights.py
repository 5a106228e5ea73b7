"""Benchmark of weight conversion for megatron: ``python -m benchmarks.megatron_weights``.

A checkpoint of random weights in bfloat16 is loaded into a megatron model and saved again, on the
CPU of this machine. The baseline is safetensors alone: the same files are read into allocated
tensors, the same tensors written and flushed to disk. Compared with it are also transformers'
``save_pretrained`` and ``from_pretrained``; the latter also builds its model, and may leave weights
mapped, which are then read once.

Every figure is the median of fresh processes, taken in turn (A B C A B C …). A first round that is
not counted brings the files into the system's cache, so reading is measured without the disk. Only
ratios within one run are meaningful. Memory is the peak allocation of a process without the model's
weights, as a fraction of the checkpoint's size; pages of mapped files are not counted. Linux only.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.weights_models import FAMILIES, make_checkpoint


class Program(NamedTuple):
    """A program of ``weights_programs.py``, and the one that it is compared with."""

    name: str
    label: str
    baseline: str


PROGRAMS = (
    Program("read", "safetensors: read", "read"),
    Program("transformers_load", "transformers: from_pretrained", "read"),
    Program("art_load", "art: load_weights", "read"),
    Program("write", "safetensors: write", "write"),
    Program("transformers_save", "transformers: save_pretrained", "write"),
    Program("art_save", "art: save_checkpoint", "write"),
)
_TIMEOUT = 600  # seconds
Runs = dict[str, list[dict[str, float]]]


def run(program: Program, family: str, checkpoint: Path) -> dict[str, float]:
    """Run a program in a fresh process; return what it measured."""
    output = checkpoint.with_name("output")
    module = ["-m", "benchmarks.weights_programs"]
    arguments = [program.name, family, str(checkpoint), str(output)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", *module, *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    shutil.rmtree(output, ignore_errors=True)
    if result.returncode:
        raise RuntimeError(f"{program.name} failed:\n{result.stderr}")
    measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return measured


def measure(family: str, checkpoint: Path, rounds: int) -> Runs:
    """Measure each program round by round, after one round to warm the cache."""
    runs: Runs = {program.name: [] for program in PROGRAMS}
    for number in range(rounds + 1):
        for program in PROGRAMS:
            print(f"round {number} of {rounds}: {program.label:40}", end="\r", file=sys.stderr)
            measured = run(program, family, checkpoint)
            if number:
                runs[program.name].append(measured)
    print(" " * 60, end="\r", file=sys.stderr)
    return runs


def table(runs: Runs, size: int) -> list[dict[str, float | str]]:
    """Compute the rows of the table; each ratio is to the same operation of safetensors."""
    seconds = {name: statistics.median(run["seconds"] for run in runs[name]) for name in runs}
    return [
        {
            "program": program.label,
            "runs": len(runs[program.name]),
            "median_s": seconds[program.name],
            "ratio": seconds[program.name] / seconds[program.baseline],
            "beyond_model": statistics.median(run["beyond_model"] for run in runs[program.name])
            / size,
        }
        for program in PROGRAMS
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python -m benchmarks.megatron_weights --family qwen3_5_moe --stacked",
    )
    parser.add_argument("--family", choices=FAMILIES, default="qwen3_moe")
    parser.add_argument(
        "--mebibytes",
        type=int,
        default=1024,
        help="approximate size of the checkpoint, in whole layers",
    )
    parser.add_argument(
        "--stacked", action="store_true", help="a layer's experts as two tensors, not one by one"
    )
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each program")
    parser.add_argument(
        "--folder", type=Path, help="the folder for checkpoints (default: temporary)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.stacked and "moe" not in options.family:
        parser.error(f"{options.family} has no experts to stack")
    return options


def main() -> None:
    """Make a checkpoint, measure, and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoint = Path(folder) / "checkpoint"
        size = make_checkpoint(
            options.family, options.mebibytes * 2**20, checkpoint, stacked=options.stacked
        )
        rows = table(measure(options.family, checkpoint, options.runs), size)
    layout = ", experts stacked" if options.stacked else ""
    print(f"{options.family}{layout}: {size / 2**20:.0f} MiB, bfloat16")
    print(f"{'program':30} {'runs':>4} {'median':>9} {'ratio':>6} {'memory':>7}")
    for row in rows:
        print(
            f"{row['program']:30} {row['runs']:4} {row['median_s']:7.2f} s {row['ratio']:6.2f}"
            f" {row['beyond_model']:7.2f}"
        )
    if options.json:
        figures = {"family": options.family, "stacked": options.stacked, "bytes": size}
        options.json.write_text(json.dumps(figures | {"programs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
