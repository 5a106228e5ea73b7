"""Results to the bytes that the wire carries."""

import json
from collections.abc import Mapping

from art.engine.futures import JSON, Payload
from art.engine.results import (
    ModelCreated,
    OptimStepped,
    Result,
    Sampled,
    SavedForSampling,
    WeightsLoaded,
    WeightsSaved,
)
from art.engine.wire.protobuf import PROTOBUF, encode_forward_backward, encode_sample
from art.executors.types import ForwardBackwardResult

_SAVED = {
    "weights": "save_weights",
    "sampler_weights": "save_weights_for_sampler",
    "external_weights": "save_weights_external",
}


def encode(result: Result) -> Payload:
    """Encode a result: arrays as protobuf, all else as JSON."""
    match result:
        case ForwardBackwardResult():
            return Payload(PROTOBUF, encode_forward_backward(result))
        case Sampled(samples, last_n, layout):
            data = encode_sample(samples, prompt_logprobs_last_n=last_n, target_layout=layout)
            return Payload(PROTOBUF, data)
        case OptimStepped(metrics):
            return _json({"metrics": dict(metrics)})
        case ModelCreated(model_id):
            return _json({"model_id": model_id, "type": "create_model"})
        case WeightsLoaded(model_id, path):
            return _json({"path": str(path), "model_id": model_id, "type": "load_weights"})
        case WeightsSaved(path):
            return _json({"path": str(path), "type": _SAVED[path.kind]})
        case SavedForSampling(sampling_session_id):
            return _json(
                {
                    "sampling_session_id": sampling_session_id,
                    "type": "save_weights_for_sampler",
                }
            )


def _json(fields: Mapping[str, object]) -> Payload:
    return Payload(JSON, json.dumps(fields).encode())
