from torch import Tensor, nn

class RotaryEmbedding(nn.Module):
    inv_freq: Tensor

    def get_emb(self, max_seq_len: int, offset: int = 0) -> Tensor: ...
