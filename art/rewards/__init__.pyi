from .judging import DEFAULT_RUBRIC as DEFAULT_RUBRIC
from .judging import TrajectoryScore as TrajectoryScore
from .judging import ruler as ruler
from .judging import ruler_score_group as ruler_score_group
