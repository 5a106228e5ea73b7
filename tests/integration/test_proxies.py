"""A proxy in the environment: no request to this machine's own servers goes there."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_server import EngineServer
from tests.processes import run_python

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy")

# All clients that a run has: the SDK, the model's, one of the user's own, an agent elsewhere.
RUN = """
import asyncio, logging, os, subprocess, sys
import art, httpx, openai

AGENT = '''
import openai, sys
print(openai.OpenAI().chat.completions.create(
    model=sys.argv[1], messages=[{"role": "user", "content": "hi"}], max_tokens=1).object)
'''

async def ask(client, model):
    completion = await client.chat.completions.create(
        model=model.get_inference_name(), messages=[{"role": "user", "content": "hi"}],
        max_tokens=1, n=2)
    return completion.choices

async def main():
    engine_url, key, base_model, path = sys.argv[1:]
    async with art.TinkerBackend(tinker_api_key=key, base_url=engine_url, path=path) as backend:
        model = art.TrainableModel(name="agent", project="p", base_model=base_model)
        await model.register(backend)
        choices = await ask(model.openai_client(), model)
        group = art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[choice], reward=float(index))
            for index, choice in enumerate(choices))
        print("step", (await backend.train(model, [group])).step)
        url, key = model.inference_base_url, model.inference_api_key
        print("own", len(await ask(openai.AsyncOpenAI(base_url=url, api_key=key), model)))
        print("httpx", httpx.get(url.replace("/v1", "/health")).status_code)
        agent = await asyncio.to_thread(subprocess.run,
            [sys.executable, "-c", AGENT, model.get_inference_name()], check=True, text=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": key})
        print("agent", agent.stdout)

asyncio.run(main())
"""


class RecordingProxy(http.server.BaseHTTPRequestHandler):
    """A company's proxy: it has no way to the loopback of its users' machines."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(f"{self.command} {self.path}")
        self.send_error(502)

    do_POST = do_CONNECT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy, and the requests that it got."""
    seen: list[str] = []
    handler = type("Handler", (RecordingProxy,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_the_proxy_is_used_by_clients_that_do_not_know_better(
    proxy: tuple[str, list[str]], engine_server: EngineServer
) -> None:
    url, seen = proxy
    code = "import sys, urllib.request as r; r.urlopen(sys.argv[1])"
    env = {**dict.fromkeys(PROXY_VARIABLES, url), "NO_PROXY": None, "no_proxy": None}
    run_python(code, engine_server.base_url, env=env, status=1)
    assert seen == [f"GET {engine_server.base_url}"]


@pytest.mark.parametrize("no_proxy", [None, "example.com"])
def test_loopback_never_goes_through_a_proxy(
    proxy: tuple[str, list[str]], engine_server: EngineServer, tmp_path: Path, no_proxy: str | None
) -> None:
    url, seen = proxy
    env = {**dict.fromkeys(PROXY_VARIABLES, url), "NO_PROXY": no_proxy, "no_proxy": None}
    arguments = (engine_server.base_url, engine_server.api_key, engine_server.base_model)
    ran = run_python(RUN, *arguments, str(tmp_path), env=env)
    assert ran.stdout.split() == [
        "step",
        "1",
        "own",
        "2",
        "httpx",
        "200",
        "agent",
        "chat.completion",
    ]
    assert seen == []
