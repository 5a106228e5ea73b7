"""Search of the sessions of this engine: those that are alive, and the last that ended."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from art.engine.checkpoint_metadata import Checkpoint
from art.engine.sessions import FinishReason, Session, Sessions

OWNER = "local"
"""The owner of every session: the server has one key."""

Status = tuple[str, FinishReason | None]
"""The wire's name of a status; with the reason where the client said it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery:
    """A search; what is ``None`` matches every session.

    Attributes:
        session_id: Exactly this one; with ``display_name``, either of the two matches.
        display_name: Every word of it is in the name, in any case.
        user_metadata: Each pair is the session's.
        before: Of the last session of the previous page, when it began and its id.
    """

    session_id: str | None = None
    project_ids: frozenset[str] | None = None
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    display_name: str | None = None
    owners: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    limit: int = 50
    before: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session, its status (``None``: it went silent) and its checkpoints on disk."""

    session: Session
    status: Status | None
    checkpoints_count: int
    checkpoint_bytes: int


def search(
    sessions: Sessions, checkpoints: Iterable[Checkpoint], query: SessionQuery
) -> tuple[list[FoundSession], bool]:
    """Find sessions, the newest first.

    Args:
        sessions: All of the engine's.
        checkpoints: All on disk.
        query: Which, and how many at most.

    Returns:
        The sessions, and whether there are more.
    """
    found = [(session, ("active", None)) for session in sessions.all()]
    ended = [(session, _status_of_ended(session)) for session in sessions.ended()]
    matching = sorted(
        (each for each in (*found, *ended) if _matches(*each, query)),
        key=lambda each: (each[0].created, each[0].session_id),
        reverse=True,
    )
    counts, sizes = _checkpoints_of_sessions(checkpoints)
    page = [
        FoundSession(session, status, counts[session.session_id], sizes[session.session_id])
        for session, status in matching[: query.limit]
    ]
    return page, len(matching) > query.limit


def _status_of_ended(session: Session) -> Status | None:
    return None if session.finish is None else ("client_finished", session.finish.reason)


def _matches(session: Session, status: Status | None, query: SessionQuery) -> bool:
    metadata = session.user_metadata or {}
    return (
        _matches_name(session, query)
        and (query.owners is None or OWNER in query.owners)
        and (query.project_ids is None or session.project_id in query.project_ids)
        and (query.statuses is None or status in query.statuses)
        and all(metadata.get(key) == value for key, value in query.user_metadata.items())
        and (query.before is None or (session.created, session.session_id) < query.before)
    )


def _matches_name(session: Session, query: SessionQuery) -> bool:
    if query.session_id is None and query.display_name is None:
        return True
    if query.session_id is not None and query.session_id == session.session_id:
        return True
    if query.display_name is None:
        return False
    name = (session.display_name or "").casefold()
    return all(word in name for word in query.display_name.casefold().split())


def _checkpoints_of_sessions(
    checkpoints: Iterable[Checkpoint],
) -> tuple[Counter[str], Counter[str]]:
    """Numbers and bytes of the checkpoints of each session."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for checkpoint in checkpoints:
        session_id = checkpoint.path.run_id.partition(":")[0]
        counts[session_id] += 1
        sizes[session_id] += checkpoint.size_bytes
    return counts, sizes
