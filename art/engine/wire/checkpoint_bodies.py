"""JSON request bodies of checkpoints as they lie on disk.

Every field that the SDK sends is listed; :mod:`art.engine.wire.sampling_bodies` says why.
"""

from pydantic import Field

from art.engine.wire.json_body import NUMBERS, Body


class WeightsInfoBody(Body):
    """``weights_info``."""

    tinker_path: str


class TtlBody(Body):
    """``…/checkpoints/{kind}/{name}/ttl``."""

    ttl_seconds: int | None = None


class CopyWeightsBody(Body):
    """``copy_weights``: into a project, or as the training run of a session's number."""

    source_path: str
    session_id: str | None = None
    model_seq_id: int | None = Field(default=None, ge=0, lt=NUMBERS)
    destination_project_id: str | None = Field(default=None, min_length=1, max_length=256)
    ttl_seconds: int | None = None
    weights_access_token: str | None = None
