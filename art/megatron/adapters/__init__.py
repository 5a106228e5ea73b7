"""Adapters out of models of megatron-core, and into them: PEFT's folders."""
