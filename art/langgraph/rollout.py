"""Rollouts whose agents are LangGraph's or LangChain's: their turns become the trajectory."""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import ParamSpec, Protocol

from art.capture.context import capturing
from art.errors import CaptureError
from art.trajectories import Trajectory

P = ParamSpec("P")


class ServedModel(Protocol):
    """A model as an agent's client needs it. :class:`art.model.Model` is one."""

    @property
    def inference_base_url(self) -> str | None:
        """Base URL of the endpoint, ending in ``/v1``."""
        ...

    @property
    def inference_api_key(self) -> str | None:
        """Key of the endpoint."""
        ...

    def get_inference_name(self, step: int | None = None) -> str:
        """Name the model as its endpoint serves it."""
        ...


_model: ContextVar[ServedModel | None] = ContextVar("art_langgraph_model", default=None)


def current_model() -> ServedModel:
    """Return the model of the rollout that runs this code.

    Raises:
        art.errors.CaptureError: There is no such rollout.
    """
    model = _model.get()
    if model is None:
        raise CaptureError(
            "init_chat_model() takes the model of the rollout that it is called in: call it "
            "inside a function that art.langgraph.wrap_rollout(model, function) returned"
        )
    return model


def wrap_rollout(
    model: ServedModel, fn: Callable[P, Awaitable[Trajectory]]
) -> Callable[P, Awaitable[Trajectory]]:
    """Wrap a rollout, so that what its agent asks becomes its trajectory.

    ::

        async def rollout(scenario):
            agent = create_react_agent(art.langgraph.init_chat_model(), tools)
            result = await agent.ainvoke({"messages": [("user", scenario)]})
            return art.Trajectory(reward=score(result))

        group = await art.TrajectoryGroup(
            art.langgraph.wrap_rollout(model, rollout)(scenario) for _ in range(8)
        )

    Args:
        model: A registered model, which :func:`art.langgraph.chat_model.init_chat_model` serves.
        fn: An async function that runs the agent and returns a trajectory with its reward.

    Returns:
        A function of the same arguments. In its trajectory the conversations are those that were
        captured, if any was: see :func:`art.capture.context.capture_auto_trajectory`. Further
        histories that ``fn`` has put there come after them.
    """

    @functools.wraps(fn)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> Trajectory:
        outer = _model.set(model)
        try:
            with capturing() as captured:
                result = await fn(*args, **kwargs)
        finally:
            _model.reset(outer)
        if not isinstance(result, Trajectory):
            raise TypeError(f"a rollout must return an art.Trajectory; it returned {result!r:.100}")
        if captured.messages_and_choices:
            result.messages_and_choices = captured.messages_and_choices
            result.tools = captured.tools
            result.additional_histories[:0] = captured.additional_histories
        return result

    return wrapped
