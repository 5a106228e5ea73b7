from .spec_utils import ModuleSpec as ModuleSpec
from .transformer_config import TransformerConfig as TransformerConfig
