import enum

class AttnMaskType(enum.Enum):
    causal = 2
