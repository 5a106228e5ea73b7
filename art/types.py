"""Messages, the settings of a training step, and its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeAlias, TypedDict

from openai.types.chat.chat_completion import Choice as Choice
from openai.types.chat.chat_completion_message_param import ChatCompletionMessageParam
from openai.types.chat.chat_completion_tool_param import ChatCompletionToolParam
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    Tag,
    ValidationError,
    WrapSerializer,
    model_validator,
)

from art._internal.refused_names import drop_neutral
from art.errors import ConfigurationError
from art.formats.adam import AdamParams
from art.formats.losses import LossName, complete_config


def _check_message(message: object) -> object:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(
            "a message is a dict with a 'role', as openai takes it, or a Choice that a model gave; "
            f"this is {type(message).__name__}"
        )
    return message


def _kind(item: object) -> Literal["choice", "message"]:
    return "choice" if isinstance(item, Choice) else "message"


def message_or_choice(item: object) -> Any:
    """Turn what a client gave into a message as a dict, or a ``Choice``.

    Args:
        item: A dict or a ``Choice``; or an object of another client that has the same fields,
            such as openai's ``ChatCompletionMessage`` or litellm's ``Choices``; or a ``Choice``
            that became a dict on its way.

    Returns:
        A dict that is no Choice, and a ``Choice``, as they are; an object with the fields of a
        message as a dict; an object or a dict with the fields of a Choice as a ``Choice``. A value
        of any other kind is returned as it is.

    Raises:
        pydantic.ValidationError: It has a message within, as a Choice has, but is none.
    """
    if isinstance(item, Choice):
        return item
    if not isinstance(item, Mapping) and callable(dump := getattr(item, "model_dump", None)):
        # Nulls are what the client's class has and the message does not.
        item = {name: value for name, value in dump().items() if value is not None}
    # No message has a field called "message".
    if isinstance(item, Mapping) and "message" in item:
        return Choice.model_validate(item)
    return item


# openai's message types are not validated further: they consume iterables, and servers take more.
Message = Annotated[
    ChatCompletionMessageParam,
    GetPydanticSchema(
        lambda _, schema_of: schema_of(Annotated[Any, AfterValidator(_check_message)])
    ),
]
MessageOrChoice = Annotated[
    Annotated[
        Annotated[Message, Tag("message")] | Annotated[Choice, Tag("choice")], Discriminator(_kind)
    ],
    BeforeValidator(message_or_choice),
    # What was appended was not validated.
    WrapSerializer(lambda item, serialize: serialize(message_or_choice(item))),
]
Messages = list[Message]
MessagesAndChoices = list[MessageOrChoice]
Tools = list[
    Annotated[
        ChatCompletionToolParam, GetPydanticSchema(lambda _, schema_of: schema_of(dict[str, Any]))
    ]
]

LossFn: TypeAlias = LossName

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_ADAM = AdamParams()

# ART's default for a machine of one's own.
_AUTO_BATCH_SIZE = 2


class TrainOptions(TypedDict, total=False):
    """The fields of :class:`TrainConfig` as keywords of ``backend.train``."""

    learning_rate: float
    loss_fn: LossFn
    loss_fn_config: dict[str, float] | None
    normalize_advantages: bool
    kl_penalty_coef: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    grad_clip_norm: float


class TrainConfig(BaseModel):
    """Settings of one training step.

    The losses, their settings and defaults are in :mod:`art.formats.losses`; ``docs/options.md``
    has all of it in tables.

    Attributes:
        learning_rate: Adam's step size; 0 or more.
        loss_fn: Name of the policy loss.
        loss_fn_config: The loss's own numbers, such as ``{"clip_low_threshold": 0.8}``; ``None``
            is its defaults.
        normalize_advantages: Divide a group's advantages by the standard deviation of its
            rewards, as GRPO does; see :func:`art.rl.advantages.group_advantages`.
        kl_penalty_coef: Weight of the KL penalty towards the base model; 0 is none.
        beta1: Adam's decay of the first moment, in [0, 1).
        beta2: Adam's decay of the second moment, in [0, 1).
        eps: Adam's epsilon; 0 or more.
        weight_decay: Decoupled weight decay (AdamW); 0 or more.
        grad_clip_norm: Largest global norm of the gradient; 0 is no clipping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = 5e-6
    loss_fn: LossFn = "importance_sampling"
    loss_fn_config: dict[str, _Finite] | None = None
    normalize_advantages: bool = True
    kl_penalty_coef: _NonNegative = 0.0
    # The defaults of the wire.
    beta1: float = _ADAM.beta1
    beta2: float = _ADAM.beta2
    eps: float = _ADAM.eps
    weight_decay: float = _ADAM.weight_decay
    grad_clip_norm: float = _ADAM.grad_clip_norm

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, fields: Any) -> Any:
        return drop_neutral("backend.train", fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.adam()
        complete_config(self.loss_fn, self.loss_fn_config or {})
        return self

    def adam(self) -> AdamParams:
        """Build the numbers of the optimizer step."""
        return AdamParams(
            learning_rate=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            grad_clip_norm=self.grad_clip_norm,
        )

    def with_options(self, options: TrainOptions) -> Self:
        """Replace some fields, and validate the result.

        Args:
            options: Fields to replace, by name.

        Returns:
            A new config.

        Raises:
            art.errors.ConfigurationError: A name is unknown or a value out of its range.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            return type(self).model_validate({**fields, **options})
        except ValidationError as error:
            problems = "; ".join(
                ": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in error.errors()
            )
            raise ConfigurationError(
                f"These training options cannot be used: {problems}"
            ) from error


class TrainSFTConfig(BaseModel):
    """Settings of supervised fine-tuning.

    Attributes:
        learning_rate: Adam's step size, 0 or more; or one for each batch.
        batch_size: Trajectories of a batch, which is one optimizer step; ``"auto"`` is 2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: _NonNegative | list[_NonNegative] = 5e-5
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    def trajectories_per_batch(self) -> int:
        """Resolve ``batch_size``."""
        return _AUTO_BATCH_SIZE if self.batch_size == "auto" else self.batch_size

    def learning_rates(self, num_batches: int) -> list[float]:
        """List the learning rate of each batch.

        Raises:
            art.errors.ConfigurationError: ``learning_rate`` lists fewer than there are batches.
        """
        if not isinstance(self.learning_rate, list):
            return [self.learning_rate] * num_batches
        if len(self.learning_rate) < num_batches:
            raise ConfigurationError(
                f"learning_rate lists {len(self.learning_rate)} values for {num_batches} batches "
                f"of {self.trajectories_per_batch()} trajectories; it needs one for each"
            )
        return self.learning_rate[:num_batches]


@dataclass
class TrainResult:
    """The result of one call of ``backend.train`` or ``backend.train_sft``.

    Attributes:
        step: The model's step after the call. It does not advance where nothing was trained.
        metrics: Numbers by name, such as ``loss`` and ``grad_norm``.
    """

    step: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class LocalTrainResult(TrainResult):
    """The result of a backend that keeps its checkpoints on this machine.

    Attributes:
        checkpoint_path: The folder of the step's checkpoint; ``None`` where none was saved.
    """

    checkpoint_path: str | None = None
