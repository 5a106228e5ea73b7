"""A session with a Tinker server: the SDK's clients, opened and closed together."""

import asyncio
import difflib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import tinker

from art._internal.proxies import bypass_proxies
from art.errors import (
    CheckpointError,
    EngineDiedError,
    EngineError,
    InvalidRequestError,
    UnknownBaseModelError,
)
from art.tinker.connection import Connection
from art.tinker.sdk_calls import blocking_sdk_call, sdk_call
from art.tinker.token_completer import SamplingClientCompleter

if TYPE_CHECKING:
    from art.dev.model import TinkerTrainingClientArgs

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

# Sequences whose reference logprobs are computed at once.
_CONCURRENT_LOGPROBS = 64


class ServerSession:
    """The SDK's clients of one server, for one base model. Made by :meth:`open`.

    Attributes:
        connection: The connection to the server.
        max_context_length: Context of the base model, in tokens.
    """

    def __init__(
        self,
        connection: Connection,
        base_model: str,
        max_context_length: int,
        service_client: tinker.ServiceClient,
        rest_client: tinker.RestClient,
    ) -> None:
        self.connection = connection
        self.max_context_length = max_context_length
        self._base_model = base_model
        self._service_client = service_client
        self._rest_client = rest_client
        self._base_client: tinker.SamplingClient | None = None

    @classmethod
    async def open(cls, connection: Connection, base_model: str) -> Self:
        """Connect to a server and check that it has a base model.

        Args:
            connection: The connection to the server.
            base_model: The model to train.

        Returns:
            The session.

        Raises:
            UnknownBaseModelError: The server does not have the model; names near ones.
            ConfigurationError: The server refused the API key.
            EngineError: The server cannot be reached.
        """
        # The SDK takes no HTTP client and no setting of its own.
        bypass_proxies(connection.url)
        rest_client = await blocking_sdk_call(
            connection,
            lambda: tinker.RestClient(base_url=connection.base_url, api_key=connection.api_key),
            "connecting",
        )
        capabilities = await sdk_call(
            connection, rest_client.get_server_capabilities(), "listing the server's models"
        )
        supported = {model.model_name: model for model in capabilities.supported_models}
        if base_model not in supported:
            raise _unknown_base_model(base_model, [name for name in supported if name])
        max_context_length = supported[base_model].max_context_length
        if max_context_length is None:
            raise EngineError(
                f"the Tinker server does not report the context length of {base_model}"
            )
        service_client = tinker.ServiceClient(
            base_url=connection.base_url, api_key=connection.api_key
        )
        return cls(connection, base_model, max_context_length, service_client, rest_client)

    async def is_lost(self) -> bool:
        """Ask the server whether it has forgotten this session, as one that was restarted has.

        Raises:
            EngineError: It gives no answer, or failed.
        """
        try:
            # No call of the SDK asks for a session itself; this one needs it, and costs little.
            self._base_client = await self._sampling_client(None)
        except InvalidRequestError as error:
            logger.info("the session is lost: %s", error)
            return True
        return False

    async def create_model(self, args: "TinkerTrainingClientArgs") -> tinker.TrainingClient:
        """Create an adapter on the server, and the client that trains it."""
        pending = await blocking_sdk_call(
            self.connection,
            lambda: self._service_client.create_lora_training_client(self._base_model, **args),
            "creating the adapter",
        )
        return await sdk_call(self.connection, pending, "creating the adapter")

    async def resume_model(self, state_path: str) -> tinker.TrainingClient:
        """Create an adapter from a checkpoint, with its optimizer's state.

        Raises:
            CheckpointError: The server no longer has it.
            InvalidRequestError: The server has it, and refused for another reason.
        """
        doing = f"resuming from {state_path}"
        try:
            pending = await blocking_sdk_call(
                self.connection,
                lambda: self._service_client.create_training_client_from_state_with_optimizer(
                    state_path
                ),
                doing,
            )
            return await sdk_call(self.connection, pending, doing)
        except InvalidRequestError as error:
            if await self._has(state_path):
                raise
            raise CheckpointError(
                f"{error}. The server has lost this checkpoint, or cannot read it: move its "
                "folder away to resume from the step before"
            ) from error

    async def _has(self, state_path: str) -> bool:
        doing = f"looking for {state_path}"
        pending = self._rest_client.get_weights_info_by_tinker_path(state_path)
        try:
            await sdk_call(self.connection, pending, doing)
        except InvalidRequestError:
            return False
        return True

    async def open_completer(self, path: str | None) -> SamplingClientCompleter:
        """Open a checkpoint for sampling, or the base model where the path is ``None``."""
        return SamplingClientCompleter(self.connection, await self._sampling_client(path))

    async def base_logprobs(self, token_ids: Sequence[npt.NDArray[np.int64]]) -> list[FloatArray]:
        """Compute the base model's logprob of each token.

        Args:
            token_ids: For each sequence int64 ``[T]``.

        Returns:
            For each sequence float32 ``[T]``, NaN at position 0.
        """
        if self._base_client is None:
            self._base_client = await self._sampling_client(None)
        client = self._base_client
        semaphore = asyncio.Semaphore(_CONCURRENT_LOGPROBS)

        async def score(tokens: npt.NDArray[np.int64]) -> FloatArray:
            async with semaphore:
                logprobs = await sdk_call(
                    self.connection,
                    client.compute_logprobs(tinker.ModelInput.from_ints(tokens.tolist())),
                    "scoring with the base model",
                )
            # None, where a logprob was not computed, becomes NaN.
            return np.array(logprobs, dtype=np.float32)

        return await asyncio.gather(*(score(tokens) for tokens in token_ids))

    async def checkpoint_paths(self, model_id: str, name: str) -> list[str]:
        """List a model's checkpoints of one name; none where the server has forgotten the model.

        Args:
            model_id: The model on the server, of this session or another.
            name: The name that the checkpoints were saved under.

        Returns:
            Their paths on the server.
        """
        try:
            listing = await sdk_call(
                self.connection,
                self._rest_client.list_checkpoints(model_id),
                f"listing the checkpoints of {model_id}",
            )
        except InvalidRequestError as error:
            if not isinstance(error.__cause__, tinker.NotFoundError):
                raise
            return []
        return [
            checkpoint.tinker_path
            for checkpoint in listing.checkpoints
            if checkpoint.checkpoint_id.rpartition("/")[2] == name
        ]

    async def delete_checkpoint(self, path: str) -> None:
        """Delete a checkpoint on the server; one that is gone already is no error."""
        try:
            await sdk_call(
                self.connection,
                self._rest_client.delete_checkpoint_from_tinker_path(path),
                f"deleting {path}",
            )
        except InvalidRequestError as error:
            if not isinstance(error.__cause__, tinker.NotFoundError):
                raise
            logger.info("%s was deleted before", path)

    async def close(self) -> None:
        """End the session. Does nothing but log where the server is gone."""
        try:
            await sdk_call(self.connection, self._service_client.close("success"), "closing")
        except (EngineDiedError, EngineError, InvalidRequestError) as error:
            logger.info("the session with the Tinker server was not closed: %s", error)

    def abandon(self) -> None:
        """Stop the SDK's background work for a server that is gone, without waiting."""
        self._service_client.close("errored")

    async def _sampling_client(self, path: str | None) -> tinker.SamplingClient:
        doing = f"opening {path or self._base_model} for sampling"
        pending = await blocking_sdk_call(
            self.connection,
            lambda: self._service_client.create_sampling_client(
                model_path=path, base_model=self._base_model if path is None else None
            ),
            doing,
        )
        return await sdk_call(self.connection, pending, doing)


def _unknown_base_model(base_model: str, supported: list[str]) -> UnknownBaseModelError:
    near = difflib.get_close_matches(base_model, supported, n=3) or sorted(supported)[:10]
    names = ", ".join(near) if near else "none at all"
    return UnknownBaseModelError(
        f"the Tinker server has no base model {base_model!r}; it has {names}"
    )
