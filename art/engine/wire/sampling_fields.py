"""The nested fields of ``asample``: art's own controls, and targets of the prompt.

Shapes: M positions of the prompt but the first, K columns, C cells that were sent, L targets.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field

from art._internal.validation import ShortList
from art.engine.target_layout import TargetLayout
from art.engine.wire.json_body import Body
from art.errors import InvalidRequestError
from art.executors.types import IntArray
from art.formats.sampling_controls import (
    MAX_GRAMMAR_CHARACTERS,
    MAX_LOGIT_BIASES,
    SamplingControls,
    check_controls,
)

_MAX_TOKEN = 2**31


def _check_count(value: object) -> object:
    # Before the values are looked at, each of which may be wrong.
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIASES:
        raise ValueError(f"it has {len(value)} entries, of {MAX_LOGIT_BIASES} at most")
    return value


class ControlsBody(Body):
    """``sampling_params.art_controls``: an extension of art's own (docs/wire.md).

    ``logit_bias`` is an object, as in the OpenAI API: its keys are token ids.
    """

    model_config = ConfigDict(strict=True)

    min_p: float = 0.0
    logit_bias: Annotated[
        dict[Annotated[int, Field(strict=False, ge=0, lt=_MAX_TOKEN)], float],
        BeforeValidator(_check_count),
    ] = Field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    grammar: str | None = Field(default=None, max_length=MAX_GRAMMAR_CHARACTERS)

    def controls(self) -> SamplingControls:
        """The controls as the engine knows them.

        Raises:
            InvalidRequestError: One is out of its range.
        """
        controls = SamplingControls(
            min_p=self.min_p,
            logit_bias=tuple(self.logit_bias.items()),
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            grammar=self.grammar,
        )
        check_controls(controls)
        return controls


class TargetTokensBody(Body):
    """``target_prompt_logprobs``: token ids ``[M, K]``, -1 for none, dense or sparse CSR."""

    data: ShortList[int]
    dtype: Literal["int64"]
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    sparse_crow_indices: ShortList[int] | None = None
    sparse_col_indices: ShortList[int] | None = None

    def targets(self, prompt_length: int) -> tuple[tuple[IntArray, IntArray], TargetLayout]:
        """Read the tensor.

        Returns:
            The targets as an executor takes them, and where they stand.

        Raises:
            InvalidRequestError: It has not ``prompt_length - 1`` rows, names no token, or its
                parts do not fit each other.
        """
        rows, columns = self.shape
        if rows != prompt_length - 1 or columns < 0:
            raise InvalidRequestError(
                f"target_prompt_logprobs has the shape {self.shape}; for a prompt of "
                f"{prompt_length} tokens it must be [{prompt_length - 1}, columns]"
            )
        tokens_C = _int64(self.data)
        rows_C, csr = self._rows(tokens_C.size)
        is_target_C = tokens_C != -1
        if not is_target_C.any():
            raise InvalidRequestError("target_prompt_logprobs names no token")
        layout = TargetLayout(shape=(rows, columns), is_target=is_target_C, csr=csr)
        return (rows_C[is_target_C], tokens_C[is_target_C]), layout

    def _rows(self, cells: int) -> tuple[IntArray, tuple[IntArray, IntArray] | None]:
        """The row of each cell, and the indices of a sparse tensor."""
        rows, columns = self.shape
        if self.sparse_crow_indices is None and self.sparse_col_indices is None:
            if cells != rows * columns:
                raise InvalidRequestError(
                    f"target_prompt_logprobs has {cells} values and the shape {self.shape}"
                )
            return np.repeat(np.arange(rows), columns), None
        crow = _int64(self.sparse_crow_indices or [])
        col_C = _int64(self.sparse_col_indices or [])
        counts = np.diff(crow)
        consistent = (
            crow.size == rows + 1
            and crow[0] == 0
            and crow[-1] == cells == col_C.size
            and bool((counts >= 0).all())
            and bool(((col_C >= 0) & (col_C < columns)).all())
        )
        if not consistent:
            raise InvalidRequestError(
                f"target_prompt_logprobs has sparse indices that do not fit its shape {self.shape}"
            )
        return np.repeat(np.arange(rows), counts), (crow, col_C)


def _int64(values: list[int]) -> IntArray:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InvalidRequestError(
            f"a number of target_prompt_logprobs is out of range: {error}"
        ) from error
