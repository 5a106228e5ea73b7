"""Models of megatron-core, built from Hugging Face configs."""
