"""Construction of the part of a ``GPTModel`` that this rank holds, from an architecture.

Axes: S positions, B sequences of a batch, V vocabulary; v is this rank's part of the vocabulary.
"""

from collections.abc import Mapping

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor, nn

from art.errors import ConfigurationError

from .architecture import Architecture
from .layer_spec import decoder_spec


def transformer_config(
    architecture: Architecture, *, dtype: torch.dtype, sequence_parallel: bool = False
) -> TransformerConfig:
    """Make megatron's config of a model, for the parallelism that ``parallel_state`` has.

    Args:
        architecture: The model.
        dtype: The dtype of weights and activations: float32, bfloat16 or float16.
        sequence_parallel: True to shard the sequence over the tensor-parallel ranks between the
            matrix products.

    Returns:
        Megatron's config.

    Raises:
        ConfigurationError: The model cannot be sharded over these ranks, or the dtype is not
            supported.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ConfigurationError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
    sizes = {
        "tensor": parallel_state.get_tensor_model_parallel_world_size(),
        "pipeline": parallel_state.get_pipeline_model_parallel_world_size(),
        "expert": parallel_state.get_expert_model_parallel_world_size(),
        "expert tensor": parallel_state.get_expert_tensor_parallel_world_size(),
    }
    if parallel_state.get_context_parallel_world_size() > 1:
        raise ConfigurationError("context parallelism is not supported: its size must be 1")
    _check_divisible(architecture, sizes)
    has_cuda = torch.cuda.is_available()
    scale = architecture.rope.score_scale / architecture.transformer["kv_channels"] ** 0.5
    return TransformerConfig(
        **architecture.transformer,
        normalization="RMSNorm",
        gated_linear_unit=True,
        softmax_scale=scale,
        hidden_dropout=0.0,
        tensor_model_parallel_size=sizes["tensor"],
        pipeline_model_parallel_size=sizes["pipeline"],
        expert_model_parallel_size=sizes["expert"],
        expert_tensor_parallel_size=sizes["expert tensor"],
        # With expert tensor parallelism each rank must see all tokens of its experts: alltoall
        # would gather them in unequal parts, which gloo cannot do.
        moe_token_dispatcher_type="allgather" if sizes["expert tensor"] > 1 else "alltoall",
        sequence_parallel=sequence_parallel and sizes["tensor"] > 1,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu_initialization=not has_cuda,
        batch_p2p_comm=has_cuda,
        # A checkpoint fills the weights.
        perform_initialization=False,
        transformer_impl="local",
    )


def build_model(architecture: Architecture, config: TransformerConfig) -> GPTModel:
    """Build this rank's part of a model. Its weights are not initialised.

    The logits of the rows that pad the vocabulary are the dtype's lowest number, so that a softmax
    gives them no probability.

    Args:
        architecture: The model.
        config: Its config, made by :func:`transformer_config`.

    Returns:
        The model, on this rank's device.
    """
    tensor = config.tensor_model_parallel_size
    model = GPTModel(
        config=config,
        transformer_layer_spec=decoder_spec(config),
        vocab_size=padded_vocab_size(architecture.vocab_size, tensor),
        max_sequence_length=architecture.max_sequence_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=architecture.tied_embeddings,
        position_embedding_type="rope",
    )
    # Megatron's own scaling hard-codes all of Llama 3.1's constants but one.
    model.rotary_pos_emb.inv_freq = architecture.rope.inverse_frequencies()
    if torch.cuda.is_available():
        # Megatron always makes routers and the gates of shared experts on the CPU.
        model.cuda(torch.cuda.current_device())
    if model.post_process:
        _silence_padding(model, architecture.vocab_size, tensor)
    return model


def padded_vocab_size(vocab_size: int, tensor_parallel: int) -> int:
    """Round a vocabulary up to a whole number of rows for each tensor-parallel rank."""
    return -(-vocab_size // tensor_parallel) * tensor_parallel


def _silence_padding(model: GPTModel, vocab_size: int, tensor: int) -> None:
    rows = padded_vocab_size(vocab_size, tensor) // tensor
    first = parallel_state.get_tensor_model_parallel_rank() * rows

    def silence(layer: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor | None]) -> None:
        logits_SBv = outputs[0]
        # This rank's part of the vocabulary, or all of it if the caller had it gathered.
        real = max(0, vocab_size - first) if logits_SBv.shape[-1] == rows else vocab_size
        # In place: logits are the largest tensor of a step. Finite, so that 0 * log(0) stays 0.
        logits_SBv[..., real:] = torch.finfo(logits_SBv.dtype).min

    if rows * tensor != vocab_size:
        model.output_layer.register_forward_hook(silence)


# Each field by megatron's name and by Hugging Face's, and the parallelism that must divide it.
_SHARDED = (
    ("num_layers", "num_hidden_layers", "pipeline"),
    ("num_moe_experts", "num_experts", "expert"),
    ("moe_ffn_hidden_size", "moe_intermediate_size", "expert tensor"),
    ("num_attention_heads", "num_attention_heads", "tensor"),
    ("num_query_groups", "num_key_value_heads", "tensor"),
    ("ffn_hidden_size", "intermediate_size", "tensor"),
    ("moe_shared_expert_intermediate_size", "shared_expert_intermediate_size", "tensor"),
    ("linear_num_key_heads", "linear_num_key_heads", "tensor"),
    ("linear_num_value_heads", "linear_num_value_heads", "tensor"),
)


def _check_divisible(architecture: Architecture, sizes: Mapping[str, int]) -> None:
    transformer = architecture.transformer
    if sizes["expert"] > 1 and not transformer.get("num_moe_experts"):
        raise ConfigurationError(
            f"expert parallelism is {sizes['expert']}, but the model has no routed experts"
        )
    biased_experts = transformer["add_bias_linear"] and transformer.get("num_moe_experts")
    if sizes["expert tensor"] > 1 and biased_experts:
        # Megatron refuses this too: each rank of an expert would add the whole bias.
        raise ConfigurationError(
            f"expert tensor parallelism is {sizes['expert tensor']}, but experts with biases "
            "cannot be sharded: it must be 1"
        )
    for name, hf_name, parallelism in _SHARDED:
        value = transformer.get(name)
        if value is not None and value % sizes[parallelism]:
            raise ConfigurationError(
                f"{hf_name}={value} cannot be sharded evenly: {parallelism} parallelism is "
                f"{sizes[parallelism]}, which does not divide it"
            )
