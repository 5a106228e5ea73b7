"""The quickstart, run as a user runs it: a real model learns, and leaves what it promised."""

import re
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT, run

EXAMPLE = ROOT / "examples" / "quickstart.py"
STEP = re.compile(r"^ +(\d+) +(\d\.\d\d) +(\d+\.\d) s +(\d+\.\d) s +#*$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_quickstart_trains_smollm2_to_answer_in_one_word(tmp_path: Path) -> None:
    started = time.monotonic()
    result = run(sys.executable, EXAMPLE, cwd=tmp_path, timeout=600)
    print(result.stdout, f"{time.monotonic() - started:.0f} s in all")  # for the CI log

    rewards = [float(match[2]) for match in STEP.finditer(result.stdout)]
    assert 2 <= len(rewards) <= 6
    assert rewards[0] < 0.4
    assert rewards[-1] > 0.9

    assert (tmp_path / "reward.png").read_bytes().startswith(b"\x89PNG")
    after = re.findall(r"^    after:  (.*)$", result.stdout, re.MULTILINE)
    assert len(after) == 3
    assert all(len(answer.split()) == 1 for answer in after), after

    (line,) = re.findall(r"^checkpoint: +(.*)$", result.stdout, re.MULTILINE)
    checkpoint = Path(line)
    assert checkpoint.name == f"{len(rewards) - 1:04d}"  # the last step found nothing to improve
    assert {"adapter_config.json", "adapter_model.safetensors", "info.yaml"} <= {
        path.name for path in checkpoint.iterdir()
    }
