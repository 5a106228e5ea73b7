"""Many sampling requests, advanced together one token a step.

Shapes: B rows of a batch, R rows among them, K most likely tokens, V vocabulary, D hidden size.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import psutil
import torch

from art.errors import EngineError, InvalidRequestError
from art.executors.torch.decoding import Decoder, EqualLengthDecoder, SharedPrefixDecoder
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.sample_requests import RunningRequest, Sample, check_request
from art.executors.torch.token_choice import choose_tokens
from art.executors.torch.turns import Turn
from art.executors.types import EndedRequest, SampleRequest

logger = logging.getLogger(__name__)

# Each batch costs a pass a step, so there are few; but there are several, so that short
# completions do not wait for the end of a long one that began before them.
_MAX_BATCHES = 4
# The most logits of a batch: what draws from them holds a few copies, up to 1 GiB in all.
_MAX_LOGITS = 2**25


class BatchSampler:
    """Samples from a language model with any adapter. One thread calls all methods.

    Args:
        language_model: What to sample from.
        turn: Holds the model with an adapter active.
        max_cached_tokens: Most tokens, of all rows together, in the caches; more rows wait.
            ``None`` is what fits into a quarter of the device's memory.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        turn: Callable[[str | None], AbstractContextManager[None]],
        max_cached_tokens: int | None,
    ) -> None:
        self._language_model = language_model
        self._turn = turn
        self._max_cached_tokens = max_cached_tokens or _quarter_of_memory(language_model)
        self._max_rows = max(1, _MAX_LOGITS // language_model.vocab_size)
        self._requests: dict[str, RunningRequest] = {}
        self._waiting: deque[Sample] = deque()
        self._batches: list[_Batch] = []

    def submit(self, request_id: str, request: SampleRequest) -> None:
        """Take a request on. Nothing is computed before the next :meth:`step`.

        Raises:
            InvalidRequestError: A token or a parameter cannot be used, or the id is taken.
            ContextLengthError: The prompt leaves no room in the context.
        """
        if request_id in self._requests:
            raise InvalidRequestError(f"there is a request {request_id!r} already")
        check_request(request, self._language_model)
        running = RunningRequest(request_id, request, self._language_model)
        self._requests[request_id] = running
        self._waiting.extend(running.samples)

    def cancel(self, request_id: str) -> None:
        """Drop a request, running or not; one that is not there is no error."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.cancelled = True
            self._forget_ended()

    def step(self) -> list[EndedRequest]:
        """Advance every batch by one token, and hand over the requests that ended.

        Requests that wait form batches first, as far as there is room for them.
        """
        self._start_batches()
        for batch in self._batches:
            try:
                with torch.no_grad():
                    batch.advance()
            except Exception as error:
                logger.exception("sampling failed in a batch of %d sequences", len(batch.samples))
                batch.fail(error)
        ended = [request for request in self._requests.values() if not request.unfinished]
        for request in ended:
            del self._requests[request.request_id]
        self._forget_ended()
        return [
            EndedRequest(request_id=request.request_id, outcome=request.outcome)
            for request in ended
            if request.outcome is not None
        ]

    def _forget_ended(self) -> None:
        """Forget rows that wait for a request that has ended, and batches without a live row."""
        self._waiting = deque(sample for sample in self._waiting if sample.goes_on)
        self._batches = [
            batch for batch in self._batches if any(sample.goes_on for sample in batch.samples)
        ]

    def _start_batches(self) -> None:
        while self._waiting:
            if len(self._batches) >= _MAX_BATCHES and not self._join_batches():
                return
            samples = self._next_batch()
            if not samples:
                return
            chosen = set(samples)
            self._waiting = deque(sample for sample in self._waiting if sample not in chosen)
            turn = partial(self._turn, samples[0].request.request.adapter_id)
            self._batches.append(_Batch(self._language_model, turn, samples))

    def _join_batches(self) -> bool:
        """Make one batch of two that run with the same adapter, if there are such that fit.

        Rows of different lengths then share one cache, whose padding costs memory and attention;
        so it is done only where a batch too many would be the alternative.
        """
        room = self._max_cached_tokens - sum(batch.cached_tokens for batch in self._batches)
        for index, batch in enumerate(self._batches):
            for other in self._batches[index + 1 :]:
                if len(batch.samples) + len(other.samples) > self._max_rows:
                    continue
                added = batch.joined_cached_tokens(other)
                if added is not None and added <= room + batch.cached_tokens + other.cached_tokens:
                    batch.absorb(other)
                    self._batches.remove(other)
                    return True
        return False

    def _next_batch(self) -> list[Sample]:
        """Choose the rows of the next batch: those of the first row's adapter that fit.

        None overtakes another of the same adapter, so a large one does not wait for ever. Where
        nothing runs, the first is taken on whatever its size.
        """
        model, first = self._language_model, self._waiting[0]
        room = self._max_cached_tokens - sum(batch.cached_tokens for batch in self._batches)
        chosen: list[Sample] = []
        widest_prompt = most_tokens = 0
        for sample in self._waiting:
            if len(chosen) == self._max_rows:
                break
            if sample.request.request.adapter_id != first.request.request.adapter_id:
                continue
            count = len(chosen) + 1
            if not model.takes_tree_mask:
                # No padding: the batch is of one prompt length, and is computed as one pass.
                if len(sample.prompt) != len(first.prompt):
                    continue
                if chosen and count * len(first.prompt) > model.max_tokens_per_pass:
                    break
            widest_prompt = max(widest_prompt, len(sample.prompt))
            most_tokens = max(most_tokens, sample.max_tokens)
            fits = count * (widest_prompt + most_tokens) <= room
            if not fits and (chosen or self._batches):
                break
            chosen.append(sample)
        return chosen


class _Batch:
    """Rows that are computed together, each a sample of some request with the same adapter.

    Args:
        language_model: What to sample from.
        turn: Holds the model with the adapter of all rows active.
        samples: The rows.
    """

    def __init__(
        self, language_model: LanguageModel, turn: Turn, samples: Sequence[Sample]
    ) -> None:
        self._language_model = language_model
        self._turn = turn
        self.adapter_id = samples[0].request.request.adapter_id
        self.samples = list(samples)
        self._decoder: Decoder | None = None
        # int64 [B], drawn but not yet computed with.
        self._tokens_B = torch.empty(0, dtype=torch.int64)
        # Columns of the cache: those in use, and the most that there will be.
        self._width = max(len(sample.prompt) for sample in samples)
        self._columns = self._width + max(sample.max_tokens for sample in samples)
        self._all_rows = len(self.samples)

    @property
    def cached_tokens(self) -> int:
        """The most tokens that its cache will hold."""
        shrinks = self._language_model.takes_tree_mask
        return self._columns * (len(self.samples) if shrinks else self._all_rows)

    def advance(self) -> None:
        """Sample one token for every row, and end the samples, and requests, that it ends.

        Raises:
            Exception: Whatever a pass of the model raised.
        """
        self._drop_ended()
        if not self.samples:
            return
        if self._decoder is None:
            self._decoder = self._prefill()
            with self._turn():
                self._draw(self._decoder.last_hidden_BD)
        else:
            # A turn is one forward pass, the output layer and the choice of tokens included.
            with self._turn():
                self._decoder.step(self._tokens_B)
                self._width += 1
                self._draw(self._decoder.last_hidden_BD)
        for sample in self.samples:
            if sample.goes_on:
                self._note_token(sample)

    def joined_cached_tokens(self, other: "_Batch") -> int | None:
        """Count :attr:`cached_tokens` after :meth:`absorb`; ``None`` if they cannot be joined."""
        decoders = (self._decoder, other._decoder)
        if self.adapter_id != other.adapter_id or not all(
            isinstance(decoder, SharedPrefixDecoder) for decoder in decoders
        ):
            return None
        return self._joined_columns(other) * (len(self.samples) + len(other.samples))

    def absorb(self, other: "_Batch") -> None:
        """Take another's rows in, after those that have ended are dropped from both."""
        self._drop_ended()
        other._drop_ended()
        assert isinstance(self._decoder, SharedPrefixDecoder)
        assert isinstance(other._decoder, SharedPrefixDecoder)
        self._columns = self._joined_columns(other)
        self._width = max(self._width, other._width)
        self._decoder.absorb(other._decoder)
        self._tokens_B = torch.cat([self._tokens_B, other._tokens_B])
        self.samples += other.samples

    def _joined_columns(self, other: "_Batch") -> int:
        # Every row goes on at the width of the wider.
        left = max(s.max_tokens - len(s.tokens) for s in [*self.samples, *other.samples])
        return max(self._width, other._width) + left

    def fail(self, error: Exception) -> None:
        """End the requests of all rows with an error that a pass raised, and free the cache."""
        # The traceback holds the tensors of the pass that failed.
        error.with_traceback(None)
        for sample in self.samples:
            if sample.request.unfinished:
                failure = EngineError(f"sampling failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                sample.request.fail(failure)
        self.samples, self._decoder = [], None

    def _drop_ended(self) -> None:
        """Take rows that ended, failed or were cancelled out of the cache."""
        going = [row for row, sample in enumerate(self.samples) if sample.goes_on]
        if len(going) == len(self.samples):
            return
        self.samples = [self.samples[row] for row in going]
        if self._decoder is not None and going:
            rows = torch.tensor(going, device=self._tokens_B.device)
            self._tokens_B = self._tokens_B[rows]
            self._decoder.keep(rows)

    def _prefill(self) -> Decoder:
        """Compute the prompts, each distinct one once, and the prompt logprobs asked for."""
        numbers: dict[bytes, int] = {}
        prompt_of_row = [
            numbers.setdefault(sample.prompt.tobytes(), len(numbers)) for sample in self.samples
        ]
        prompts = dict(zip(prompt_of_row, (s.prompt for s in self.samples), strict=True))
        asking = {
            sample.request: number
            for number, sample in zip(prompt_of_row, self.samples, strict=True)
            if sample.request.wants_prompt
        }
        make = SharedPrefixDecoder if self._language_model.takes_tree_mask else EqualLengthDecoder
        decoder: Decoder = make(
            self._language_model,
            self._turn,
            [prompts[number] for number in range(len(prompts))],
            prompt_of_row,
            set(asking.values()),
        )
        for request, number in asking.items():
            with self._turn():
                request.fill_prompt(self._language_model, decoder.prompt_hidden[number])
        decoder.prompt_hidden.clear()
        return decoder

    def _draw(self, hidden_BD: torch.Tensor) -> None:
        """Draw a token for every row, and note it with its logprob."""
        logits_BV = self._language_model.logits(hidden_BD)
        uniforms = [sample.stream.random() for sample in self.samples]
        self._tokens_B = choose_tokens(
            self._controlled(logits_BV), [s.params for s in self.samples], uniforms
        )
        chosen_B = logits_BV.gather(1, self._tokens_B[:, None]).squeeze(1)
        total_B = torch.logsumexp(logits_BV, dim=-1)
        logprobs_B = chosen_B - total_B
        rows = zip(self.samples, self._tokens_B.tolist(), logprobs_B.tolist(), strict=True)
        for sample, token, logprob in rows:
            sample.tokens.append(token)
            sample.logprobs.append(logprob)
        self._note_likeliest(logits_BV, total_B)

    def _note_likeliest(self, logits_BV: torch.Tensor, total_B: torch.Tensor) -> None:
        """Note the most likely tokens of the rows whose request asks for them."""
        asking = [row for row, s in enumerate(self.samples) if s.request.request.topk_logprobs > 0]
        if not asking:
            return
        rows_R = torch.tensor(asking, device=logits_BV.device)
        most = max(self.samples[row].request.request.topk_logprobs for row in asking)
        top_RK = logits_BV[rows_R].topk(most, dim=-1)
        tokens_RK = top_RK.indices.cpu().numpy()
        logprobs_RK = (top_RK.values - total_B[rows_R, None]).cpu().numpy()
        for index, row in enumerate(asking):
            k = self.samples[row].request.request.topk_logprobs
            self.samples[row].top_tokens.append(tokens_RK[index, :k])
            self.samples[row].top_logprobs.append(logprobs_RK[index, :k])

    def _controlled(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """Apply the rows' controls to a copy, where a row has any: logprobs are of the model's own.

        A row whose controls fail ends its request, and what is drawn for it does not matter.
        """
        controlled = [row for row, sample in enumerate(self.samples) if sample.controls is not None]
        if not controlled:
            return logits_BV
        changed_BV = logits_BV.clone()
        for row in controlled:
            sample = self.samples[row]
            assert sample.controls is not None
            try:
                sample.controls.apply(changed_BV[row])
            except InvalidRequestError as error:
                sample.request.fail(error.with_traceback(None))
        return changed_BV

    def _note_token(self, sample: Sample) -> None:
        try:
            sample.request.note_token(sample, self._language_model)
        except InvalidRequestError as error:
            sample.request.fail(error.with_traceback(None))
        except Exception as error:
            # Such as a tokenizer that cannot decode what was sampled: this request's own failure.
            logger.exception("sampling request %s failed", sample.request.request_id)
            sample.request.fail(error.with_traceback(None))


def _quarter_of_memory(language_model: LanguageModel) -> int:
    """Count the tokens whose keys and values fit into a quarter of the device's memory."""
    config = language_model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * head_dim * language_model.dtype.itemsize
    if language_model.device.type == "cuda":
        memory = torch.cuda.get_device_properties(language_model.device).total_memory
    else:
        memory = psutil.virtual_memory().total
    return max(1, memory // 4 // per_token)
