"""LoRA adapters (arXiv 2106.09685) in models of megatron-core."""
