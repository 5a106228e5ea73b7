"""Export and import of the adapters of megatron models, as PEFT folders."""
