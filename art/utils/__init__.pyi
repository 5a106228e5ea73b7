from ..concurrency import limit_concurrency as limit_concurrency
from ..datasets import DatasetBatch as DatasetBatch
from ..datasets import iterate_dataset as iterate_dataset
from ..http_errors import log_http_errors as log_http_errors
from ..messages import format_message as format_message
from ..messages import get_trajectory_messages as get_trajectory_messages
from ..retries import retry as retry
from ..runs.paths import get_model_step as get_model_step
