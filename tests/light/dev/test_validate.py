import re
from typing import Any

import pytest

from art.dev import is_dedicated_mode, validate_dedicated_config
from art.errors import ConfigurationError


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rollout_weights_mode": "lora"},
        {"trainer_gpu_ids": [0], "inference_gpu_ids": [1]},
        {"trainer_gpu_ids": [0, 1], "inference_gpu_ids": [2], "rollout_weights_mode": "merged"},
        {"engine_args": {"enable_sleep_mode": True}},
    ],
)
def test_what_is_fine(config: Any) -> None:
    validate_dedicated_config(config)
    assert is_dedicated_mode(config) == ("trainer_gpu_ids" in config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rollout_weights_mode": "full"}, "'full'"),
        ({"rollout_weights_mode": "merged"}, "needs dedicated mode"),
        ({"trainer_gpu_ids": [0]}, "both be set"),
        ({"inference_gpu_ids": [0]}, "both be set"),
        ({"init_args": {"fast_inference": False}}, "fast_inference"),
        ({"trainer_gpu_ids": [], "inference_gpu_ids": [1]}, "not be empty"),
        ({"trainer_gpu_ids": [0], "inference_gpu_ids": []}, "not be empty"),
        ({"trainer_gpu_ids": [0, 1], "inference_gpu_ids": [1]}, "overlap; both have [1]"),
        ({"trainer_gpu_ids": [0], "inference_gpu_ids": [1, 2]}, "exactly one GPU"),
        ({"trainer_gpu_ids": [1], "inference_gpu_ids": [0]}, "count up from 0"),
        ({"trainer_gpu_ids": [0, 2], "inference_gpu_ids": [1]}, "count up from 0"),
        (
            {
                "trainer_gpu_ids": [0],
                "inference_gpu_ids": [1],
                "engine_args": {"enable_sleep_mode": True},
            },
            "never sleeps",
        ),
    ],
)
def test_what_contradicts_itself(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        validate_dedicated_config(config)
