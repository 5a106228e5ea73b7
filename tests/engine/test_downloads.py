"""External weights and archives: signed URLs of the engine, and what is behind them."""

import io
import re
import tarfile
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import tinker
from tinker import RestClient, TrainingClient

from art.engine.signed_urls import UrlSigner

from ..engine_server import EngineServer
from .sdk import train


def download(url: str) -> bytes:
    """As the SDK's documentation does it: without the key."""
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
    return content


def test_external_weights_are_a_peft_adapter(
    trainer: TrainingClient, rest: RestClient, engine_server: EngineServer, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train(trainer, steps=2)
    path = trainer.save_weights_external("export", ttl_seconds=7200).result().path
    assert path == f"tinker://{trainer.model_id}/external_weights/export"
    found = rest.get_external_weights_urls(path).result()
    assert timedelta() < found.expires - datetime.now(UTC) <= timedelta(hours=1)
    assert found.urls.keys() >= {"adapter_config.json", "adapter_model.safetensors"}
    for name, url in found.urls.items():
        (tmp_path / name).write_bytes(download(url))

    base = AutoModelForCausalLM.from_pretrained(engine_server.base_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path)
    tokens_1T = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        loss = model(input_ids=tokens_1T, labels=tokens_1T).loss.item() * 4
    assert train(trainer) == [pytest.approx(loss, rel=1e-4)]


def test_external_weights_are_listed_and_deleted_as_any_checkpoint(
    trainer: TrainingClient, rest: RestClient
) -> None:
    path = trainer.save_weights_external("export", ttl_seconds=7200).result().path
    [listed] = rest.list_checkpoints(trainer.model_id).result().checkpoints
    assert (listed.checkpoint_type, listed.tinker_path) == ("external", path)
    assert listed.expires_at is not None
    rest.delete_checkpoint(trainer.model_id, listed.checkpoint_id).result()
    with pytest.raises(tinker.NotFoundError, match="there is no checkpoint"):
        rest.get_external_weights_urls(path).result()


def test_files_are_not_encrypted_on_the_way_out(trainer: TrainingClient) -> None:
    with pytest.raises(tinker.RequestFailedError, match="no age_encryption_recipients"):
        trainer.save_weights_external("export", age_encryption_recipients=["age1x"]).result()


def test_an_archive_holds_the_files_of_a_checkpoint(
    trainer: TrainingClient, engine_server: EngineServer
) -> None:
    """SDKs up to 0.35 ask for it; the answer is a redirect, which they do not follow."""
    train(trainer)
    path = trainer.save_state("one").result().path
    run_id, kind, name = path.removeprefix("tinker://").split("/")
    answer = httpx.get(
        f"{engine_server.base_url}/api/v1/training_runs/{run_id}/checkpoints/{kind}/{name}/archive",
        headers={"X-API-Key": engine_server.api_key},
    )
    assert answer.status_code == 302
    assert "Expires" in answer.headers
    with tarfile.open(fileobj=io.BytesIO(download(answer.headers["Location"]))) as archive:
        folder = engine_server.root / "checkpoints" / run_id.replace(":", ".") / kind / name
        expected = {file.name: file.read_bytes() for file in folder.iterdir()}
        del expected["metadata.json"]
        read = {entry.name: archive.extractfile(entry) for entry in archive}
        assert {name: file and file.read() for name, file in read.items()} == expected


@pytest.mark.parametrize(
    "change",
    [
        (r"\?.*", ""),
        (r"signature=.", "signature=z"),
        (r"signature=.*", "signature=%C3%A9"),
        (r"expires=\d+", "expires=99999999999"),
        (r"expires=\d+", "expires=9&expires=9"),
        (r"adapter_config\.json", "adapter_model.safetensors"),
        (r"/external_weights/export/", "/external_weights/other/"),
        (r"/downloads/", "/training_runs/"),
    ],
)
def test_a_url_lets_in_to_one_file_alone(
    trainer: TrainingClient, rest: RestClient, change: tuple[str, str]
) -> None:
    paths = [trainer.save_weights_external(name).result().path for name in ("export", "other")]
    url = rest.get_external_weights_urls(paths[0]).result().urls["adapter_config.json"]
    assert download(url)
    changed = re.sub(*change, url)
    assert changed != url
    with pytest.raises(urllib.error.HTTPError) as caught:
        download(changed)
    with caught.value as answer:
        assert answer.code == 401


def test_the_engines_own_record_is_not_handed_out(
    trainer: TrainingClient, rest: RestClient, engine_server: EngineServer
) -> None:
    path = trainer.save_weights_external("export").result().path
    urls = rest.get_external_weights_urls(path).result().urls
    assert "metadata.json" not in urls
    url = urls["adapter_config.json"].partition("?")[0].replace("adapter_config", "metadata")
    answer = httpx.get(url, headers={"X-API-Key": engine_server.api_key})
    assert answer.status_code == 404
    assert "has no file 'metadata.json'" in answer.json()["error"]


def test_a_signature_ends_with_its_time_and_with_its_signer() -> None:
    signer = UrlSigner(lifetime_s=60)
    path, _, query = signer.sign("/a", signer.expiry()).partition("?")
    assert signer.is_valid(path, query)
    assert not signer.is_valid("/b", query)
    assert not UrlSigner().is_valid(path, query)
    late = UrlSigner(lifetime_s=-1)
    path, _, query = late.sign("/a", late.expiry()).partition("?")
    assert not late.is_valid(path, query)
