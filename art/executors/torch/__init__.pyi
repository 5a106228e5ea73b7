from .executor import TorchExecutor as TorchExecutor
