"""From one GGUF file to a folder that ``transformers`` loads: config, weights and tokenizer.

``transformers`` dequantises the weights. The tokenizer is built here from the file's own metadata,
because ``transformers`` takes every ``llama`` GGUF for a SentencePiece model: a byte-level BPE
vocabulary then gets CodeLlama's rules, a second BOS and the wrong EOS.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from art.errors import UnknownBaseModelError

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Called with a stage (``"reading"``) and the fraction done of the whole, from 0 to 1."""

# `tokenizer.ggml.token_type` of a control token (GGUF specification, "ggml tokenizer").
_CONTROL_TOKEN = 3

# Pre-tokenizers that split off single digits before GPT-2's rule, by llama.cpp's name for them.
_SINGLE_DIGITS_BY_PRE = {"smollm": True, "gpt-2": False}


def save_gguf_as_folder(gguf_file: Path, folder: Path, progress: Progress | None = None) -> None:
    """Dequantise a GGUF model and save it as a ``transformers`` folder, with its tokenizer.

    Args:
        gguf_file: A ``llama`` architecture model with a byte-level BPE vocabulary.
        folder: Where to write ``config.json``, ``model.safetensors`` (float32) and the tokenizer.
            It exists; the caller makes the write atomic.
        progress: Told each stage and the fraction done.

    Raises:
        UnknownBaseModelError: The file's tokenizer is of a kind that is not read here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tell = progress or (lambda stage, fraction: None)
    tell("reading the tokenizer", 0.0)
    tokenizer = tokenizer_from_gguf(gguf_file)
    tell("dequantising the weights", 0.1)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    # Marked as quantised, `loaded` refuses to be saved; the same weights in a plain model do not.
    del loaded.config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(loaded.config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    # The converter's defaults are Llama's ids; the file's metadata knows better.
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    tell("saving", 0.9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tell("saved", 1.0)


def tokenizer_from_gguf(gguf_file: Path) -> Any:
    """Build the fast tokenizer that a GGUF file describes.

    Args:
        gguf_file: Any GGUF file whose ``tokenizer.ggml.model`` is ``gpt2`` (byte-level BPE).

    Returns:
        A ``PreTrainedTokenizerFast`` with the file's special tokens and chat template. It adds no
        BOS by itself: the template places what is needed.

    Raises:
        UnknownBaseModelError: The vocabulary is not byte-level BPE, or its splitting rule is not
            known here.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    reader = GGUFReader(gguf_file)
    fields = {
        name.removeprefix("tokenizer."): field.contents()
        for name, field in reader.fields.items()
        if name.startswith("tokenizer.")
    }
    backend: Tokenizer = _byte_level_bpe(gguf_file, fields)
    tokens = fields["ggml.tokens"]

    def special(name: str) -> str | None:
        token_id = fields.get(f"ggml.{name}_token_id")
        return None if token_id is None else tokens[token_id]

    context_length = next(
        (f.contents() for n, f in reader.fields.items() if n.endswith(".context_length")), None
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=fields.get("chat_template"),
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )


def _byte_level_bpe(gguf_file: Path, fields: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, pre = fields.get("ggml.model"), fields.get("ggml.pre")
    if kind != "gpt2" or pre not in _SINGLE_DIGITS_BY_PRE:
        raise UnknownBaseModelError(
            f"{gguf_file.name} has a {kind!r} tokenizer with the {pre!r} splitting rule; only "
            f"'gpt2' with one of {sorted(_SINGLE_DIGITS_BY_PRE)} is read. Use the model's own "
            "folder from the Hugging Face hub instead of its GGUF file."
        )
    tokens = fields["ggml.tokens"]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in fields["ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if _SINGLE_DIGITS_BY_PRE[pre]
        else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, fields["ggml.token_type"], strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return tokenizer
