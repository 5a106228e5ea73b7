"""Tiny random models of several families, in folders that the torch executor loads."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 2,
}
LINEAR_ATTENTION = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SHARED_EXPERT = {"shared_expert_intermediate_size": 32}


class Family(NamedTuple):
    """A family of transformers, by the prefix of its classes.

    Args:
        name: Such as ``"Qwen3"`` of ``Qwen3Config`` and ``Qwen3ForCausalLM``.
        fields: What its config has beside :data:`SMALL`.
        takes_tree_mask: Whether prefixes can be shared.
        tolerance: How far its kernels for one token and for many are apart.
        registered: The key of its family in the registry of model support.
        text: What the config's name has between prefix and ``Config``.
    """

    name: str
    fields: dict[str, Any]
    takes_tree_mask: bool
    tolerance: float = 2e-5
    registered: str | None = None
    text: str = ""


# Windows shorter than the tests' sequences, so that a wrong mask shows. Of Qwen3Moe's layers the
# first is dense, as `gate_proj` and its kin of the registry are.
FAMILIES = [
    Family("Mistral", {"sliding_window": 8}, False),
    Family("Gemma2", {"sliding_window": 8}, False),
    Family("Qwen3Next", LINEAR_ATTENTION | EXPERTS | SHARED_EXPERT, False, 5e-4),
    Family("Mixtral", {"num_local_experts": 4, "sliding_window": None}, True),
    Family("Llama", {}, True, registered="llama3_dense"),
    Family("Qwen3", {}, True, registered="qwen3_dense"),
    Family("Qwen3Moe", EXPERTS | {"mlp_only_layers": [0]}, True, registered="qwen3_moe"),
    Family("Qwen3_5", LINEAR_ATTENTION, False, 5e-4, "qwen3_5_dense", "Text"),
    Family(
        "Qwen3_5Moe",
        LINEAR_ATTENTION | EXPERTS | SHARED_EXPERT,
        False,
        5e-4,
        "qwen3_5_moe",
        "Text",
    ),
    Family("GptOss", {"num_local_experts": 4, "sliding_window": 8}, False, 5e-5, "gpt_oss"),
]


def save_family(family: Family, tiny_model: Path, folder: Path) -> Path:
    """Save a tiny model with random weights, and the tiny model's tokenizer."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = getattr(transformers, f"{family.name}{family.text}Config")(
        **SMALL, **family.fields, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family.name}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
