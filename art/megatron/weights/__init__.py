"""Weights: Hugging Face checkpoints into megatron models, and back out of them."""
