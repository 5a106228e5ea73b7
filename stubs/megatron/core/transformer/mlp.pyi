from .module import MegatronModule
from .spec_utils import ModuleSpec

class MLPSubmodules:
    def __init__(
        self,
        linear_fc1: ModuleSpec | type | None = None,
        activation_func: ModuleSpec | type | None = None,
        linear_fc2: ModuleSpec | type | None = None,
    ) -> None: ...

class MLP(MegatronModule): ...
