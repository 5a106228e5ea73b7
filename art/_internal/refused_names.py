"""Names and options of OpenPipe's ART that art refuses, and the way to take instead.

docs/from-openpipe-art.md is made from them. Read when something is asked for that is not there.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_HOSTED = (
    "it is the client of a service that others run for ART; use art.TinkerBackend() for a hosted "
    "service, or art.LocalBackend() for this machine"
)
_WANDB = "it is about Weights & Biases, which art does not know; model.log writes history.jsonl"
_PRICES = (
    "art has no table of prices; register yours with "
    "model.metrics_builder().register_model_pricing(…), and charge responses with "
    "add_response_cost(…)"
)
_COMPLETIONS = (
    "completions are not priced as they come; charge a response with "
    "model.metrics_builder().add_response_cost(…)"
)
_GATHER = "it is a part of ART's gathering; art's is art.rollouts.Tally"
_PIPELINE = (
    "there is no asynchronous trainer yet; art.trajectory_group_batches(…) runs the rollouts of "
    "later batches while one is trained"
)
_GPU = "it accounts for GPUs that ART holds; the engine of art serves any adapter at any time"
_KEPT = (
    "it keeps adapters of old steps in vLLM; art serves every step that has a checkpoint, and "
    "model.delete_checkpoints() removes them"
)
_SKILLS = "art installs no files for coding assistants; `art --help` lists its commands"
_SERVICE = "the engine is served by `art serve MODEL`"
_STEP = "a step is made of the groups that it is given; make the groups smaller"
_NO_ENGINE = "it configures ART's own trainer; the losses and their settings are in docs/options.md"
_ALL_SETTINGS = "settings of a step are keywords of backend.train(…), or art.TrainConfig(…)"
_ADAM = "Adam's numbers are keywords of their own: beta1, beta2, eps, weight_decay, grad_clip_norm"
_CLIP = (
    "ratios are bounded by loss_fn_config={'clip_low_threshold': 1 - epsilon, "
    "'clip_high_threshold': 1 + epsilon}"
)

# By full name. An entry stands for what lies below it, too.
REFUSED: "Mapping[str, str]" = {
    "art.Model.safe_model_dump": "write model.describe(), which leaves out the key",
    "art.Model.update_wandb_config": _WANDB,
    "art.ServerlessBackend": _HOSTED,
    "art.ServerlessTrainResult": _HOSTED,
    "art.TrainableModel.cost_calculator": _COMPLETIONS,
    "art.TrainableModel.safe_model_dump": "write model.describe(), which leaves out the key",
    "art.TrainableModel.set_cost_calculator": _COMPLETIONS,
    "art.TrainableModel.update_wandb_config": _WANDB,
    "art.api_costs": (
        "its names are art.costs.TokenPricing and art.metrics.MetricsBuilder.add_response_cost"
    ),
    "art.costs.CostCalculator": _COMPLETIONS,
    "art.costs.MODEL_PRICING": _PRICES,
    "art.costs.ModelPricing": _PRICES,
    "art.costs.TokenCount": _COMPLETIONS,
    "art.costs.build_cost_calculator": _COMPLETIONS,
    "art.costs.compute_sample_costs": _COMPLETIONS,
    "art.costs.compute_train_cost": _PRICES,
    "art.costs.get_model_pricing": _PRICES,
    "art.dev.TinkerNativeArgs": "write tinker_args; there is one backend for Tinker servers",
    "art.dev.TrainConfig": _ALL_SETTINGS,
    "art.dev.TrainSFTConfig": "it has no options; art.TrainSFTConfig has those of train_sft",
    "art.dev.get_openai_server_config": (
        "no vLLM runs behind the endpoint; pass model.register(backend, endpoint_config=…)"
    ),
    "art.errors.ARTError": "the root of art's errors is art.ArtError",
    "art.errors.ForbiddenBucketCreationError": "art stores nothing on S3",
    "art.errors.LoRADeploymentTimedOutError": "art deploys nothing",
    "art.errors.UnsupportedBaseModelDeploymentError": "art deploys nothing",
    "art.errors.UnsupportedLoRADeploymentProviderError": "art deploys nothing",
    "art.gather.GatherContext": _GATHER,
    "art.gather.gather_context_var": _GATHER,
    "art.gather.get_gather_context": _GATHER,
    "art.gather.record_metrics": _GATHER,
    "art.gather.set_gather_context": _GATHER,
    "art.gather.wrap_group_awaitable": _GATHER,
    "art.gather.wrap_trajectories_awaitable": _GATHER,
    "art.local.LocalBackend.adapter_lease": _KEPT,
    "art.local.LocalBackend.automatic_gpu_cost_per_hour_usd": _GPU,
    "art.local.LocalBackend.prune_model_adapters": _KEPT,
    "art.local.LocalBackend.supports_automatic_train_step_metrics": _GPU,
    "art.metrics.is_builder_managed_metric": "MetricsBuilder decides on names by itself",
    "art.metrics.is_cumulative_metric_key": "MetricsBuilder decides on names by itself",
    "art.metrics.to_cumulative_metric_key": "MetricsBuilder decides on names by itself",
    "art.pipeline_trainer": _PIPELINE,
    "art.serverless": _HOSTED,
    "art.tinker.OpenAICompatibleTinkerServer": (
        "a model's endpoint is served by model.register(backend), at model.inference_base_url"
    ),
    "art.tinker.get_renderer_name": (
        "conversations are rendered by the tokenizer's own chat template; to use another, set "
        "chat_template in internal_config"
    ),
    "art.tinker_native": "it is art.TinkerBackend(): there is one backend for Tinker servers",
    "art.types.ServerlessTrainResult": _HOSTED,
    "art.types.Verbosity": "art logs by the module logging",
    "art.utils.record_provenance": _WANDB,
    "art.utils.sft.resolve_sft_batch_size": (
        "write art.TrainSFTConfig(…).trajectories_per_batch()"
    ),
    "`art help`": _SKILLS,
    "`art init`": _SKILLS,
    "`art install-skills`": _SKILLS,
    "`art migrate`": "art writes JSON lines from the start, and reads no trajectories of ART",
    "`art run`": _SERVICE,
}

_MODEL_OPTIONS: "Mapping[str, tuple[object, str]]" = {
    "entity": (None, _WANDB),
    "id": (None, _WANDB),
    "report_metrics": (None, _WANDB),
    "run_id": (None, _WANDB),
}
_STEP_OPTIONS: "Mapping[str, tuple[object, str]]" = {
    "adam_params": (None, _ADAM),
    "advantage_balance": (0.0, _NO_ENGINE),
    "allow_training_without_logprobs": (
        False,
        "reinforcement learning needs the sampler's logprobs; to imitate text, use model.train_sft",
    ),
    "epsilon": (None, _CLIP),
    "epsilon_high": (None, _CLIP),
    "grad_accumulation_sequences": (None, _STEP),
    "importance_sampling_level": ("token", "for ratios of whole sequences set loss_fn='gspo'"),
    "kimi_k2_tau": (None, _NO_ENGINE),
    "kl_penalty_reference_step": (None, "the penalty is towards the base model"),
    "kl_ref_adapter_path": (None, "the penalty is towards the base model"),
    "logprob_calculation_chunk_size": (1024, "the engine decides on its own chunks"),
    "mask_prob_ratio": (False, _NO_ENGINE),
    "max_negative_advantage_importance_sampling_weight": (None, _NO_ENGINE),
    "num_trajectories_learning_rate_multiplier_power": (0.0, "set learning_rate for each step"),
    "packed_sequence_length": (None, "the engine packs sequences by itself"),
    "plot_tensors": (False, _NO_ENGINE),
    "precalculate_logprobs": (False, "the sampler's logprobs are used, as it gave them"),
    "save_checkpoint": (True, "every step has a checkpoint: the endpoint serves it"),
    "scale_learning_rate_by_reward_std_dev": (False, "set learning_rate for each step"),
    "scale_rewards": (True, "set normalize_advantages"),
    "truncated_importance_sampling": (None, "loss_fn='cispo' bounds the weight of a token"),
    "verbose": (False, "art logs by the module logging"),
}

# Options of a call, each with the value that says no more than leaving it out.
REFUSED_OPTIONS: "Mapping[str, Mapping[str, tuple[object, str]]]" = {
    "art.Model": _MODEL_OPTIONS,
    "art.TrainableModel": _MODEL_OPTIONS,
    "art.LocalBackend": {
        "gpu_cost_per_hour_usd": (
            None,
            "add costs with model.metrics_builder().add_cost('gpu', …)",
        ),
        "in_process": (False, "the engine is a process of its own, which ends with this one"),
    },
    "art.TinkerBackend": {
        "in_process": (False, "the endpoint runs in this process, and nothing else does"),
    },
    "backend.train": _STEP_OPTIONS,
}


def find_way(name: str) -> str:
    """Find the reason and the way for a name of ART's that is refused; empty for any other."""
    while name:
        if name in REFUSED:
            return REFUSED[name]
        name = name.rpartition(".")[0]
    return ""


def drop_neutral(call: str, options: "Mapping[str, object]") -> dict[str, object]:
    """Leave out options of ART's that say no more than their absence does.

    Args:
        call: A key of ``REFUSED_OPTIONS``.
        options: Options by name.

    Returns:
        The others, unchanged.

    Raises:
        art.errors.ConfigurationError: An option of ART's is refused; says the way.
    """
    refused = REFUSED_OPTIONS[call]
    for name in options.keys() & refused.keys():
        neutral, way = refused[name]
        if options[name] != neutral:
            from art.errors import ConfigurationError

            raise ConfigurationError(f"{name} of {call} has no effect in art: {way}")
    return {name: value for name, value in options.items() if name not in refused}
