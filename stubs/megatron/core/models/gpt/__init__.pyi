from .gpt_model import GPTModel as GPTModel
