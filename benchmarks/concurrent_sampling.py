"""What many requests at once cost, against one: ``python -m benchmarks.concurrent_sampling``.

One engine on this machine, asked through its OpenAI-compatible endpoint by the official client.
The baseline is one request alone; the rounds alternate, and only their ratio means anything.
"""

import argparse
import asyncio
import statistics
import tempfile
import time

import art

PROMPT = "Count from one to a hundred, in words."


async def seconds(model: art.TrainableModel[None], requests: int, max_tokens: int) -> float:
    """Wall time of `requests` requests that are sent together, of one sample each."""
    client = model.openai_client()
    started = time.perf_counter()
    await asyncio.gather(
        *(
            client.chat.completions.create(
                model=model.get_inference_name(),
                messages=[{"role": "user", "content": PROMPT}],
                max_tokens=max_tokens,
            )
            for _ in range(requests)
        )
    )
    return time.perf_counter() - started


async def main(options: argparse.Namespace) -> None:
    """Measure and print the ratio."""
    with tempfile.TemporaryDirectory() as path:
        model = art.TrainableModel(name="bench", project="bench", base_model=options.base_model)
        async with art.LocalBackend(path=path) as backend:
            await model.register(backend)
            await seconds(model, 1, options.max_tokens)
            one, many = [], []
            for _ in range(options.rounds):
                one.append(await seconds(model, 1, options.max_tokens))
                many.append(await seconds(model, options.requests, options.max_tokens))
    alone, together = statistics.median(one), statistics.median(many)
    print(f"1 request: {alone:.2f} s, {options.requests} together: {together:.2f} s")
    print(f"ratio: {together / alone:.1f} (one after the other it would be {options.requests})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python -m benchmarks.concurrent_sampling --requests 64 --rounds 5",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args()))
