"""LoRA adapters (arXiv 2106.09685) inside models of megatron-core."""
