"""Progress of long work: a protocol, and its display on a terminal.

Code that takes long is handed a :data:`ShowProgress` and reports to what that opens, so that a
terminal, a page or a test can show it. ::

    with show_progress("step 3", total=3) as progress:
        progress.advance(0, {"stage": "forward_backward"})
        ...
        progress.advance(1, {"stage": "optim_step"})
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress(Protocol):
    """The progress of one piece of work."""

    def expect(self, total: int) -> None:
        """Change how many units the work has in all."""
        ...

    def advance(self, units: int, values: Mapping[str, float | str] | None = None) -> None:
        """Report finished units.

        Args:
            units: How many more are done; 0 reports ``values`` alone.
            values: What to show beside the progress, by name; ``None`` leaves what is shown.
        """
        ...


# Opens the display of one piece of work, given its description and its number of units (`None`:
# not known), and closes it when the block ends, however it ends.
ShowProgress: TypeAlias = Callable[[str | None, int | None], AbstractContextManager[Progress]]


@contextmanager
def terminal_progress(description: str | None, total: int | None) -> Iterator[Progress]:
    """Show progress on standard error, as a bar of tqdm.

    Args:
        description: The bar's label.
        total: Units of the work. ``None`` shows the elapsed time instead of a bar, on a terminal
            only, and removes it at the end.

    Yields:
        What to report to.
    """
    # Loaded here: importing tqdm costs more than the rest of a light client.
    from tqdm.auto import tqdm

    if total is None:
        bar = tqdm(
            desc=description, bar_format="{desc} ({elapsed}{postfix})", leave=False, disable=None
        )
    else:
        bar = tqdm(desc=description, total=total)
    with bar:
        yield _TqdmProgress(bar)


class _TqdmProgress:
    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar

    def expect(self, total: int) -> None:
        self._bar.total = total

    def advance(self, units: int, values: Mapping[str, float | str] | None = None) -> None:
        if values is not None:
            # tqdm redraws when units are done, and then not at each: only values alone must ask.
            self._bar.set_postfix(values, refresh=not units)
        self._bar.update(units)
