"""Qwen2.5 for art's megatron engine."""
