"""Types of the data in :mod:`.spec` that are written with ``typing``.

Apart from the data, since importing ``typing`` costs more than answering most questions does.
"""

from typing import Literal

NativeVllmLoraStatus = Literal["disabled", "wip", "validated"]
RolloutWeightsMode = Literal["lora", "merged"]
