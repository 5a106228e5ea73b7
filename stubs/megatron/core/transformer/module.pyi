from collections.abc import Iterator
from typing import Generic, TypeVar

from torch import nn

from .transformer_config import TransformerConfig

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)

class MegatronModule(nn.Module):
    config: TransformerConfig

    # torch says that a module has every attribute, which would let a misspelt one pass here.
    __getattr__: None  # type: ignore[assignment, misc]

# A torch.nn.ModuleList at run time, whose type does not tell the type of its modules.
class _ModuleListOf(nn.Module, Generic[_ModuleT]):
    __getattr__: None  # type: ignore[assignment, misc]
    def __getitem__(self, index: int) -> _ModuleT: ...
    def __iter__(self) -> Iterator[_ModuleT]: ...
