from .executor import TorchExecutor as TorchExecutor
from .executor import load as load
