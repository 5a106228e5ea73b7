"""LoRA numbers that client and engine agree on, since the wire does not carry them."""

LORA_ALPHA = 32.0
"""Scale of every adapter, at any rank: the published recipe of the Tinker service."""
