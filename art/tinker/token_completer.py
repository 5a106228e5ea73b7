"""The SDK's sampling client as what the endpoint samples with."""

from collections.abc import Awaitable, Sequence

import tinker

from art.endpoint.types import SampledTokens, SamplingOptions
from art.errors import EngineError
from art.tinker.connection import Connection
from art.tinker.controlled_sampling import ControlledSampler
from art.tinker.sdk_calls import sdk_call


class SamplingClientCompleter:
    """An :class:`art.endpoint.types.TokenCompleter` on a Tinker server.

    Cancelling a call cancels the SDK's future, and the SDK then has the server cancel the request
    (``cancel_future``), also while it is being sampled. Controls that the Tinker API lacks go to a
    server that announces them (:class:`~art.tinker.controlled_sampling.ControlledSampler`).

    Args:
        connection: The connection to the client's server.
        client: The SDK's client for one set of weights.
    """

    def __init__(self, connection: Connection, client: tinker.SamplingClient) -> None:
        self._connection = connection
        self._client = client
        self._controlled: ControlledSampler | None = None

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        """Sample completions of a prompt.

        Raises:
            art.errors.InvalidRequestError: The server refuses the request, or cannot honour one of
                the controls, which the error names.
            art.errors.EngineError: The server failed, or returned samples without logprobs.
        """
        pending = self._sample(prompt_token_ids, options)
        response = await sdk_call(self._connection, pending, "sampling")
        return [sampled_tokens(sequence) for sequence in response.sequences]

    def _sample(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> Awaitable[tinker.SampleResponse]:
        if options.controls.changed():
            if self._controlled is None:
                self._controlled = ControlledSampler(self._connection, self._client)
            return self._controlled.sample(prompt_token_ids, options)
        return self._client.sample(
            tinker.ModelInput.from_ints(list(prompt_token_ids)),
            options.num_samples,
            sampling_params(options),
            topk_sample_logprobs=options.top_logprobs,
        )


def sampling_params(options: SamplingOptions) -> tinker.SamplingParams:
    """Convert sampling options to the wire's record, which lacks the numbers of results."""
    return tinker.SamplingParams(
        max_tokens=options.max_tokens,
        seed=options.seed,
        stop=[*options.stop],
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )


def sampled_tokens(sequence: tinker.SampledSequence) -> SampledTokens:
    """Convert one sample of the wire.

    Raises:
        art.errors.EngineError: It has no logprob for each token, or too few top logprobs.
    """
    num_tokens = len(sequence.tokens)
    if sequence.logprobs is None or len(sequence.logprobs) != num_tokens:
        raise EngineError(
            "the Tinker server returned a sample without a logprob for each token, which training "
            "needs; update the server, or use another one"
        )
    top_logprobs = sequence.topk_logprobs
    if top_logprobs is not None and len(top_logprobs) != num_tokens:
        raise EngineError(
            f"the Tinker server returned top logprobs of {len(top_logprobs)} tokens for a sample "
            f"of {num_tokens}; leave top_logprobs out of the request"
        )
    return SampledTokens(sequence.tokens, sequence.logprobs, sequence.stop_reason, top_logprobs)
