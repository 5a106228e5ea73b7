from ...sft.examples import SFTChunk as SFTChunk
from ...sft.examples import create_sft_dataset_iterator as create_sft_dataset_iterator
from ...sft.examples import get_file_row_count as get_file_row_count
from ...sft.examples import iterate_file as iterate_file
from ...sft.file_training import train_sft_from_file as train_sft_from_file
from ...sft.schedule import create_lr_schedule as create_lr_schedule
