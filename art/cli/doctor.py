"""Diagnosis of this machine: what it has for art, what it lacks. No engine or SDK is imported."""

import platform
import sys
import textwrap
from collections.abc import Iterator
from typing import Literal, NamedTuple

from art.cli.doctor_extras import Extra, installed_extras
from art.cli.doctor_gpu import find_gpus
from art.cli.doctor_server import ask_server
from art.megatron.model_support.minimum_versions import installed_version

_WIDTH = 100
_OLDEST_PYTHON = (3, 11)

Status = Literal["ok", "absent", "broken"]


class Diagnosis(NamedTuple):
    """One line of the report.

    Attributes:
        subject: The thing that was examined, such as ``"[tinker]"``.
        status: ``"absent"``: not there, and art works without it; ``"broken"``: to be repaired.
        detail: The finding.
        remedy: The command that repairs it, or ``""``.
    """

    subject: str
    status: Status
    detail: str
    remedy: str = ""


def show_diagnosis() -> int:
    """Print the report.

    Returns:
        1 if something is broken, else 0.
    """
    broken = False
    for diagnosis in diagnose():
        broken = broken or diagnosis.status == "broken"
        _show(diagnosis)
    return 1 if broken else 0


def diagnose() -> Iterator[Diagnosis]:
    """Examine everything, in the order in which it matters to a new user.

    Returns:
        The lines of the report, each as soon as it is known; the server is asked last.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    yield Diagnosis(
        "python",
        "ok" if sys.version_info >= _OLDEST_PYTHON else "broken",
        f"{version} on {platform.system()} {platform.machine()}, {sys.executable}",
    )
    art_version = installed_version("art-rl")
    if art_version is None:
        yield Diagnosis(
            "art",
            "broken",
            "the distribution art-rl is not installed: its extras and versions cannot be known",
            'pip install "art-rl"',
        )
    else:
        yield Diagnosis("art", "ok", art_version)
        yield from map(_of_extra, installed_extras())
    gpus = find_gpus()
    if gpus.names:
        yield from (Diagnosis("gpu", "ok", name) for name in gpus.names)
    else:
        yield Diagnosis("gpu", "broken" if gpus.problem else "absent", gpus.problem or gpus.note)
    server = ask_server()
    yield Diagnosis("tinker server", server.status, server.detail, server.remedy)


def _of_extra(extra: Extra) -> Diagnosis:
    subject = f"[{extra.name}]"
    if not extra.requirements:
        return Diagnosis(subject, "absent", f"brings nothing on {platform.system()}")
    command = f'pip install "art-rl[{extra.name}]"'
    if extra.too_old:
        wrong = ", ".join(
            f"{requirement.distribution} {requirement.installed}, but art needs "
            f"{requirement.versions}"
            for requirement in extra.too_old
        )
        return Diagnosis(subject, "broken", wrong, command)
    if extra.missing:
        names = ", ".join(requirement.distribution for requirement in extra.missing)
        return Diagnosis(subject, "absent", f"not installed: {names}", command)
    shown = ", ".join(f"{r.distribution} {r.installed}" for r in extra.requirements)
    return Diagnosis(subject, "ok", shown)


def _show(diagnosis: Diagnosis) -> None:
    head = f"{diagnosis.status:<6}  {diagnosis.subject:<13}  "
    print(
        textwrap.fill(
            diagnosis.detail,
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ),
        flush=True,
    )
    if diagnosis.remedy:
        print(" " * len(head) + diagnosis.remedy, flush=True)
