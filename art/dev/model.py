"""The internal config of a trainable model, by ART's names: only options that have an effect.

``docs/options.md`` lists them with their defaults. All others are refused by name: see
:mod:`art.dev.validate`.
"""

from typing import Any, Literal, TypeAlias, TypedDict

RolloutWeightsMode: TypeAlias = Literal["lora"]


class InitArgs(TypedDict, total=False):
    """The weights that training starts from.

    Attributes:
        model_name: The base model, or the folder of the last checkpoint. It follows from
            ``base_model`` and from the checkpoints, and another value is refused.
    """

    model_name: str


class EngineArgs(TypedDict, total=False):
    """Arguments of the sampling engine: none. The engine is configured where it is started."""


class TrainerArgs(TypedDict, total=False):
    """Arguments of the trainer: none. :class:`art.types.TrainConfig` configures each step."""


class PeftArgs(TypedDict, total=False):
    """The LoRA adapter, by PEFT's names.

    Attributes:
        r: Rank; at least 1.
        lora_alpha: Scale: the adapter adds ``lora_alpha / r * B @ A``. The same for every adapter,
            and another value is refused.
        random_state: Seed of the first values; ``None`` is a random one.
        target_modules: Names of the adapted modules. They follow from the base model; choose among
            them by ``train_attn``, ``train_mlp`` and ``train_unembed`` of ``tinker_args``.
    """

    r: int
    lora_alpha: float
    random_state: int | None
    target_modules: list[str]


class TinkerTrainingClientArgs(TypedDict, total=False):
    """The LoRA adapter, by the names of the SDK's ``create_lora_training_client``.

    Attributes:
        rank: As ``r`` of :class:`PeftArgs`.
        seed: As ``random_state`` of :class:`PeftArgs`.
        train_attn: Adapt the attention layers.
        train_mlp: Adapt the feed-forward layers.
        train_unembed: Adapt the output layer.
        user_metadata: Labels that the server keeps with the training run.
    """

    rank: int
    seed: int | None
    train_attn: bool
    train_mlp: bool
    train_unembed: bool
    user_metadata: dict[str, str] | None


class TinkerArgs(TypedDict, total=False):
    """Settings of a Tinker server.

    Attributes:
        training_client_args: The LoRA adapter.
    """

    training_client_args: TinkerTrainingClientArgs


class InternalModelConfig(TypedDict, total=False):
    """Settings of a model's adapter and of its chat template.

    Attributes:
        init_args: The weights that training starts from.
        engine_args: Takes no option.
        peft_args: The LoRA adapter.
        tinker_args: The LoRA adapter, by the names of the Tinker SDK.
        trainer_args: Takes no option.
        rollout_weights_mode: ``"lora"``: the adapter is served beside the base model.
        chat_template: Jinja text that renders conversations, instead of the tokenizer's own.
        chat_template_kwargs: Variables for it, such as ``{"enable_thinking": False}``.
        allow_unvalidated_arch: Take base models that the model-support registry does not list.
    """

    init_args: InitArgs
    engine_args: EngineArgs
    peft_args: PeftArgs
    tinker_args: TinkerArgs | None
    trainer_args: TrainerArgs
    rollout_weights_mode: RolloutWeightsMode
    chat_template: str
    chat_template_kwargs: dict[str, Any]
    allow_unvalidated_arch: bool
