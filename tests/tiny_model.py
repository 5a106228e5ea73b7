"""A tiny random Llama with SmolLM2's real tokenizer and chat template."""

import hashlib
import shutil
import tempfile
from pathlib import Path


def cached(cache: Path) -> Path | None:
    """Make the model once.

    Args:
        cache: The folder to keep it in.

    Returns:
        The model's folder, or ``None`` where the tokenizer's package is not installed.
    """
    from art.executors import base_models, gguf_weights

    gguf_file = base_models.packaged_gguf("HuggingFaceTB/SmolLM2-135M-Instruct")
    if gguf_file is None:
        return None
    code = Path(__file__).read_bytes() + Path(gguf_weights.__file__).read_bytes()
    folder = cache / hashlib.sha256(code).hexdigest()[:16]
    if not (folder / "config.json").is_file():
        temporary = Path(tempfile.mkdtemp(dir=cache))
        _save(temporary, gguf_file)
        try:
            temporary.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(temporary)
    return folder


def _save(folder: Path, gguf_file: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from art.executors.gguf_weights import tokenizer_from_gguf

    tokenizer = tokenizer_from_gguf(gguf_file)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # Wider than usual, so that a random model's distribution is far from uniform.
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
