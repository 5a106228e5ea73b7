"""Training loops of tinker-cookbook, unchanged, against ``art serve``.

``make .venv-cookbook/.ready`` installs it into an environment of its own. The recipes ask for a
model and for data of the Hugging Face hub by name, and the libraries take a folder of that name in
the working folder: so a tiny model answers to the name of one that the cookbook has a renderer for,
and each dataset is a few lines in the form of the one that it stands for.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import engine_server
from ..engine_server import EngineServer
from ..processes import ROOT, run

pytestmark = pytest.mark.slow

MODEL = Path("Qwen/Qwen3-8B")
SUFFIX = " Provide a numerical answer without units, written inside \\boxed{}."
QUESTION = "How many days has a week?"
# The example that rl_loop puts before each question.
EXAMPLE = [
    {"role": "user", "content": f"How many r's are in strawberry?{SUFFIX}"},
    {
        "role": "assistant",
        "content": "Let's spell the word out and number all the letters: 1) s 2) t 3) r 4) a 5) w "
        "6) b 7) e 8) r 9) r 10) y. We have r's at positions 3, 8, and 9. \\boxed{3}",
    },
]


def answered(answer: int) -> list[dict[str, str]]:
    return [
        *EXAMPLE,
        {"role": "user", "content": f"{QUESTION}{SUFFIX}"},
        {"role": "assistant", "content": f"\\boxed{{{answer}}}"},
    ]


def compared(number: int) -> dict[str, str]:
    asked = f"\n\nHuman: {number}?\n\nAssistant:"
    return {"chosen": f"{asked} yes", "rejected": f"{asked} no"}


DATA: dict[str, list[Any]] = {
    "HuggingFaceH4/no_robots/train.jsonl": [
        {"messages": answered(answer)} for answer in (7, 5) * 200
    ],
    "openai/gsm8k/train.jsonl": [{"question": QUESTION, "answer": "It is so. #### 7"}] * 64,
    "Anthropic/hh-rlhf/train.jsonl": [compared(number) for number in range(32)],
    "Anthropic/hh-rlhf/test.jsonl": [compared(number) for number in range(4)],
    "zwhe99/DeepMath-103K/train.jsonl": [{"question": f"{n} + 1?"} for n in range(32)],
    "zwhe99/DeepMath-103K/test.jsonl": [{"question": f"{n} + 1?"} for n in range(4)],
}
GSM8K_CARD = """\
---
configs:
- config_name: main
  data_files:
  - split: train
    path: train.jsonl
---
"""


class Cookbook:
    """The recipes, run in one working folder against one engine."""

    def __init__(self, python: Path, folder: Path, engine: EngineServer) -> None:
        self._python, self._folder, self._engine = python, folder, engine

    def run(self, recipe: str, name: str, **options: object) -> list[dict[str, Any]]:
        """Run a recipe to its end; its metrics, a record a step."""
        run(
            self._python,
            "-m",
            f"tinker_cookbook.recipes.{recipe}",
            f"model_name={MODEL}",
            f"log_path={self._folder / name}",
            *(f"{key}={value}" for key, value in options.items()),
            cwd=self._folder,
            timeout=400,
            env={
                "TINKER_BASE_URL": self._engine.base_url,
                "TINKER_API_KEY": self._engine.api_key,
                "TINKER_TELEMETRY": "0",
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(self._folder / "hub"),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": None,
            },
        )
        return read(self._folder / name / "metrics.jsonl")

    def checkpoints(self, name: str) -> list[dict[str, Any]]:
        return read(self._folder / name / "checkpoints.jsonl")

    def begin_from(self, name: str, state_path: str) -> None:
        """Let a run that has not begun find a checkpoint to resume from."""
        folder = self._folder / name
        folder.mkdir()
        record = {"name": "start", "batch": 0, "state_path": state_path}
        (folder / "checkpoints.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def cookbook(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cookbook]:
    environment = ROOT / ".venv-cookbook"
    if not (environment / ".ready").exists():
        pytest.skip("tinker-cookbook is not installed: make .venv-cookbook/.ready")
    folder = tmp_path_factory.mktemp("cookbook")
    (folder / MODEL).parent.mkdir()
    (folder / MODEL).symlink_to(tiny_model)
    for name, rows in DATA.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "openai" / "gsm8k" / "README.md").write_text(GSM8K_CARD, encoding="utf-8")
    engine = engine_server.start(MODEL, folder / "engine", cwd=folder)
    yield Cookbook(environment / "bin" / "python", folder, engine)
    engine.stop()


@pytest.fixture(scope="module")
def supervised(cookbook: Cookbook) -> list[dict[str, Any]]:
    """The metrics of a supervised run, of which the other loops take up the checkpoints."""
    options = {"batch_size": 8, "max_steps": 40, "learning_rate": 0.01, "save_every": 20}
    return cookbook.run("sl_loop", "sl", **options)


def test_the_supervised_loop_learns_its_answers(
    cookbook: Cookbook, supervised: list[dict[str, Any]]
) -> None:
    assert len(supervised) == 40
    assert supervised[0]["train_mean_nll"] > 5
    assert supervised[-1]["train_mean_nll"] < 0.2
    middle, final = cookbook.checkpoints("sl")
    assert middle["state_path"].endswith("/weights/000020")
    assert final["sampler_path"].endswith("/sampler_weights/final")


def test_the_rl_loop_resumes_from_a_checkpoint_and_trains(
    cookbook: Cookbook, supervised: list[dict[str, Any]]
) -> None:
    """The model answers 7 or 5; 7 is right."""
    cookbook.begin_from("rl", cookbook.checkpoints("sl")[-1]["state_path"])
    steps = cookbook.run(
        "rl_loop",
        "rl",
        batch_size=4,
        group_size=8,
        max_tokens=40,
        max_steps=3,
        learning_rate=0.003,
        save_every=2,
    )
    assert len(steps) == 3
    assert 0 < steps[0]["reward/total"] < 1
    assert "grad_norm:mean" in steps[0], "all rewards of each group were the same"
    names = [checkpoint["name"] for checkpoint in cookbook.checkpoints("rl")]
    assert names == ["start", "000002", "final"]


def test_the_dpo_loop_comes_to_prefer_what_was_chosen(cookbook: Cookbook) -> None:
    steps = cookbook.run(
        "preference.dpo.train",
        "dpo",
        batch_size=8,
        max_steps=3,
        learning_rate=0.003,
        max_length=256,
        behavior_if_log_dir_exists="raise",
    )
    losses = [step["dpo_loss"] for step in steps]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses == sorted(losses, reverse=True)
    assert steps[-1]["accuracy"] == 1.0


def test_the_distillation_loop_trains_on_the_teachers_logprobs(
    cookbook: Cookbook, supervised: list[dict[str, Any]]
) -> None:
    steps = cookbook.run(
        "distillation.on_policy_distillation",
        "distill",
        teacher_model=MODEL,
        teacher_checkpoint=cookbook.checkpoints("sl")[-1]["sampler_path"],
        groups_per_batch=4,
        group_size=4,
        max_tokens=8,
        lora_rank=8,
        max_steps=2,
        eval_every=0,
        learning_rate=0.003,
        behavior_if_log_dir_exists="raise",
    )
    assert len(steps) == 2
    for step in steps:
        assert step["teacher_kl"] > 0.1
        assert step["grad_norm:mean"] > 0
        # The cookbook's own measure of how far sampler and trainer are apart.
        assert abs(step["optim/kl_sample_train_v1"]) < 1e-5
        assert step["optim/kl_sample_train_v2"] < 1e-9
