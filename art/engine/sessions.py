"""Sessions with their models and sampling sessions. All of it is the event loop's."""

import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from art.engine.checkpoint_metadata import DEFAULT_PROJECT, TrainingRun
from art.errors import NotFoundError, SessionEndedError
from art.formats.checkpoint_paths import CheckpointPath

FinishReason = Literal["success", "errored", "interrupted"]

# The sessions that ended, and can still be searched for.
_MAX_ENDED = 1000


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a session as its client describes it."""

    reason: FinishReason
    detail: str | None = None


@dataclass(slots=True, kw_only=True)
class LiveModel:
    """A model of a live session.

    Attributes:
        run: The record that its checkpoints share; ``None`` until the adapter is known, which for
            a model that begins with a checkpoint is when that was read.
        last_request: When it was last asked for something, UTC.
    """

    model_id: str
    run: TrainingRun | None = None
    last_request: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSession:
    """A client's view of one set of weights.

    Attributes:
        sampling_session_id: Its id, as the client knows it.
        adapter_id: The weights, as the sampler knows them; ``None`` is the base model. Sampling
            sessions of one checkpoint share it.
        folder: Where the weights can be read again.
        path: The checkpoint, if the weights have a name.
        inflight: The model whose later saves it follows; ``None`` where it keeps its weights.
    """

    sampling_session_id: str
    adapter_id: str | None = None
    folder: Path | None = None
    path: CheckpointPath | None = None
    inflight: str | None = None


@dataclass(slots=True, kw_only=True)
class Session:
    """One client, from ``create_session`` until it finishes or goes silent.

    Attributes:
        project_id: A label that its checkpoints keep.
        created: When it began, UTC.
        finish: What its client said of its end; ``None`` until then, and if it said nothing.
        clones: How many copies of each sampling session, beside the first, have a number.
    """

    session_id: str
    display_name: str | None = None
    user_metadata: Mapping[str, object] | None = None
    project_id: str = DEFAULT_PROJECT
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    finish: Finish | None = None
    last_heartbeat: float = field(default_factory=time.monotonic)
    models: dict[str, LiveModel] = field(default_factory=dict)
    sampling_sessions: dict[str, SamplingSession] = field(default_factory=dict)
    clones: dict[str, int] = field(default_factory=dict)


class Sessions:
    """The sessions that are alive.

    Args:
        timeout_s: How long a session lives without a heartbeat. The SDK sends one every 10
            seconds; a laptop that sleeps, or a client in a long native call, sends none.
    """

    def __init__(self, *, timeout_s: float = 1800.0) -> None:
        self._timeout_s = timeout_s
        self._sessions: dict[str, Session] = {}
        self._models: dict[str, Session] = {}
        self._sampling_sessions: dict[str, Session] = {}
        self._ended: OrderedDict[str, Session] = OrderedDict()

    def create(
        self,
        *,
        display_name: str | None,
        user_metadata: Mapping[str, object] | None,
        project_id: str | None = None,
    ) -> Session:
        """Begin a session under a new id."""
        session = Session(
            session_id=uuid.uuid4().hex[:16],
            display_name=display_name,
            user_metadata=user_metadata,
            project_id=project_id or DEFAULT_PROJECT,
        )
        self._sessions[session.session_id] = session
        return session

    def get(self, session_id: str) -> Session:
        """A live session.

        Raises:
            SessionEndedError: It has ended, or was another server's.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionEndedError(
                f"session {session_id!r} has ended: it was finished, sent no heartbeat for "
                f"{self._timeout_s:.0f} s, or the engine was started again since"
            )
        return session

    def all(self) -> list[Session]:
        """Every live session, the newest first."""
        return list(reversed(self._sessions.values()))

    def ended(self) -> list[Session]:
        """The last thousand sessions that ended, without what they held."""
        return list(self._ended.values())

    def heartbeat(self, session_id: str) -> None:
        """Keep a session alive."""
        self.get(session_id).last_heartbeat = time.monotonic()

    def add_model(self, session: Session, model: LiveModel) -> None:
        """Give a session a model."""
        session.models[model.model_id] = model
        self._models[model.model_id] = session

    def model(self, model_id: str) -> LiveModel:
        """A live session's model.

        Raises:
            NotFoundError: There is none of that id.
        """
        session = self._models.get(model_id)
        if session is None:
            raise NotFoundError(f"there is no model {model_id!r} in a session that is alive")
        return session.models[model_id]

    def session_of_model(self, model_id: str) -> Session:
        """The session that a model belongs to.

        Raises:
            NotFoundError: There is no model of that id.
        """
        self.model(model_id)
        return self._models[model_id]

    def models(self) -> list[LiveModel]:
        """The models of all live sessions."""
        return [self._models[model_id].models[model_id] for model_id in self._models]

    def remove_model(self, model_id: str) -> None:
        """Take a model, which could not be created, out of its session."""
        session = self._models.pop(model_id, None)
        if session is not None:
            del session.models[model_id]

    def add_sampling_session(self, session: Session, sampling: SamplingSession) -> None:
        """Give a session a sampling session.

        A session that ended meanwhile keeps it to itself: nobody can ask for it.
        """
        session.sampling_sessions[sampling.sampling_session_id] = sampling
        if session.session_id in self._sessions:
            self._sampling_sessions[sampling.sampling_session_id] = session

    def sampling_session(self, sampling_session_id: str) -> SamplingSession:
        """A live session's sampling session.

        Raises:
            NotFoundError: There is none of that id.
        """
        session = self._sampling_sessions.get(sampling_session_id)
        if session is None:
            raise NotFoundError(
                f"there is no sampling session {sampling_session_id!r} in a session that is alive; "
                "create the sampling client again"
            )
        return session.sampling_sessions[sampling_session_id]

    def join(self, sampling_session_id: str) -> int:
        """Number one more copy of a sampling session, from 1; the first client is 0.

        Raises:
            NotFoundError: There is no sampling session of that id.
        """
        self.sampling_session(sampling_session_id)
        clones = self._sampling_sessions[sampling_session_id].clones
        clones[sampling_session_id] = clones.get(sampling_session_id, 0) + 1
        return clones[sampling_session_id]

    def publish(self, session: Session, model_id: str, adapter_id: str, folder: Path) -> None:
        """Let the inflight sampling sessions of a model have other weights."""
        for key, sampling in session.sampling_sessions.items():
            if sampling.inflight == model_id:
                session.sampling_sessions[key] = replace(
                    sampling, adapter_id=adapter_id, folder=folder
                )

    def adapters_in_use(self) -> set[str]:
        """The ``adapter_id`` of every live sampling session."""
        return {
            sampling.adapter_id
            for session in self._sessions.values()
            for sampling in session.sampling_sessions.values()
            if sampling.adapter_id is not None
        }

    def end(self, session_id: str, finish: Finish | None = None) -> Session:
        """End a session; its models and sampling sessions are no longer found."""
        session = self.get(session_id)
        session.finish = finish
        self._ended[session_id] = replace(session, models={}, sampling_sessions={}, clones={})
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)
        del self._sessions[session_id]
        for model_id in session.models:
            del self._models[model_id]
        for sampling_session_id in session.sampling_sessions:
            del self._sampling_sessions[sampling_session_id]
        return session

    def silent(self) -> list[str]:
        """The ids of sessions that have sent no heartbeat for too long."""
        oldest = time.monotonic() - self._timeout_s
        return [
            session.session_id
            for session in self._sessions.values()
            if session.last_heartbeat < oldest
        ]
