"""A base URL for one rollout: an agent anywhere asks there, and its trajectory is fetched."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from openai import AsyncOpenAI, NotFoundError, OpenAIError

from art.capture.captures import HEADER
from art.errors import CaptureError
from art.trajectories import Trajectory


class RolloutEndpoint:
    """The model's endpoint under a URL of one rollout's own, whose requests are its trajectory.

    Attributes:
        base_url: For the agent's client, ending in ``/v1``. Whoever has it can ask the model as
            a part of this rollout, and nothing else.
        api_key: For the agent's client.
        model_name: For the agent's client: the model's latest step when this was made.
        headers: For a client of the model's own URL and key, which is to be captured here.
    """

    def __init__(self, client: AsyncOpenAI, token: str, model_name: str) -> None:
        self._client = client
        self._path = f"/rollouts/{token}"
        self._trajectory: Trajectory | None = None
        self.base_url = f"{str(client.base_url).rstrip('/')}{self._path}/v1"
        self.api_key = token
        self.model_name = model_name
        self.headers: Mapping[str, str] = {HEADER: token}

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that OpenAI's clients read: the base URL and the key."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key}

    async def trajectory(self) -> Trajectory:
        """End the rollout, and fetch what its agent asked. Its URL is refused from now on.

        Returns:
            The trajectory, with its metric ``duration``; the same one at every call.

        Raises:
            art.errors.CaptureError: The endpoint no longer has it.
            openai.OpenAIError: The endpoint cannot be reached.
        """
        if self._trajectory is None:
            try:
                fields = await self._client.delete(self._path, cast_to=object)
            except NotFoundError as error:
                raise CaptureError(
                    "the trajectory of this rollout is gone: the endpoint was started again, or "
                    "had more rollouts open than it keeps"
                ) from error
            self._trajectory = Trajectory.model_validate(fields)
        return self._trajectory


@asynccontextmanager
async def open_rollout(client: AsyncOpenAI, model_name: str) -> AsyncIterator[RolloutEndpoint]:
    """Open a rollout at a model's endpoint.

    Args:
        client: A client of the endpoint, of the running event loop.
        model_name: The model's name there.

    Yields:
        The rollout. When the block ends it is deleted, fetched or not.

    Raises:
        openai.OpenAIError: The endpoint cannot be reached, or is none of art's.
    """
    opened = await client.post("/rollouts", cast_to=object)
    assert isinstance(opened, dict)  # as every object of the API
    rollout = RolloutEndpoint(client, str(opened["id"]), model_name)
    try:
        yield rollout
    finally:
        # Where it fails the endpoint is gone, and the rollout with it.
        with contextlib.suppress(CaptureError, OpenAIError):
            await rollout.trajectory()
