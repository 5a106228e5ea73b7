from abc import ABC

from .module import MegatronModule

class SelfAttention(MegatronModule, ABC): ...
