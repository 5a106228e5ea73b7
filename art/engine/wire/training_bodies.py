"""JSON request bodies of models: their creation, training and checkpoints.

Every field that the SDK sends is listed; :mod:`art.engine.wire.sampling_bodies` says why.
"""

from dataclasses import fields
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from art.engine.commands import (
    CreateModel,
    CreateModelFrom,
    LoadWeights,
    OptimStep,
    SaveForSampling,
    SaveWeights,
)
from art.engine.wire.json_body import NUMBER, NUMBERS, Body, JsonObject, ShortList
from art.errors import InvalidRequestError
from art.executors.types import LoraConfig
from art.formats.adam import AdamParams
from art.formats.checkpoint_paths import CheckpointPath
from art.formats.lora import LORA_ALPHA


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
    model_seq_id: int = NUMBER
    base_model: str
    user_metadata: JsonObject | None = None
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
    user_metadata: JsonObject | None = None

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


class SaveExternalBody(SequencedBody):
    """``save_weights_external``: a PEFT folder under a name, to download."""

    path: str
    ttl_seconds: int | None = None
    age_encryption_recipients: ShortList[str] | None = None

    def command(self) -> SaveWeights:
        """The command that writes the checkpoint.

        Raises:
            InvalidRequestError: The name cannot be a checkpoint's, or the files are to be
                encrypted.
        """
        if self.age_encryption_recipients:
            raise InvalidRequestError(
                "this server does not encrypt: it has no age_encryption_recipients. Encrypt what "
                "get_external_weights_urls lets you download"
            )
        return SaveWeights(
            model_id=self.model_id,
            seq_id=self.seq_id,
            path=CheckpointPath(self.model_id, "external_weights", self.path),
            overwrite=True,
            ttl_seconds=self.ttl_seconds,
        )


class SaveSamplerBody(SequencedBody):
    """``save_weights_for_sampler``: a named checkpoint, or a sampler without a name.

    ``kind`` says whether a sampler without a name keeps its weights (``snapshot``) or takes those
    of every later save of its model (``inflight``).
    """

    path: str | None = None
    sampling_session_seq_id: int | None = Field(default=None, ge=0, lt=NUMBERS)
    kind: Literal["snapshot", "inflight"] = "snapshot"
    ttl_seconds: int | None = None
    user_metadata: JsonObject | None = None

    def command(self) -> SaveWeights | SaveForSampling:
        """The command that writes the weights.

        Raises:
            InvalidRequestError: An inflight sampler is to have a name or a time to live, or the
                name cannot be a checkpoint's.
        """
        inflight = self.kind == "inflight"
        if inflight and (self.sampling_session_seq_id is None or self.ttl_seconds is not None):
            raise InvalidRequestError(
                "an inflight sampler has no name and no ttl_seconds: it lives as long as its "
                "session. Send sampling_session_seq_id, or save a snapshot"
            )
        if self.sampling_session_seq_id is not None:
            return SaveForSampling(
                model_id=self.model_id,
                seq_id=self.seq_id,
                sampling_session_seq_id=self.sampling_session_seq_id,
                inflight=inflight,
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
    model_seq_id: int | None = Field(default=None, ge=0, lt=NUMBERS)
    base_model: str | None = None
    user_metadata: JsonObject | None = None
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
