"""JSON request bodies of sampling, and of waiting for results.

Every field that the SDK sends is listed, and no other is taken, so that a field of a newer SDK
is refused with its name rather than ignored. The ``command`` methods turn a body into a command of
the engine, and refuse what this server does not do.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from art.engine.commands import CreateSamplingSession, Sample
from art.engine.wire.json_body import NUMBER, Body, ShortList
from art.engine.wire.protobuf import concatenate_tokens
from art.engine.wire.sampling_fields import ControlsBody, TargetTokensBody
from art.errors import InvalidRequestError
from art.executors.types import IntArray, SampleRequest, SamplingParams
from art.formats.checkpoint_paths import CheckpointPath
from art.formats.sampling_controls import NO_CONTROLS


class CreateSamplingSessionBody(Body):
    """``create_sampling_session``."""

    session_id: str
    sampling_session_seq_id: int = NUMBER
    base_model: str | None = None
    model_path: str | None = None

    def command(self) -> CreateSamplingSession:
        """The command that opens the sampling session.

        Raises:
            InvalidRequestError: ``model_path`` is no checkpoint's path.
        """
        return CreateSamplingSession(
            session_id=self.session_id,
            sampling_session_seq_id=self.sampling_session_seq_id,
            base_model=self.base_model,
            path=None if self.model_path is None else CheckpointPath.parse(self.model_path),
        )


class JoinSamplingSessionBody(Body):
    """``join_sampling_session``."""

    sampling_session_id: str


class ChunkBody(BaseModel):
    """A piece of a prompt; only text is known here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "encoded_text"
    tokens: ShortList[int] = Field(default_factory=list)


class PromptBody(Body):
    """A prompt."""

    chunks: ShortList[ChunkBody]


class SamplingParamsBody(Body):
    """Sampling parameters.

    ``stop``: ``None`` is the model's own end; texts come on top of it; token ids take its place,
    so an empty list is no end but ``max_tokens``. ``art_controls`` is an extension of art's own.
    """

    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | ShortList[int] | ShortList[str] | None = None
    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=-1, ge=-1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    art_controls: ControlsBody | None = None

    @property
    def ends_as_the_model_does(self) -> bool:
        """True where the base model's own end tokens stop a sequence."""
        return self.stop is None or any(isinstance(text, str) for text in self.stop)

    def params(self) -> SamplingParams:
        """The parameters as the engine knows them.

        Raises:
            InvalidRequestError: One of the controls is out of its range.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        return SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k if self.top_k > 0 else -1,
            top_p=self.top_p,
            seed=self.seed,
            stop_token_ids=tuple(token for token in stop if isinstance(token, int)),
            stop_strings=tuple(text for text in stop if isinstance(text, str)),
            controls=NO_CONTROLS if self.art_controls is None else self.art_controls.controls(),
        )


class SampleBody(Body):
    """``asample``."""

    max_bytes: ClassVar[int] = 4 << 20  # half a million tokens of prompt

    num_samples: int = Field(default=1, ge=1, le=4096)
    prompt: PromptBody
    sampling_params: SamplingParamsBody
    base_model: str | None = None
    model_path: str | None = None
    sampling_session_id: str | None = None
    seq_id: int | None = Field(default=None, ge=0, lt=2**63)
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = Field(default=0, ge=0, le=1024)
    topk_sample_logprobs: int = Field(default=0, ge=0, le=1024)
    target_prompt_logprobs: TargetTokensBody | None = None
    prompt_alt_tokens_k: int = Field(default=0, ge=0, le=1024)
    prompt_logprobs_last_n: int | None = None
    record_stability_info: bool | None = None

    def command(self) -> Sample:
        """The command that samples.

        Raises:
            InvalidRequestError: It asks for what this server does not do, or has no tokens.
        """
        if self.sampling_session_id is None or self.seq_id is None:
            raise InvalidRequestError(
                "send sampling_session_id and seq_id (create_sampling_session gives the id)"
            )
        for name in (
            "base_model",
            "model_path",
            "record_stability_info",
        ):
            if getattr(self, name):
                raise InvalidRequestError(f"this server does not support {name} of a sample")
        prompt_P = self._prompt()
        targets, layout = (
            (None, None)
            if self.target_prompt_logprobs is None
            else self.target_prompt_logprobs.targets(prompt_P.size)
        )
        return Sample(
            sampling_session_id=self.sampling_session_id,
            seq_id=self.seq_id,
            request=SampleRequest(
                adapter_id=None,
                prompt=prompt_P,
                num_samples=self.num_samples,
                params=self.sampling_params.params(),
                prompt_logprobs=bool(self.prompt_logprobs),
                topk_prompt_logprobs=self.topk_prompt_logprobs,
                target_prompt_tokens=targets,
                prompt_alternatives=self.prompt_alt_tokens_k,
                topk_logprobs=self.topk_sample_logprobs,
            ),
            ends_as_the_model_does=self.sampling_params.ends_as_the_model_does,
            prompt_logprobs_last_n=self.prompt_logprobs_last_n,
            target_layout=layout,
        )

    def _prompt(self) -> IntArray:
        if any(chunk.type != "encoded_text" for chunk in self.prompt.chunks):
            raise InvalidRequestError("the prompt holds a chunk that is not text")
        prompt_P = concatenate_tokens([chunk.tokens for chunk in self.prompt.chunks])
        last_n = self.prompt_logprobs_last_n
        if last_n is not None and not (self.prompt_logprobs and 1 <= last_n < prompt_P.size):
            raise InvalidRequestError(
                f"prompt_logprobs_last_n is {last_n}; it needs prompt_logprobs, and must be "
                f"between 1 and {prompt_P.size - 1}"
            )
        return prompt_P


class RetrieveFutureBody(Body):
    """``retrieve_future``. A result is always sent whole, so the flag changes nothing."""

    request_id: str
    allow_metadata_only: bool = False


class FuturesTargetBody(Body):
    """The requests that ``retrieve_futures`` reports."""

    sampling_session_id: str
    cloned_sampler_id: int = 0


class RetrieveFuturesBody(Body):
    """``retrieve_futures``."""

    target: FuturesTargetBody
    prev_cursor: int = Field(default=0, ge=0)
    timeout: float | None = None
    retrieved_request_ids: ShortList[str] = Field(default_factory=list)


class CancelFutureBody(Body):
    """``cancel_future``."""

    request_id: str
