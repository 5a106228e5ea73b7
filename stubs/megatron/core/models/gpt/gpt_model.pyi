from typing import Literal

from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlock,
    TransformerBlockSubmodules,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn

class GPTModel(MegatronModule):
    pre_process: bool
    post_process: bool
    rotary_pos_emb: RotaryEmbedding
    decoder: TransformerBlock
    output_layer: nn.Module

    def __init__(
        self,
        config: TransformerConfig,
        # Upstream says ModuleSpec, and takes either.
        transformer_layer_spec: ModuleSpec | TransformerBlockSubmodules,
        vocab_size: int,
        max_sequence_length: int,
        pre_process: bool = True,
        post_process: bool = True,
        *,
        share_embeddings_and_output_weights: bool = False,
        position_embedding_type: Literal[
            "learned_absolute", "rope", "mrope", "yarn", "none"
        ] = "learned_absolute",
    ) -> None: ...
    def setup_embeddings_and_output_layer(self) -> None: ...
