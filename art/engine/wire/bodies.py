"""The wire's JSON request bodies.

Every field that the SDK sends is listed, and no other is taken, so that a field of a newer SDK
is refused with its name rather than ignored. The ``command`` methods turn a body into a command of
the engine, and refuse what this server does not do.
"""

from dataclasses import fields
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from art.engine.commands import (
    CreateModel,
    CreateModelFrom,
    CreateSamplingSession,
    LoadWeights,
    OptimStep,
    Sample,
    SaveForSampling,
    SaveWeights,
)
from art.engine.wire.json_body import Body, JsonObject, ShortList
from art.engine.wire.protobuf import concatenate_tokens
from art.engine.wire.sampling_fields import ControlsBody, TargetTokensBody
from art.errors import InvalidRequestError
from art.executors.types import IntArray, LoraConfig, SampleRequest, SamplingParams
from art.formats.adam import AdamParams
from art.formats.checkpoint_paths import CheckpointPath
from art.formats.lora import LORA_ALPHA
from art.formats.sampling_controls import NO_CONTROLS

UserMetadata = JsonObject | None
# The numbers of a session's models and sampling sessions: nine digits, as in a training run's id.
_NUMBERS = 10**9
_NUMBER = Field(ge=0, lt=_NUMBERS)


class ClientConfigBody(Body):
    """``client/config`` and ``client/dynamic_config``."""

    sdk_version: str


class CreateSessionBody(Body):
    """``create_session``."""

    tags: ShortList[str] = Field(default_factory=list)
    user_metadata: UserMetadata = None
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None


class HeartbeatBody(Body):
    """``session_heartbeat``."""

    session_id: str


class FinishSessionBody(Body):
    """``sessions/{id}/finish``."""

    reason: JsonObject | None = None
    detail: str | None = None


class LoraBody(Body):
    """The adapter of a new model."""

    rank: int = Field(ge=1, le=1024)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

    def lora(self) -> LoraConfig:
        """The adapter as the engine knows it."""
        return LoraConfig(
            rank=self.rank,
            alpha=LORA_ALPHA,
            seed=self.seed,
            train_attn=self.train_attn,
            train_mlp=self.train_mlp,
            train_unembed=self.train_unembed,
        )


class OptimizerBody(BaseModel):
    """The optimizer of a model; only AdamW is known here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "adamw"

    def check(self) -> None:
        """Refuse any optimizer but AdamW.

        Raises:
            InvalidRequestError: It is another.
        """
        if self.type != "adamw":
            raise InvalidRequestError(f"this server has the optimizer 'adamw', not {self.type!r}")


class CreateModelBody(Body):
    """``create_model``."""

    session_id: str
    model_seq_id: int = _NUMBER
    base_model: str
    user_metadata: UserMetadata = None
    lora_config: LoraBody | None = None
    optimizer_config: OptimizerBody = OptimizerBody()

    def command(self) -> CreateModel:
        """The command that creates the model.

        Raises:
            InvalidRequestError: No adapter is asked for, or one without any layer, or with
                another optimizer than AdamW.
        """
        self.optimizer_config.check()
        if self.lora_config is None:
            raise InvalidRequestError(
                "this server trains LoRA adapters only; send a lora_config "
                "(create_lora_training_client does)"
            )
        lora = self.lora_config.lora()
        if not (lora.train_attn or lora.train_mlp or lora.train_unembed):
            raise InvalidRequestError(
                "set at least one of train_attn, train_mlp and train_unembed: "
                "there is nothing to train"
            )
        return CreateModel(
            session_id=self.session_id,
            model_seq_id=self.model_seq_id,
            base_model=self.base_model,
            lora=lora,
            user_metadata=self.user_metadata,
        )


class ModelBody(Body):
    """``get_info``."""

    model_id: str


class SequencedBody(Body):
    """A request that has its place in a model's order.

    Only the place is checked when the request arrives: what else is wrong with it becomes the
    result of that place, so that the requests after it are not left waiting.
    """

    model_id: str
    seq_id: int = Field(ge=1, lt=2**63)


class OptimStepBody(SequencedBody):
    """``optim_step``."""

    adam_params: JsonObject | None = None
    optimizer_params: JsonObject | None = None

    def command(self) -> OptimStep:
        """The command that takes the step.

        Raises:
            InvalidRequestError: It is not AdamW's, or a number is out of its range.
        """
        if self.adam_params is None:
            kind = (self.optimizer_params or {}).get("type")
            raise InvalidRequestError(f"this server has the optimizer 'adamw', not {kind!r}")
        known = {field.name for field in fields(AdamParams)}
        given = {name: value for name, value in self.adam_params.items() if name != "type"}
        if unknown := sorted(given.keys() - known):
            raise InvalidRequestError(
                f"adam_params has no {unknown[0]!r}; it takes: {', '.join(sorted(known))}"
            )
        adam = AdamParams(**given)  # type: ignore[arg-type]  # it checks its values itself
        return OptimStep(model_id=self.model_id, seq_id=self.seq_id, adam=adam)


class SaveWeightsBody(SequencedBody):
    """``save_weights``."""

    path: str | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: UserMetadata = None

    def command(self) -> SaveWeights:
        """The command that writes the checkpoint.

        Raises:
            InvalidRequestError: The name cannot be a checkpoint's.
        """
        return SaveWeights(
            model_id=self.model_id,
            seq_id=self.seq_id,
            path=CheckpointPath(self.model_id, "weights", self.path or f"{self.seq_id:06d}"),
            overwrite=self.overwrite,
            ttl_seconds=self.ttl_seconds,
            user_metadata=self.user_metadata,
        )


class SaveSamplerBody(SequencedBody):
    """``save_weights_for_sampler``: a named checkpoint, or a sampler without a name."""

    path: str | None = None
    sampling_session_seq_id: int | None = Field(default=None, ge=0, lt=_NUMBERS)
    kind: Literal["snapshot", "inflight"] = "snapshot"
    ttl_seconds: int | None = None
    user_metadata: UserMetadata = None

    def command(self) -> SaveWeights | SaveForSampling:
        """The command that writes the weights.

        Raises:
            InvalidRequestError: An inflight sampler is asked for, or the name cannot be a
                checkpoint's.
        """
        if self.kind != "snapshot":
            raise InvalidRequestError(
                "this server has no inflight samplers; save a snapshot after each step"
            )
        if self.sampling_session_seq_id is not None:
            return SaveForSampling(
                model_id=self.model_id,
                seq_id=self.seq_id,
                sampling_session_seq_id=self.sampling_session_seq_id,
            )
        name = self.path or f"{self.seq_id:06d}"
        return SaveWeights(
            model_id=self.model_id,
            seq_id=self.seq_id,
            path=CheckpointPath(self.model_id, "sampler_weights", name),
            overwrite=True,
            ttl_seconds=self.ttl_seconds,
            user_metadata=self.user_metadata,
        )


class LoadWeightsBody(Body):
    """``load_weights``: into a model (``model_id``, ``seq_id``) or as a new one."""

    model_id: str | None = None
    seq_id: int | None = Field(default=None, ge=1, lt=2**63)
    session_id: str | None = None
    model_seq_id: int | None = Field(default=None, ge=0, lt=_NUMBERS)
    base_model: str | None = None
    user_metadata: UserMetadata = None
    path: str
    optimizer: bool
    optimizer_config: OptimizerBody | None = None
    weights_access_token: str | None = None

    def command(self) -> LoadWeights | CreateModelFrom:
        """The command that loads the weights.

        Raises:
            InvalidRequestError: It is not said into which model; or an access token, another
                optimizer than AdamW, or what is no checkpoint's path is asked for.
        """
        if self.weights_access_token is not None:
            raise InvalidRequestError(
                "this server has one owner; weights_access_token is for the hosted service"
            )
        if self.optimizer_config is not None:
            self.optimizer_config.check()
        path = CheckpointPath.parse(self.path)
        if self.model_id is not None and self.seq_id is not None:
            return LoadWeights(
                model_id=self.model_id, seq_id=self.seq_id, path=path, optimizer=self.optimizer
            )
        if self.session_id is None or self.model_seq_id is None:
            raise InvalidRequestError("send model_id and seq_id, or session_id and model_seq_id")
        return CreateModelFrom(
            session_id=self.session_id,
            model_seq_id=self.model_seq_id,
            path=path,
            optimizer=self.optimizer,
            base_model=self.base_model,
            user_metadata=self.user_metadata,
        )


class CreateSamplingSessionBody(Body):
    """``create_sampling_session``."""

    session_id: str
    sampling_session_seq_id: int = _NUMBER
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


class WeightsInfoBody(Body):
    """``weights_info``."""

    tinker_path: str


class TtlBody(Body):
    """``…/checkpoints/{kind}/{name}/ttl``."""

    ttl_seconds: int | None = None
