from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlock

class GPTModel(MegatronModule):
    decoder: TransformerBlock
