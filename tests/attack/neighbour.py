"""A well-behaved client, the official SDK, in a process of its own: ``python -m …neighbour``.

It trains by itself, saves, and says ``{"path": …, "latencies_s": […]}``. Training that others
disturb must end with the same weights, bit for bit.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.attack.kills import digest
from tests.attack.targets import Target
from tests.processes import Child

_ENDS_S = 600


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a client's training.

    Attributes:
        weights: The digest of the file of its last weights.
        latencies_s: How long each step took, from sending to its result.
    """

    weights: str
    latencies_s: list[float]

    @property
    def slowest_s(self) -> float:
        """The longest step."""
        return max(self.latencies_s)


class Neighbour:
    """A client that trains while something else goes on; :meth:`result` waits for its end.

    Args:
        target: The engine.
        steps: The number of steps.
        base_url: The address to reach it by; ``None`` is its own.
        pause_s: Seconds between two steps.
    """

    def __init__(
        self, target: Target, *, steps: int, base_url: str | None = None, pause_s: float = 0.0
    ) -> None:
        self._target = target
        self._process = Child(
            sys.executable,
            "-m",
            "tests.attack.neighbour",
            base_url or target.base_url,
            target.base_model,
            str(steps),
            str(pause_s),
            env={
                "TINKER_API_KEY": target.api_key,
                "TINKER_TELEMETRY": "0",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
        )

    def result(self) -> Trained:
        """Wait for its end.

        Raises:
            AssertionError: It failed; its output is in the message.
        """
        said = json.loads(self._process.read_line('"path"', timeout=_ENDS_S))
        self._process.wait(0)
        return Trained(digest(self._target.root, said["path"]), said["latencies_s"])

    def kill(self) -> None:
        """End it, if it runs."""
        self._process.kill()


@contextmanager
def neighbour(
    target: Target, *, steps: int, base_url: str | None = None, pause_s: float = 0.0
) -> Iterator[Neighbour]:
    """A client that trains; it ends with the block."""
    started = Neighbour(target, steps=steps, base_url=base_url, pause_s=pause_s)
    try:
        yield started
    finally:
        started.kill()


def train(target: Target, *, steps: int, base_url: str | None = None) -> Trained:
    """Train to the end."""
    with neighbour(target, steps=steps, base_url=base_url) as started:
        return started.result()


def _main() -> None:
    import numpy as np
    from tinker import ServiceClient, types

    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("base_model")
    parser.add_argument("steps", type=int)
    parser.add_argument("pause_s", type=float)
    arguments = parser.parse_args()
    service = ServiceClient(base_url=arguments.base_url, api_key=os.environ["TINKER_API_KEY"])
    assert service.holder.get_session_id()
    client = service.create_lora_training_client(
        base_model=arguments.base_model, rank=4, seed=1, train_unembed=False
    ).result()
    latencies = []
    for step in range(arguments.steps):
        tokens = [(step * 3 + index * 5) % 15 + 1 for index in range(8)]
        datum = types.Datum(
            model_input=types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={
                "target_tokens": types.TensorData.from_numpy(np.array(tokens[1:])),
                "weights": types.TensorData.from_numpy(np.ones(len(tokens) - 1, np.float32)),
            },
        )
        began = time.monotonic()
        computed = client.forward_backward([datum], "cross_entropy")
        stepped = client.optim_step(types.AdamParams(learning_rate=1e-2))
        computed.result()
        stepped.result()
        latencies.append(round(time.monotonic() - began, 4))
        time.sleep(arguments.pause_s)
    path = client.save_state("final").result().path
    sys.stdout.write(json.dumps({"path": path, "latencies_s": latencies}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the SDK's threads may wait for answers that a proxy swallowed


if __name__ == "__main__":
    _main()
