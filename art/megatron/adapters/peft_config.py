"""PEFT's ``adapter_config.json``."""

from collections.abc import Iterable, Mapping
from typing import Any

from art.errors import AdapterFormatError
from art.megatron.lora.config import MegatronLoraConfig
from art.megatron.model_support.vllm_lora import is_fused

# The values with which an adapter is a plain product of B and A. Other options must be empty.
_PLAIN: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Others (PiSSA, say) also change the base model.
    "init_lora_weights": (True, False, "gaussian"),
}
_WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
)
_FUSED = r".*\.gate_up_proj"


def keeps_gate_and_up_apart(found: Mapping[str, Any]) -> bool:
    """Test whether fused experts keep the A of gate and up apart, one above the other."""
    return bool(found.get("rank_pattern"))


def write_config(
    config: MegatronLoraConfig, base_model: str, tensors: Iterable[str]
) -> dict[str, Any]:
    """Make PEFT's config of an adapter.

    Args:
        config: The adapter's config.
        base_model: The base model's name or path.
        tensors: The names of the adapter's tensors.

    Returns:
        The content of ``adapter_config.json``.
    """
    modules = {name.rpartition(".lora_")[0]: None for name in tensors}
    fused = [module for module in modules if is_fused(module)]
    names = {module.rpartition(".")[2]: None for module in modules if module not in fused}
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"] if fused else []
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(names),
        "target_parameters": parameters + _dense_weights_beside_experts(modules) or None,
        "inference_mode": True,
    }


def _dense_weights_beside_experts(modules: Iterable[str]) -> list[str]:
    """List the weights that PEFT would overlook in a model with experts.

    In ``target_modules`` PEFT takes a name of experts for that of their fused parameter, and skips
    dense MLPs of the same name. It finds those by the names of their weights.
    """
    paths = [module.split(".") for module in modules]
    expert_names = {path[-1] for path in paths if "experts" in path}
    dense = {f"{path[-2]}.{path[-1]}.weight": None for path in paths if "experts" not in path}
    return [name for name in dense if name.split(".")[1] in expert_names]


def check_config(found: Mapping[str, Any], config: MegatronLoraConfig, base_model: str) -> None:
    """Compare PEFT's config of an adapter with the adapter of a model.

    Args:
        found: The content of ``adapter_config.json``.
        config: The config of the model's adapter.
        base_model: The base model's name or path.

    Raises:
        AdapterFormatError: The adapter is of another base model, rank or alpha, or is more than
            a plain LoRA adapter.
    """
    base = found.get("base_model_name_or_path")
    # PEFT leaves it empty for a model that was not loaded from a file. Shapes are still compared.
    if base and base != base_model:
        raise AdapterFormatError(f"the adapter is of {base!r}, but the model is {base_model!r}")
    for key, name, expected in (("r", "rank", config.rank), ("lora_alpha", "alpha", config.alpha)):
        if found.get(key) != expected:
            raise AdapterFormatError(
                f"the adapter has {name} {found.get(key)!r} (its config's {key}), but the model "
                f"has an adapter of {name} {expected}"
            )
    _check_patterns(found, config)
    read = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", *_WITHOUT_EFFECT}
    for key in found.keys() - read:
        plain = found[key] in _PLAIN[key] if key in _PLAIN else not found[key]
        if not plain:
            raise AdapterFormatError(
                f"the adapter config's {key}={found[key]!r} is not supported: only plain LoRA "
                "adapters can be loaded"
            )


def _check_patterns(found: Mapping[str, Any], config: MegatronLoraConfig) -> None:
    # PEFT doubles both where it fuses adapters of gate_proj and up_proj.
    expected = {"rank_pattern": 2 * config.rank, "alpha_pattern": 2 * config.alpha}
    for key, doubled in expected.items():
        pattern = found.get(key) or {}
        if pattern not in ({}, {_FUSED: doubled}):
            raise AdapterFormatError(
                f"the adapter config's {key}={pattern!r} gives modules a rank or alpha of their "
                "own; all modules must have the same"
            )
    if bool(found.get("rank_pattern")) != bool(found.get("alpha_pattern")):
        raise AdapterFormatError(
            "the adapter config has only one of rank_pattern and alpha_pattern, so the gate and up "
            "of experts are not scaled like the other modules"
        )
