"""The config of a trainable model, by ART's names: what ``_internal_config`` takes.

Each part holds the arguments of one engine under that engine's own names.
"""

from typing import Any, Literal, TypeAlias, TypedDict

from art.dev.engine import EngineArgs

RolloutWeightsMode: TypeAlias = Literal["lora", "merged"]


class InitArgs(TypedDict, total=False):
    """How the base model is loaded: arguments of Unsloth's ``FastLanguageModel``."""

    model_name: str
    max_seq_length: int
    dtype: str | None
    load_in_4bit: bool
    load_in_8bit: bool
    load_in_16bit: bool
    full_finetuning: bool
    token: str | None
    device_map: str
    rope_scaling: dict[str, Any] | None
    fix_tokenizer: bool
    trust_remote_code: bool
    use_gradient_checkpointing: str
    resize_model_vocab: int | None
    revision: str | None
    use_exact_model_name: bool
    fast_inference: bool
    gpu_memory_utilization: float
    float8_kv_cache: bool
    random_state: int
    max_lora_rank: int
    disable_log_stats: bool
    enable_prefix_caching: bool
    use_async: bool


class PeftArgs(TypedDict, total=False):
    """The LoRA adapter: arguments of ``FastLanguageModel.get_peft_model``."""

    r: int
    target_modules: list[str]
    lora_alpha: int
    lora_dropout: int
    bias: str
    layers_to_transform: list[int] | None
    layers_pattern: str | None
    use_gradient_checkpointing: str
    random_state: int
    max_seq_length: int
    use_rslora: bool
    modules_to_save: list[str] | None
    init_lora_weights: bool
    loftq_config: dict[str, Any]
    temporary_location: str


class TinkerTrainingClientArgs(TypedDict, total=False):
    """The LoRA adapter on a Tinker server: arguments of ``create_lora_training_client``."""

    rank: int
    seed: int | None
    train_mlp: bool
    train_attn: bool
    train_unembed: bool
    user_metadata: dict[str, str] | None


class TinkerArgs(TypedDict, total=False):
    """Settings of a Tinker backend.

    Attributes:
        training_client_args: Arguments of the training client.
    """

    training_client_args: TinkerTrainingClientArgs


class TrainerArgs(TypedDict, total=False):
    """Arguments of TRL's ``GRPOConfig``, which says what each means."""

    output_dir: str | None
    overwrite_output_dir: bool
    do_train: bool
    do_eval: bool
    do_predict: bool
    eval_strategy: str
    prediction_loss_only: bool
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    per_gpu_train_batch_size: int | None
    per_gpu_eval_batch_size: int | None
    gradient_accumulation_steps: int
    eval_accumulation_steps: int | None
    eval_delay: float | None
    torch_empty_cache_steps: int | None
    learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    num_train_epochs: float
    max_steps: int
    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] | str | None
    warmup_ratio: float
    warmup_steps: int
    log_level: str
    log_level_replica: str
    log_on_each_node: bool
    logging_dir: str | None
    logging_strategy: str
    logging_first_step: bool
    logging_steps: float
    logging_nan_inf_filter: bool
    save_strategy: str
    save_steps: float
    save_total_limit: int | None
    save_safetensors: bool | None
    save_on_each_node: bool
    save_only_model: bool
    restore_callback_states_from_checkpoint: bool
    no_cuda: bool
    use_cpu: bool
    use_mps_device: bool
    seed: int
    data_seed: int | None
    jit_mode_eval: bool
    use_ipex: bool
    bf16: bool
    fp16: bool
    fp16_opt_level: str
    half_precision_backend: str
    bf16_full_eval: bool
    fp16_full_eval: bool
    tf32: bool | None
    local_rank: int
    ddp_backend: str | None
    tpu_num_cores: int | None
    tpu_metrics_debug: bool
    debug: str | list[str]
    dataloader_drop_last: bool
    eval_steps: float | None
    dataloader_num_workers: int
    dataloader_prefetch_factor: int | None
    past_index: int
    run_name: str | None
    disable_tqdm: bool | None
    remove_unused_columns: bool | None
    label_names: list[str] | None
    load_best_model_at_end: bool | None
    metric_for_best_model: str | None
    greater_is_better: bool | None
    ignore_data_skip: bool
    fsdp: list[str] | str | None
    fsdp_min_num_params: int
    fsdp_config: dict[str, Any] | str | None
    fsdp_transformer_layer_cls_to_wrap: str | None
    accelerator_config: dict[str, Any] | str | None
    deepspeed: dict[str, Any] | str | None
    label_smoothing_factor: float
    optim: str
    optim_args: str | None
    adafactor: bool
    group_by_length: bool
    length_column_name: str | None
    report_to: str | list[str] | None
    ddp_find_unused_parameters: bool | None
    ddp_bucket_cap_mb: int | None
    ddp_broadcast_buffers: bool | None
    dataloader_pin_memory: bool
    dataloader_persistent_workers: bool
    skip_memory_metrics: bool
    use_legacy_prediction_loop: bool
    push_to_hub: bool
    resume_from_checkpoint: str | None
    hub_model_id: str | None
    hub_strategy: str
    hub_token: str | None
    hub_private_repo: bool | None
    hub_always_push: bool
    gradient_checkpointing: bool
    gradient_checkpointing_kwargs: dict[str, Any] | str | None
    include_inputs_for_metrics: bool
    include_for_metrics: list[str]
    eval_do_concat_batches: bool
    fp16_backend: str
    push_to_hub_model_id: str | None
    push_to_hub_organization: str | None
    push_to_hub_token: str | None
    mp_parameters: str
    auto_find_batch_size: bool
    full_determinism: bool
    torchdynamo: str | None
    ray_scope: str | None
    ddp_timeout: int
    torch_compile: bool
    torch_compile_backend: str | None
    torch_compile_mode: str | None
    include_tokens_per_second: bool | None
    include_num_input_tokens_seen: bool | None
    neftune_noise_alpha: float | None
    optim_target_modules: str | list[str] | None
    batch_eval_metrics: bool
    eval_on_start: bool
    use_liger_kernel: bool | None
    eval_use_gather_object: bool | None
    average_tokens_across_devices: bool | None
    model_init_kwargs: dict[str, Any] | None
    max_prompt_length: int | None
    num_generations: int | None
    temperature: float
    max_completion_length: int | None
    ds3_gather_for_generation: bool
    beta: float
    reward_weights: list[float] | None
    sync_ref_model: bool
    ref_model_mixup_alpha: float
    ref_model_sync_steps: int
    log_completions: bool


class InternalModelConfig(TypedDict, total=False):
    """How a model is loaded, adapted, served and trained.

    Attributes:
        init_args: How the base model is loaded.
        engine_args: Arguments of the vLLM engine.
        peft_args: The LoRA adapter.
        tinker_args: Settings of a Tinker backend.
        trainer_args: Arguments of the trainer.
        trainer_gpu_ids: GPUs that train. With ``inference_gpu_ids`` this is dedicated mode:
            training and inference run on GPUs of their own.
        inference_gpu_ids: GPUs that serve.
        rollout_weights_mode: ``"lora"`` serves the adapter beside the base model, ``"merged"``
            serves weights that the adapter was merged into.
        chat_template: Jinja text that renders conversations, instead of the tokenizer's own.
        chat_template_kwargs: Variables for it, such as ``{"enable_thinking": False}``.
        allow_unvalidated_arch: Take models that the model-support registry does not list.
    """

    init_args: InitArgs
    engine_args: EngineArgs
    peft_args: PeftArgs
    tinker_args: TinkerArgs | None
    trainer_args: TrainerArgs
    trainer_gpu_ids: list[int]
    inference_gpu_ids: list[int]
    rollout_weights_mode: RolloutWeightsMode
    chat_template: str
    chat_template_kwargs: dict[str, Any]
    allow_unvalidated_arch: bool
