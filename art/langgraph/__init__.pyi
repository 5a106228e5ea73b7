from .chat_model import init_chat_model as init_chat_model
from .rollout import wrap_rollout as wrap_rollout
