"""A client of the Language Server Protocol 3.17 over stdio: what an editor sends, one at a time.

https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/
"""

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# One answer takes milliseconds; only a server that hangs reaches this.
TIMEOUT_SECONDS = 60
# ContentModified and ServerCancelled of the language server protocol, 3.17.
SERVER_WAS_BUSY = (-32801, -32802)


class LanguageServer:
    """A running language server and one workspace folder.

    Args:
        command: Starts the server so that it talks over its stdin and stdout.
        workspace: The folder that the editor has open.
        settings: Answers the server's questions for its settings, by section name.
    """

    def __init__(self, command: Sequence[str], workspace: Path, settings: dict[str, Any]) -> None:
        self._workspace = workspace
        self._settings = settings
        self._last_id = 0
        self._versions: dict[str, int] = {}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "LanguageServer":
        folder = {"uri": self._workspace.as_uri(), "name": self._workspace.name}
        self._request(
            "initialize",
            processId=None,
            rootUri=folder["uri"],
            workspaceFolders=[folder],
            capabilities={
                "workspace": {"configuration": True, "workspaceFolders": True},
                "textDocument": {
                    # Plain text, so that a docstring comes back as it was written.
                    "hover": {"contentFormat": ["plaintext"]},
                    "signatureHelp": {"signatureInformation": {"documentationFormat": []}},
                },
            },
        )
        self._notify("initialized")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._request("shutdown")
            self._notify("exit")
        else:
            self._process.kill()
        self._process.communicate(timeout=TIMEOUT_SECONDS)

    def open(self, name: str, text: str) -> str:
        """Open a document that is on no disk, or replace its text; return its URI."""
        uri = (self._workspace / name).as_uri()
        version = self._versions[uri] = self._versions.get(uri, 0) + 1
        if version == 1:
            document = {"uri": uri, "languageId": "python", "version": version, "text": text}
            self._notify("textDocument/didOpen", textDocument=document)
        else:
            self._notify(
                "textDocument/didChange",
                textDocument={"uri": uri, "version": version},
                contentChanges=[{"text": text}],
            )
        return uri

    def complete(self, uri: str, line: int, character: int) -> list[str]:
        """The labels offered at a position. Lines and characters count from 0."""
        answer = self._at("textDocument/completion", uri, line, character)
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return [item["label"] for item in items]

    def hover(self, uri: str, line: int, character: int) -> str:
        """The text shown over a position; empty when there is none."""
        answer = self._at("textDocument/hover", uri, line, character)
        return "" if answer is None else answer["contents"]["value"]

    def define(self, uri: str, line: int, character: int) -> list[tuple[str, int]]:
        """Where the name at a position is defined: (URI, line from 0), one for each place."""
        answer = self._at("textDocument/definition", uri, line, character) or []
        return [(place["uri"], place["range"]["start"]["line"]) for place in answer]

    def signatures(self, uri: str, line: int, character: int) -> list[tuple[str, ...]]:
        """The parameters' names in each signature shown inside a call's parentheses."""
        answer = self._at("textDocument/signatureHelp", uri, line, character) or {"signatures": []}
        return [
            tuple(each["label"].split(":")[0].split("=")[0].strip() for each in one["parameters"])
            for one in answer["signatures"]
        ]

    def _at(self, method: str, uri: str, line: int, character: int) -> Any:
        position = {"line": line, "character": character}
        return self._request(method, textDocument={"uri": uri}, position=position)

    def _request(self, method: str, **params: Any) -> Any:
        """Send a request, again where the server was still reading files, as editors do."""
        for _ in range(20):
            message = self._ask(method, **params)
            if message.get("error", {}).get("code") not in SERVER_WAS_BUSY:
                break
            time.sleep(0.1)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and serve the server's own until the answer comes."""
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        watchdog = threading.Timer(TIMEOUT_SECONDS, self._process.kill)
        watchdog.start()
        try:
            while True:
                message = self._receive(method)
                if "method" in message:
                    if "id" in message:
                        self._send({"id": message["id"], "result": self._answer(message)})
                elif message["id"] == self._last_id:
                    return message
        finally:
            watchdog.cancel()

    def _answer(self, request: dict[str, Any]) -> Any:
        if request["method"] == "workspace/configuration":
            return [self._settings.get(item.get("section")) for item in request["params"]["items"]]
        return None

    def _notify(self, method: str, **params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self, method: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            header, _, value = line.partition(b":")
            if header.lower() == b"content-length":
                length = int(value)
        body = self._process.stdout.read(length)
        if not body:
            raise RuntimeError(f"the language server ended, or hung, before it answered {method}")
        message: dict[str, Any] = json.loads(body)
        return message
