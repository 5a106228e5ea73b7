"""A program for the SDK of any version: train, sample, save and resume, then print the facts.

It runs in an interpreter that has the SDK and nothing of this repository, with ``TINKER_BASE_URL``
and ``TINKER_API_KEY`` set. The last line that it writes is one JSON object.
"""

import json
import sys
import warnings
from typing import Any

import numpy as np
import tinker
from tinker import types

TOKENS = [1, 2, 3, 4, 5]
ADAM = types.AdamParams(learning_rate=1e-2)


def settled(value: Any) -> Any:
    """The result of a future; newer SDKs return one where older ones returned the value."""
    return value.result() if "Future" in type(value).__name__ else value


def datum() -> types.Datum:
    """One sequence, every token of which is a target."""
    return types.Datum(
        model_input=types.ModelInput.from_ints(TOKENS[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(np.array(TOKENS[1:])),
            "weights": types.TensorData.from_numpy(np.ones(len(TOKENS) - 1, np.float32)),
        },
    )


def train(trainer: Any, steps: int) -> list[float]:
    """Losses of some steps; all passes and updates are sent before the first answer is read."""
    sent = [
        (trainer.forward_backward([datum()], "cross_entropy"), trainer.optim_step(ADAM))
        for _ in range(steps)
    ]
    losses = []
    for computed, updated in sent:
        losses.append(computed.result().metrics["loss:sum"])
        updated.result()
    return losses


def logprobs(trainer: Any) -> list[float]:
    """The trainer's logprobs of the sequence's targets."""
    result = trainer.forward([datum()], "cross_entropy").result()
    return [float(value) for value in result.loss_fn_outputs[0]["logprobs"].data]


def run(base_model: str) -> dict[str, Any]:
    """Go through a training run as a user would."""
    service = tinker.ServiceClient()
    capabilities = settled(service.get_server_capabilities())
    trainer = settled(service.create_lora_training_client(base_model, rank=4, seed=1))
    losses = train(trainer, steps=4)

    trained = logprobs(trainer)
    unnamed = settled(trainer.save_weights_and_get_sampling_client())
    sampled = unnamed.sample(
        types.ModelInput.from_ints(TOKENS[:2]),
        num_samples=3,
        sampling_params=types.SamplingParams(max_tokens=4, seed=3, stop=[]),
    ).result()
    scored = unnamed.compute_logprobs(types.ModelInput.from_ints(TOKENS)).result()[1:]

    weights = trainer.save_weights_for_sampler("named").result().path
    named = settled(service.create_sampling_client(model_path=weights))
    scored_again = named.compute_logprobs(types.ModelInput.from_ints(TOKENS)).result()[1:]

    state = trainer.save_state("state").result().path
    uninterrupted = train(trainer, steps=2)
    resumed = settled(service.create_training_client_from_state_with_optimizer(state))
    resumed_losses = train(resumed, steps=2)
    resumed.load_state_with_optimizer(state).result()
    reloaded_losses = train(resumed, steps=2)

    rest = service.create_rest_client()
    checkpoints = rest.list_checkpoints(trainer.model_id).result().checkpoints
    info = trainer.get_info()
    return {
        "version": tinker.__version__,
        "models": [model.model_name for model in capabilities.supported_models],
        "rank": info.lora_rank,
        "losses": losses,
        "trained_logprobs": trained,
        "sampled_lengths": [len(sequence.tokens) for sequence in sampled.sequences],
        "sampled_logprobs": [len(sequence.logprobs) for sequence in sampled.sequences],
        "scored_logprobs": list(scored),
        "named_logprobs": list(scored_again),
        "uninterrupted": uninterrupted,
        "resumed": resumed_losses,
        "reloaded": reloaded_losses,
        "checkpoints": sorted(checkpoint.tinker_path for checkpoint in checkpoints),
        "model_id": trainer.model_id,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # newer SDKs deprecate what older ones need
    sys.stdout.write(json.dumps(run(sys.argv[1])) + "\n")
