"""Checkpoints to download: signed URLs, and the files behind them."""

import asyncio
import os
import tarfile
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from art.engine.checkpoint_metadata import METADATA_FILE
from art.engine.core import Engine
from art.engine.routes.dependencies import EngineDep
from art.engine.signed_urls import UrlSigner
from art.errors import InvalidRequestError, NotFoundError
from art.formats.checkpoint_paths import CheckpointPath

router = APIRouter()

ARCHIVE = "archive.tar"
_CHUNK = 1 << 20


@router.get("/training_runs/{run_id}/checkpoints/{kind}/{name}/external_weights_urls")
async def external_weights_urls(
    run_id: str, kind: str, name: str, request: Request, engine: EngineDep
) -> dict[str, Any]:
    """A signed URL for each file of a checkpoint that ``save_weights_external`` wrote."""
    path = CheckpointPath.parse(f"tinker://{run_id}/{kind}/{name}")
    if path.kind != "external_weights":
        raise InvalidRequestError(f"{path} is not of the kind external_weights")
    files = await asyncio.to_thread(_files, engine, path)
    signer: UrlSigner = request.app.state.signer
    expires = signer.expiry()
    return {
        "urls": {
            file.name: _url(request, signer.sign(_path(request, path, file.name), expires))
            for file in files
        },
        "expires": expires.isoformat(),
    }


@router.get("/training_runs/{run_id}/checkpoints/{kind}/{name}/archive")
async def checkpoint_archive(
    run_id: str, kind: str, name: str, request: Request, engine: EngineDep
) -> Response:
    """Redirect to a signed URL of a tar of a checkpoint, for SDKs up to 0.35."""
    path = CheckpointPath.parse(f"tinker://{run_id}/{kind}/{name}")
    await asyncio.to_thread(_files, engine, path)
    signer: UrlSigner = request.app.state.signer
    expires = signer.expiry()
    return RedirectResponse(
        _url(request, signer.sign(_path(request, path, ARCHIVE), expires)),
        status_code=302,
        headers={"Expires": format_datetime(expires, usegmt=True)},
    )


@router.get("/downloads/{run_id}/{kind}/{name}/{file}")
async def download(run_id: str, kind: str, name: str, file: str, engine: EngineDep) -> Response:
    """One file of a checkpoint, or all of them as a tar; the key or a signed URL is needed."""
    path = CheckpointPath.parse(f"tinker://{run_id}/{kind}/{name}")
    files = await asyncio.to_thread(_files, engine, path)
    if file == ARCHIVE:
        return StreamingResponse(_tar(files), media_type="application/x-tar")
    for each in files:
        if each.name == file:
            return FileResponse(each, media_type="application/octet-stream")
    raise NotFoundError(f"{path} has no file {file!r:.200}")


def _files(engine: Engine, path: CheckpointPath) -> list[Path]:
    """The files of a checkpoint, but this engine's record of it. Blocks."""
    _, folder = engine.store.read(path)
    return sorted(file for file in folder.iterdir() if file.name != METADATA_FILE)


def _path(request: Request, path: CheckpointPath, file: str) -> str:
    return request.app.url_path_for(
        "download", run_id=path.run_id, kind=path.kind, name=path.name, file=file
    )


def _url(request: Request, path: str) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{path}"


def _tar(files: list[Path]) -> Iterator[bytes]:
    """The chunks of a tar, made while it is sent."""
    for file in files:
        with file.open("rb") as stream:
            entry = tarfile.TarInfo(file.name)
            entry.size = os.fstat(stream.fileno()).st_size
            yield entry.tobuf()
            while chunk := stream.read(_CHUNK):
                yield chunk
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
