"""The base model in memory: hidden states of packed rows, and logprobs from hidden states.

Shapes: B rows, N tokens of a row, C columns of the cache with the N new ones, D hidden size,
V vocabulary, M hidden states, L targets.
"""

import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from art.errors import ConfigurationError, UnknownBaseModelError
from art.executors.packing import Pass, Row, one_row_each, pack, passes
from art.executors.torch.grammars import GrammarCompiler
from art.executors.types import IntArray

logger = logging.getLogger(__name__)

# Logits held at once, in elements: 256 MiB in float32.
_MAX_LOGITS = 2**26

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class LanguageModel:
    """A causal language model of ``transformers`` on one device.

    Args:
        folder: What ``from_pretrained`` loads.
        device: ``"auto"`` is CUDA, else MPS, else the CPU; otherwise a device of torch.
        dtype: ``"auto"`` is bfloat16 on CUDA, else float32; otherwise one of torch's names.
        max_tokens_per_pass: Most tokens in one forward pass of several sequences, which bounds
            the memory of activations. ``None`` is 8192 on CUDA, else 2048.

    Raises:
        ConfigurationError: The device or dtype is unknown.
        UnknownBaseModelError: The folder cannot be loaded, or the model computes its logits in a
            way that is not supported.
    """

    def __init__(
        self, folder: Path, *, device: str, dtype: str, max_tokens_per_pass: int | None
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder = folder
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype)
        except (OSError, ValueError) as error:
            raise UnknownBaseModelError(
                f"cannot load a causal language model from {folder}: {error}"
            ) from error
        self.model: Any = model.to(self.device).eval().requires_grad_(False)
        self.config: Any = model.config.get_text_config()
        self.vocab_size: int = model.get_input_embeddings().num_embeddings
        self.grammars = GrammarCompiler(self.tokenizer, self.vocab_size)
        self.max_context_length: int = self.config.max_position_embeddings
        self.eos_token_ids = _eos_token_ids(model, self.tokenizer)
        self.max_tokens_per_pass = max_tokens_per_pass or (
            8192 if self.device.type == "cuda" else 2048
        )
        self.takes_tree_mask = _takes_tree_mask(model, self.config)
        self._tokens_per_attention = _tokens_per_attention(model, self.config)
        self._check_head()

    def passes(self, sequences: list[IntArray]) -> list[Pass]:
        """Plan the passes that compute every token of ``sequences``, shared prefixes once."""
        rows: list[Row] = (
            pack(
                sequences,
                max_tokens=self.max_tokens_per_pass,
                tokens_per_attention=self._tokens_per_attention,
            )
            if self.takes_tree_mask
            else one_row_each(sequences)
        )
        return passes(rows, max_tokens=self.max_tokens_per_pass, device=self.device)

    def hidden_states(self, step: Pass, cache: Any = None) -> torch.Tensor:
        """Run a pass.

        Args:
            step: What to run.
            cache: An empty cache of ``transformers`` to fill, or ``None``.

        Returns:
            The last layer's output after its norm, ``[B * N, D]``.
        """
        return self.decode(step.input_ids, step.position_ids, step.mask, cache).flatten(0, 1)

    def decode(
        self,
        input_ids_BN: torch.Tensor,
        position_ids_BN: torch.Tensor | None,
        mask_B1NC: torch.Tensor | None,
        cache: Any,
    ) -> torch.Tensor:
        """Run the decoder.

        Args:
            input_ids_BN: Token ids, int64.
            position_ids_BN: Their positions; ``None`` counts on from the cache.
            mask_B1NC: bool, True where a token attends to a column, the cached ones first;
                ``None`` is causal attention.
            cache: A cache of ``transformers``, which grows by the ``N`` tokens, or ``None``.

        Returns:
            Hidden states after the last norm, ``[B, N, D]``.
        """
        mask = mask_B1NC
        if mask is not None and self.config._attn_implementation == "eager":
            # Eager attention adds its mask to the scores.
            minimum = torch.finfo(self.dtype).min
            mask = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(
                ~mask, minimum
            )
        output = self.model.base_model(
            input_ids=input_ids_BN,
            position_ids=position_ids_BN,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def logits(self, hidden_MD: torch.Tensor) -> torch.Tensor:
        """Compute logits ``[M, V]``, float32, from hidden states."""
        logits_MV = self.model.get_output_embeddings()(hidden_MD).float()
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits_MV if cap is None else torch.tanh(logits_MV / cap) * cap

    def token_logprobs(
        self, hidden_MD: torch.Tensor, rows_L: torch.Tensor, targets_L: torch.Tensor
    ) -> torch.Tensor:
        """Compute the logprobs of given tokens, without holding all logits at once.

        Args:
            hidden_MD: Hidden states.
            rows_L: int64, ascending: the hidden state that predicts each target.
            targets_L: int64, token ids.

        Returns:
            float32 ``[L]``, the log softmax of the logits at each target.
        """
        # 1. Cut the hidden states into chunks whose logits fit, and find each chunk's targets:
        # since the rows ascend, they lie between two bounds.
        chunk = max(1, _MAX_LOGITS // self.vocab_size)
        starts = list(range(0, len(hidden_MD), chunk))
        bounds = torch.searchsorted(
            rows_L, torch.tensor([*starts, len(hidden_MD)], device=rows_L.device)
        ).tolist()
        parts = []
        for i, start in enumerate(starts):
            span = slice(bounds[i], bounds[i + 1])
            arguments = (hidden_MD[start : start + chunk], rows_L[span] - start, targets_L[span])
            # 2. Of each chunk's logits keep one number a target.
            if torch.is_grad_enabled() and len(starts) > 1:
                # Logits are computed again for the backward pass, so only one chunk is held.
                parts.append(checkpoint(self._chunk_logprobs, *arguments, use_reentrant=False))
            else:
                parts.append(self._chunk_logprobs(*arguments))
        return torch.cat(parts) if parts else hidden_MD.new_zeros(0, dtype=torch.float32)

    def topk_logprobs(self, hidden_MD: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the ``k`` most likely tokens: ids int64 ``[M, k]``, logprobs float32 ``[M, k]``."""
        chunk = max(1, _MAX_LOGITS // self.vocab_size)
        ids, logprobs = [], []
        for part in hidden_MD.split(chunk):
            top = torch.log_softmax(self.logits(part), dim=-1).topk(k, dim=-1)
            ids.append(top.indices)
            logprobs.append(top.values)
        return torch.cat(ids), torch.cat(logprobs)

    def check_tokens(self, tokens: IntArray, what: str, error: type[Exception]) -> None:
        """Raise ``error`` unless ``tokens`` is a non-empty array of ids of the vocabulary."""
        if tokens.size == 0:
            raise error(f"{what} has no tokens; it needs at least one")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise error(
                f"{what} has token id {wrong}, outside the vocabulary of {self.vocab_size}; "
                "was it made with another model's tokenizer?"
            )

    def _chunk_logprobs(
        self, hidden_MD: torch.Tensor, rows_L: torch.Tensor, targets_L: torch.Tensor
    ) -> torch.Tensor:
        logits_MV = self.logits(hidden_MD)
        return logits_MV[rows_L, targets_L] - torch.logsumexp(logits_MV, dim=-1)[rows_L]

    @torch.no_grad()
    def _check_head(self) -> None:
        # Some models scale or cap their logits after the output layer. Ask the model itself once.
        ids = torch.arange(4, device=self.device)[None] % self.vocab_size
        expected = self.model(input_ids=ids, use_cache=False).logits[0].float()
        actual = self.logits(self.decode(ids, None, None, None)[0])
        if not torch.allclose(actual, expected, rtol=1e-3, atol=1e-3):
            raise UnknownBaseModelError(
                f"{type(self.model).__name__} changes its logits after the output layer in a way "
                "that art's engine does not know; training it would be wrong"
            )


def _eos_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Collect the tokens that end a turn: the tokenizer's, and those that ``generate`` stops at."""
    configured = model.generation_config.eos_token_id if model.can_generate() else None
    listed = configured if isinstance(configured, list) else [configured]
    return tuple(sorted({ids for ids in [tokenizer.eos_token_id, *listed] if ids is not None}))


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ConfigurationError(
                f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'mps'"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise ConfigurationError(f"unknown dtype {name!r}; use 'auto' or one of {sorted(_DTYPES)}")
    return _DTYPES[name]


def _takes_tree_mask(model: Any, config: Any) -> bool:
    """Tell whether attention alone mixes tokens, over the whole context, by given positions."""
    reason = None
    layer_types: Iterable[str] = getattr(config, "layer_types", None) or ()
    unlike = sorted({kind for kind in layer_types if kind != "full_attention"})
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    if unlike:
        reason = f"it has {', '.join(unlike)} layers"
    elif windowed and not layer_types:
        reason = f"its attention sees a window of {config.sliding_window} tokens"
    elif getattr(model, "_is_stateful", False):
        reason = "it is recurrent"
    elif "position_ids" not in inspect.signature(model.forward).parameters:
        reason = "it does not take positions"
    elif getattr(config, "rope_parameters", None) is None:
        reason = "its positions are not rotary"
    if reason is not None:
        logger.warning(
            "%s cannot share prefixes (%s): every sequence is computed in full",
            type(model).__name__,
            reason,
        )
    return reason is None


def _tokens_per_attention(model: Any, config: Any) -> float:
    # Per token, each weight is one multiplication; per pair of tokens, attention multiplies twice
    # over the heads' width.
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = (
        sum(parameter.numel() for parameter in model.base_model.parameters() if parameter.dim() > 1)
        - model.get_input_embeddings().weight.numel()
    )
    pair = 2 * config.num_hidden_layers * config.num_attention_heads * head_dim
    return float(max(1, weights) / pair)
