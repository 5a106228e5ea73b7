"""The records of checkpoints and training runs, and the file that a checkpoint keeps them in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from art.errors import CheckpointError, NotFoundError
from art.executors.types import LoraConfig
from art.formats.checkpoint_paths import CheckpointPath

METADATA_FILE = "metadata.json"

DEFAULT_PROJECT = "default"
"""The project of a training run whose session names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The record that all checkpoints of one model share."""

    run_id: str
    base_model: str
    lora: LoraConfig
    user_metadata: Mapping[str, object] | None = None
    project_id: str = DEFAULT_PROJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint on disk.

    Attributes:
        path: Its name.
        run: The training run that it is from.
        version: Differs between checkpoints that had the same name one after the other.
        created: When it was written, UTC.
        size_bytes: The size of its files, without the metadata.
        has_optimizer: Whether training can go on exactly from it.
        user_metadata: Labels that the client attached to it.
        expires: When it may be deleted, UTC; ``None`` is never.
    """

    path: CheckpointPath
    run: TrainingRun
    version: str
    created: datetime
    size_bytes: int
    has_optimizer: bool
    user_metadata: Mapping[str, object] | None = None
    expires: datetime | None = None


class _Lora(BaseModel):
    rank: int
    alpha: float
    seed: int | None = None
    train_attn: bool = True
    train_mlp: bool = True
    train_unembed: bool = False


class _File(BaseModel):
    """The content of a metadata file."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1]
    path: str
    version: str = Field(pattern="^[A-Za-z0-9]{1,64}$")
    created: AwareDatetime
    size_bytes: int
    has_optimizer: bool
    user_metadata: dict[str, object] | None
    expires: AwareDatetime | None
    base_model: str
    lora: _Lora
    run_user_metadata: dict[str, object] | None
    project_id: str = DEFAULT_PROJECT


def to_json(checkpoint: Checkpoint) -> str:
    """Write a checkpoint's record as the text of its metadata file."""
    content = _File(
        format=1,
        path=str(checkpoint.path),
        version=checkpoint.version,
        created=checkpoint.created,
        size_bytes=checkpoint.size_bytes,
        has_optimizer=checkpoint.has_optimizer,
        user_metadata=_dict(checkpoint.user_metadata),
        expires=checkpoint.expires,
        base_model=checkpoint.run.base_model,
        lora=_Lora(**asdict(checkpoint.run.lora)),
        run_user_metadata=_dict(checkpoint.run.user_metadata),
        project_id=checkpoint.run.project_id,
    )
    return content.model_dump_json(indent=2)


def read_metadata(folder: Path, path: CheckpointPath) -> Checkpoint:
    """Read the record of the checkpoint in a folder.

    Args:
        folder: The checkpoint's folder.
        path: Its name.

    Raises:
        NotFoundError: There is no such folder, or no metadata in it.
        CheckpointError: The metadata cannot be read.
    """
    try:
        content = _File.model_validate_json((folder / METADATA_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no checkpoint {path}") from error
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"the metadata of {path} cannot be read: {error}") from error
    run = TrainingRun(
        run_id=path.run_id,
        base_model=content.base_model,
        lora=LoraConfig(**content.lora.model_dump()),
        user_metadata=content.run_user_metadata,
        project_id=content.project_id,
    )
    return Checkpoint(
        path=path,
        run=run,
        version=content.version,
        created=content.created,
        size_bytes=content.size_bytes,
        has_optimizer=content.has_optimizer,
        user_metadata=content.user_metadata,
        expires=content.expires,
    )


def _dict(metadata: Mapping[str, object] | None) -> dict[str, object] | None:
    return None if metadata is None else dict(metadata)
