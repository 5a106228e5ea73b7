"""What sampling controls cost a token: ``python -m benchmarks.sampling_controls``.

The torch executor alone, without a server. The cases take turns, and a case's figure is the median
of its steps; the cost of a control is the difference to the neutral case.
"""

import argparse
import itertools
import statistics
import time

import numpy as np

from art.executors.base_models import resolve_base_model
from art.executors.torch.executor import TorchExecutor
from art.executors.types import SampleRequest, SamplingParams
from art.formats.sampling_controls import NO_CONTROLS, SamplingControls

CASES = {
    "neutral": NO_CONTROLS,
    "min_p": SamplingControls(min_p=0.05),
    "bias and penalties": SamplingControls(
        logit_bias=tuple((token, -1.0) for token in range(100, 400)),
        frequency_penalty=0.1,
        presence_penalty=0.1,
        repetition_penalty=1.1,
    ),
    "grammar: any text": SamplingControls(grammar="start: /(.|\\n)*/"),
    "grammar: JSON": SamplingControls(
        grammar='start: %json {"type": "array", "items": {"type": "object", "properties": {'
        '"name": {"type": "string"}, "size": {"type": "number"}}, "required": ["name", "size"], '
        '"additionalProperties": false}, "minItems": 200}'
    ),
}
_numbers = itertools.count()


def steps_ms(executor: TorchExecutor, controls: SamplingControls, rows: int, tokens: int) -> float:
    """Run one request of `rows` samples, and return the median of its steps in milliseconds."""
    params = SamplingParams(max_tokens=tokens, seed=1, controls=controls)
    request = SampleRequest(
        adapter_id=None, prompt=np.arange(100, 356), num_samples=rows, params=params
    )
    executor.submit(str(next(_numbers)), request)
    executor.step()  # the prompt
    times = []
    while True:
        started = time.perf_counter()
        ended = executor.step()
        times.append((time.perf_counter() - started) * 1e3)
        if ended:
            outcome = ended[0].outcome
            if isinstance(outcome, Exception):
                raise outcome
            return statistics.median(times)


def main(options: argparse.Namespace) -> None:
    """Measure and print the table."""
    executor = TorchExecutor(resolve_base_model(options.base_model), device="cpu")
    started = time.perf_counter()
    steps_ms(executor, CASES["grammar: JSON"], 1, 2)
    print(f"the first grammar: {time.perf_counter() - started:.1f} s")
    for rows in options.rows:
        found: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(options.rounds):
            for name, controls in CASES.items():
                found[name].append(steps_ms(executor, controls, rows, options.max_tokens))
        neutral = statistics.median(found["neutral"])
        for name, times in found.items():
            added = (statistics.median(times) - neutral) / rows
            print(
                f"{rows:3} rows, {name:20} {statistics.median(times):8.2f} ms a step, "
                f"{added:+.3f} ms a token"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python -m benchmarks.sampling_controls --rows 1 16 --rounds 5",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args())
