from .advantages import group_advantages as group_advantages
from .sequences import TrainingBatch as TrainingBatch
from .sequences import TrainingSequence as TrainingSequence
from .sequences import training_batch as training_batch
