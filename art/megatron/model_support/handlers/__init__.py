from art import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__, guard="art.megatron.model_support.minimum_versions:require_for_handler_module"
)
