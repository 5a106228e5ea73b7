"""A session with a model, samplers, checkpoints and results: the names in valid requests."""

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
from tinker.proto import tinker_public_pb2 as pb

from tests.attack.http_client import Answer, Client, Request

SDK_VERSION = "0.38.0"
PROTOBUF = "application/x-protobuf"


def forward_backward_message(
    model_id: str, seq_id: int, sequences: list[list[int]], *, loss: str = "cross_entropy"
) -> Any:
    """A valid ``ForwardBackwardRequest`` that teaches each sequence's tokens to follow on."""
    message = pb.ForwardBackwardRequest(model_id=model_id, seq_id=seq_id, loss_fn=loss)
    for tokens in sequences:
        datum = message.data.add()
        datum.model_input.add().encoded_text.tokens = np.array(tokens[:-1], "<i4").tobytes()
        targets = datum.loss_fn_inputs["target_tokens"]
        targets.dense, targets.dtype = np.array(tokens[1:], "<i8").tobytes(), pb.DTYPE_INT64
    return message


def posted(message: Any, **headers: str) -> Request:
    """The request that sends a message to ``forward_backward``."""
    return Request(
        "POST forward_backward",
        "POST",
        "/api/v1/forward_backward",
        {"Content-Type": PROTOBUF, **headers},
        message.SerializeToString(),
    )


class World:
    """What one attacker has on an engine.

    Args:
        client: Its connection.
        base_model: The engine's base model.

    Attributes:
        session_id: Its session.
        model_id: A model of it, with two checkpoints.
        sampling_id: A sampling session of the base model.
        seq_id: The number of the model's last request that was taken.
        results: The ids of requests that have ended.
    """

    def __init__(self, client: Client, base_model: str) -> None:
        self._client, self.base_model = client, base_model
        self._sessions: set[str] = set()
        self._begin()

    @property
    def checkpoints(self) -> list[str]:
        """The paths of the model's checkpoints."""
        return [f"tinker://{self.model_id}/{kind}/a" for kind in ("weights", "sampler_weights")]

    @property
    def sessions(self) -> list[str]:
        """The ids of all sessions that were made, in order of their names."""
        return sorted(self._sessions)

    def renew(self) -> None:
        """End every session, delete every checkpoint, and begin anew."""
        for session_id in self._sessions:
            self._client.json("POST", f"sessions/{session_id}/finish", {})
        self._sessions.clear()
        self._delete_checkpoints()
        self._begin()

    def note(self, request: Request, answer: Answer) -> None:
        """Remember what an input made, to take it away later."""
        body = answer.json() if answer.status == 200 else None
        if not isinstance(body, dict):
            return
        if isinstance(made := body.get("session_id"), str):
            self._sessions.add(made)
        if body.get("request_id") == f"{self.model_id}:{self.seq_id + 1}":
            self.seq_id += 1

    def next_seq(self, rng: Random) -> int:
        """Mostly the number of the model's next request; now and then another."""
        if rng.random() < 0.8:
            return self.seq_id + 1
        return rng.choice((1, self.seq_id, self.seq_id + rng.randint(2, 100), 2**31 - 1))

    def result(self, request_id: str) -> Any:
        """Wait for a result that is JSON."""
        for _ in range(4):
            status, body = self._client.json("POST", "retrieve_future", {"request_id": request_id})
            if status != 408:
                return body
        raise AssertionError(f"{request_id} has no result")

    def _begin(self) -> None:
        session = self._post("create_session", {"sdk_version": SDK_VERSION})
        self.session_id: str = session["session_id"]
        self._sessions.add(self.session_id)
        model = self._post(
            "create_model",
            {
                "session_id": self.session_id,
                "model_seq_id": 0,
                "base_model": self.base_model,
                "lora_config": {"rank": 2, "seed": 1, "train_unembed": False},
            },
        )
        self.model_id: str = self.result(model["request_id"])["model_id"]
        self.results = [model["request_id"]]
        for seq_id, route in enumerate(("save_weights", "save_weights_for_sampler"), start=1):
            body = {"model_id": self.model_id, "seq_id": seq_id, "path": "a"}
            saved = self._post(route, body)
            assert "path" in self.result(saved["request_id"])
            self.results.append(saved["request_id"])
        self.seq_id = 2
        sampling = self._post(
            "create_sampling_session",
            {
                "session_id": self.session_id,
                "sampling_session_seq_id": 0,
                "base_model": self.base_model,
            },
        )
        self.sampling_id: str = sampling["sampling_session_id"]

    def _delete_checkpoints(self) -> None:
        run = self.model_id
        _, body = self._client.json("GET", f"training_runs/{run}/checkpoints")
        found = body.get("checkpoints", []) if isinstance(body, dict) else []
        for checkpoint in found:
            path = f"training_runs/{run}/checkpoints/{checkpoint['checkpoint_id']}"
            self._client.json("DELETE", path)

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        status, answer = self._client.json("POST", path, dict(body))
        assert status == 200, f"a valid {path} was answered {status}: {answer}"
        assert isinstance(answer, dict)
        return answer
