"""JSON request bodies of sessions, and of what a client asks before it has one.

Every field that the SDK sends is listed; :mod:`art.engine.wire.sampling_bodies` says why.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from art.engine.session_search import SessionQuery
from art.engine.sessions import Finish, FinishReason
from art.engine.wire.json_body import Body, JsonObject, ShortList


class ClientConfigBody(Body):
    """``client/config`` and ``client/dynamic_config``."""

    sdk_version: str


class CreateSessionBody(Body):
    """``create_session``."""

    tags: ShortList[str] = Field(default_factory=list)
    user_metadata: JsonObject | None = None
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None


class HeartbeatBody(Body):
    """``session_heartbeat``."""

    session_id: str


class FinishReasonBody(BaseModel):
    """The way in which a client says that it ended."""

    model_config = ConfigDict(frozen=True)

    type: FinishReason


class FinishSessionBody(Body):
    """``sessions/{id}/finish``."""

    reason: FinishReasonBody | None = None
    detail: str | None = None

    def finish(self) -> Finish | None:
        """The end as the client describes it; ``None`` if it says nothing."""
        return None if self.reason is None else Finish(self.reason.type, self.detail)


class ProjectBody(Body):
    """``sessions/{id}/project``."""

    project_id: str = Field(min_length=1, max_length=256)


class SearchOwnerBody(BaseModel):
    """The owners whose sessions to search."""

    model_config = ConfigDict(frozen=True)

    type: Literal["own", "accessible", "user"] = "own"
    owner_urns: ShortList[str] = Field(default_factory=list, max_length=10)


class StatusQueryBody(BaseModel):
    """A status that a session may have."""

    model_config = ConfigDict(frozen=True)

    type: Literal["active", "cancelled", "failed", "client_finished"]
    reasons: ShortList[FinishReason] | None = None


class SearchCursorBody(BaseModel):
    """The last session of the previous page."""

    model_config = ConfigDict(frozen=True)

    last_created_at: AwareDatetime
    last_session_id: str


class SearchSessionsBody(Body):
    """``sessions/search``."""

    session_id: str | None = None
    project_ids: ShortList[str] | None = None
    user_metadata: dict[str, str] = Field(default_factory=dict)
    display_name: str | None = Field(default=None, min_length=1)
    owner: SearchOwnerBody = SearchOwnerBody()
    statuses: ShortList[StatusQueryBody] | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: SearchCursorBody | None = None

    def query(self) -> SessionQuery:
        """The query as the engine knows it."""
        cursor = self.cursor
        return SessionQuery(
            session_id=self.session_id,
            project_ids=None if self.project_ids is None else frozenset(self.project_ids),
            user_metadata=self.user_metadata,
            display_name=self.display_name,
            owners=frozenset(self.owner.owner_urns) if self.owner.type == "user" else None,
            statuses=None if self.statuses is None else frozenset(self._statuses(self.statuses)),
            limit=self.limit,
            before=None if cursor is None else (cursor.last_created_at, cursor.last_session_id),
        )

    @staticmethod
    def _statuses(bodies: Sequence[StatusQueryBody]) -> Iterator[tuple[str, FinishReason | None]]:
        for body in bodies:
            if body.type != "client_finished":
                yield body.type, None
            else:
                for reason in body.reasons or get_args(FinishReason):
                    yield body.type, reason
