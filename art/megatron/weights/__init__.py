"""Loading of Hugging Face checkpoints into megatron models, and saving of them."""
