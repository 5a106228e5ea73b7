"""The exceptions of art: the tree at the top of their module, and their way across processes."""

import inspect
import pickle
from collections.abc import Iterator

import pytest

from art import errors

ERRORS = {
    name: each
    for name, each in vars(errors).items()
    if inspect.isclass(each) and issubclass(each, errors.ArtError)
}


def tree(error: type[errors.ArtError], depth: int = 1) -> Iterator[str]:
    standard = [
        base.__name__
        for base in error.__bases__
        if base is not Exception and not issubclass(base, errors.ArtError)
    ]
    yield "  " * (depth + 1) + error.__name__ + (f" ({', '.join(standard)})" if standard else "")
    for each in ERRORS.values():
        if error in each.__bases__:
            yield from tree(each, depth + 1)


def test_the_tree_at_the_top_of_the_module_is_that_of_the_classes() -> None:
    assert errors.__doc__ is not None
    assert "\n".join(tree(errors.ArtError)) in errors.__doc__


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_crosses_processes(name: str) -> None:
    arguments = ("art.tinker", "tinker", "tinker") if name == "MissingExtraError" else ("text",)
    error = ERRORS[name](*arguments)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
