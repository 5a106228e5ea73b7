"""Numbers of other libraries as Python's own: NumPy's and torch's scalars, decimals, fractions."""

import numbers
from typing import Any


def plain_number(value: Any) -> Any:
    """Turn a number of any library into a ``bool``, an ``int`` or a ``float``.

    Args:
        value: A number; or an array or tensor with one element, such as NumPy's and torch's, on
            any device and of any dtype. A value that is no number is returned as it is, so that
            whoever validates it can refuse it.

    Returns:
        The number. NaN and infinity stay what they are.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if _has_one_element(value):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    is_real = isinstance(value, numbers.Number) and not isinstance(value, complex)
    return float(value) if is_real else value


def _has_one_element(value: object) -> bool:
    # Neither library is imported for it: whoever holds an array or a tensor has imported it.
    count = getattr(value, "numel", None)
    size = count() if callable(count) else getattr(value, "size", None)
    return size == 1 and hasattr(value, "item")
