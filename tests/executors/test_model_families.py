"""Models that cannot take a tree mask, and one that can, against their own plain forward."""

import numpy as np
import pytest
import torch

from art.executors.torch.executor import TorchExecutor
from art.executors.types import Datum, LoraConfig, LossFunction, SampleRequest, SamplingParams

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 2,
}
# Windows shorter than the sequences below, so that a wrong mask shows.
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
# Name, further settings, whether it takes a tree mask, tolerance of its kernels.
FAMILIES = [
    ("Mistral", {"sliding_window": 8}, False, 2e-5),
    ("Gemma2", {"sliding_window": 8}, False, 2e-5),
    ("Qwen3Next", LINEAR, False, 5e-4),
    ("Qwen3", {}, True, 2e-5),
]


@pytest.mark.parametrize(("family", "fields", "tree", "tolerance"), FAMILIES)
def test_sampling_training_and_the_plain_forward_agree(
    tiny_model, tmp_path, family, fields, tree, tolerance
):
    executor = _executor(tiny_model, tmp_path, family, fields)
    assert executor._language_model.takes_tree_mask is tree
    prompts = [np.arange(100, 100 + length) for length in (20, 5, 20, 31)]
    requests = [
        SampleRequest(
            sampler_id="sampler",
            prompt=prompt,
            num_samples=2,
            params=SamplingParams(max_tokens=8 + index, seed=index, stop_token_ids=(0,)),
        )
        for index, prompt in enumerate(prompts)
    ]
    data, sampled = [], []
    for prompt, result in zip(prompts, executor.sample(requests), strict=True):
        for sequence in result.sequences:
            tokens = np.concatenate([prompt, sequence.tokens])
            data.append(Datum(tokens=tokens[:-1], loss_inputs={"target_tokens": tokens[1:]}))
            sampled.append(sequence.logprobs)
    loss = LossFunction(name="cross_entropy")
    trained = executor.forward_backward("model", data, loss, backward=True)
    for datum, output, logprobs in zip(data, trained.outputs, sampled, strict=True):
        computed = output["logprobs"]
        np.testing.assert_allclose(computed[-len(logprobs) :], logprobs, atol=tolerance)
        np.testing.assert_allclose(computed, _plain(executor, datum), atol=tolerance)
    assert executor._models["model"].optimizer._has_gradients


def _executor(tiny_model, folder, family, fields):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = getattr(transformers, f"{family}Config")(
        **SMALL, **fields, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    executor = TorchExecutor(folder / "base", device="cpu")
    executor.create_model("model", LoraConfig(rank=4, alpha=8, seed=1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in executor._adapters.parameters("model model").values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    (folder / "adapter").mkdir()
    executor.save_weights("model", folder / "adapter", optimizer=False)
    executor.load_sampler("sampler", folder / "adapter")
    return executor


@torch.no_grad()
def _plain(executor, datum):
    with executor._adapters.active("model model", trainable=False):
        model = executor._language_model.model
        logits = model(torch.from_numpy(datum.tokens)[None], use_cache=False).logits[0].float()
    index = range(len(datum.tokens))
    return torch.log_softmax(logits, -1)[index, datum.loss_inputs["target_tokens"]].numpy()
