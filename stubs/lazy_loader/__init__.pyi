from collections.abc import Callable, Iterable, Mapping

def attach(
    package_name: str,
    submodules: Iterable[str] | None = ...,
    submod_attrs: Mapping[str, Iterable[str]] | None = ...,
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]: ...
