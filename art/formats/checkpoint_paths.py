"""Checkpoints by name: ``tinker://<run>/<kind>/<name>``, and the folders that hold them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from art.errors import InvalidRequestError

Kind = Literal["weights", "sampler_weights", "external_weights"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RUN = re.compile(r"([A-Za-z0-9-]{1,64}):train:([0-9]{1,9})")
_RUN_FOLDER = re.compile(r"([A-Za-z0-9-]{1,64})\.train\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class CheckpointPath:
    """A checkpoint by the name that the wire gives it: ``tinker://<run>/<kind>/<name>``.

    Args:
        run_id: The training run: ``<session>:train:<number>``.
        kind: ``"weights"``, with the optimizer's state; ``"sampler_weights"``; or
            ``"external_weights"``, to download.
        name: The checkpoint's own name.

    Raises:
        InvalidRequestError: A part is not of the form that is allowed; none of the allowed ones
            can leave its folder.
    """

    run_id: str
    kind: Kind
    name: str

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run_id):
            raise InvalidRequestError(f"{self.run_id!r} is not the id of a training run")
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise InvalidRequestError(f"{self.kind!r} is no kind of checkpoint; known: {known}")
        if not NAME.fullmatch(self.name):
            raise InvalidRequestError(
                f"{self.name!r} cannot name a checkpoint: use letters, digits, '.', '_' and '-', "
                "start with a letter or digit, and stay under 128 characters"
            )

    @classmethod
    def parse(cls, text: str) -> "CheckpointPath":
        """Read ``tinker://<run>/<kind>/<name>``.

        Raises:
            InvalidRequestError: It is of another form.
        """
        parts = text.removeprefix("tinker://").split("/")
        if not text.startswith("tinker://") or len(parts) != 3:
            raise InvalidRequestError(
                f"{text!r} is not a checkpoint path: expected tinker://<run>/<kind>/<name>"
            )
        run_id, kind, name = parts
        return cls(run_id, kind, name)  # type: ignore[arg-type]  # checked on construction

    def __str__(self) -> str:
        return f"tinker://{self.run_id}/{self.kind}/{self.name}"

    def folder(self, root: Path) -> Path:
        """The checkpoint's folder under an engine's root. It need not exist."""
        return checkpoints_folder(root) / self.run_id.replace(":", ".") / self.kind / self.name


def checkpoints_folder(root: Path) -> Path:
    """The folder of all checkpoints under an engine's root."""
    return root / "checkpoints"


def run_id_of_folder(name: str) -> str | None:
    """The training run of a folder's name (``abc.train.0``); ``None`` for any other folder."""
    match = _RUN_FOLDER.fullmatch(name)
    return None if match is None else f"{match[1]}:train:{match[2]}"
