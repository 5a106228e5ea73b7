from . import model_support as model_support
