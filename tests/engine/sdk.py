"""The official SDK as tests use it: clients of one engine, and a sequence to train on."""

import numpy as np
from tinker import RestClient, ServiceClient, TrainingClient, types

from ..engine_server import EngineServer

ADAM = types.AdamParams(learning_rate=1e-2)
PROMPT = types.ModelInput.from_ints([5, 6, 7, 8])


def rest_client(engine: EngineServer) -> RestClient:
    return RestClient(base_url=engine.base_url, api_key=engine.api_key)


def connect(
    engine: EngineServer, *, project_id: str | None = None, display_name: str | None = None
) -> ServiceClient:
    client = ServiceClient(
        base_url=engine.base_url,
        api_key=engine.api_key,
        project_id=project_id,
        display_name=display_name,
    )
    # The SDK makes its connection when it is first used, under a lock that its own event loop
    # takes too: two first uses at a time wait for each other for ever.
    assert client.holder.get_session_id()
    return client


def datum(tokens: list[int]) -> types.Datum:
    targets = np.array(tokens[1:])
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(targets),
            "weights": types.TensorData.from_numpy(np.ones(len(targets), np.float32)),
        },
    )


def train(client: TrainingClient, steps: int = 1) -> list[float]:
    """Losses of some steps on one sequence; passes and steps are sent together."""
    data = [datum([1, 2, 3, 4, 5])]
    futures = [
        (client.forward_backward(data, "cross_entropy"), client.optim_step(ADAM))
        for _ in range(steps)
    ]
    losses = []
    for computed, stepped in futures:
        losses.append(computed.result().metrics["loss:sum"])
        stepped.result()
    return losses
