"""Models built by handlers, compared with transformers' models of the same config and weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from art.errors import ConfigurationError
from art.megatron.model_support import handlers

from .tiny_models import CASES, FAMILIES, SPECS, family_handler, hf_config, hf_model, save

Logits = Callable[[str], tuple[torch.Tensor, torch.Tensor]]

TOKENS = 33  # more than the context that the scaled rotations were trained with


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Logits:
    """Computes the logits of a case by our model and by transformers'."""

    def run(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        from art.megatron.models.build import build_model, transformer_config
        from art.megatron.weights.load import load_weights

        folder = tmp_path_factory.mktemp(name)
        reference = save(name, folder)
        handler = CASES[name].handler
        architecture = handler.read_config(hf_config(name))
        model = build_model(architecture, transformer_config(architecture, dtype=torch.float32))
        load_weights(model, handler.weight_mapping(architecture), folder)
        tokens = torch.randint(97, (2, TOKENS), generator=torch.Generator().manual_seed(1))
        positions = torch.arange(TOKENS).expand(2, -1)
        with torch.no_grad():
            return model(tokens, positions, None), reference(tokens).logits

    return run


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_transformers(logits: Logits, name: str) -> None:
    ours, theirs = logits(name)
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_a_config_and_its_json_are_read_alike(name: str) -> None:
    handler = CASES[name].handler
    config = hf_config(name)
    assert handler.read_config(config.to_diff_dict()) == handler.read_config(config)


UNSUPPORTED: list[tuple[str, object, str]] = [
    ("hidden_act", "gelu", "hidden_act='gelu'"),
    ("attention_bias", True, "attention_bias=True"),
    ("mlp_bias", True, "mlp_bias"),
    ("num_key_value_heads", 5, "num_key_value_heads=5"),
    ("hidden_size", "60", "hidden_size"),
    ("rope_parameters", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "'dynamic'"),
    (
        "rope_parameters",
        {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 0.5,
            "original_max_position_embeddings": 8,
        },
        "rope_parameters.factor=0.5",
    ),
    (
        "rope_parameters",
        {"rope_type": "default", "rope_theta": 1e4, "new": 1},
        "rope_parameters.new",
    ),
    ("is_encoder_decoder", True, "is_encoder_decoder"),
    ("logit_scale", 0.5, "logit_scale"),
]


@pytest.mark.parametrize(("field", "value", "message"), UNSUPPORTED)
def test_an_unsupported_field_is_named(field: str, value: object, message: str) -> None:
    config = hf_config("llama3_dense").to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=message):
        handlers.LLAMA3_DENSE_HANDLER.read_config(config)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_of_another_family_is_refused(name: str, family: str) -> None:
    handler = family_handler(family)
    config = hf_config(name)
    if config.model_type in SPECS[family].model_types:
        assert handler.read_config(config).vocab_size == 97
        return
    with pytest.raises(ConfigurationError, match=f"{family} model has model_type"):
        handler.read_config(config)


def test_sliding_windows_are_refused() -> None:
    config = hf_config("qwen3_dense").to_dict()
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    with pytest.raises(ConfigurationError, match="sliding_window"):
        handlers.QWEN3_DENSE_HANDLER.read_config(config)


def test_attention_of_other_layer_types_is_refused() -> None:
    config = hf_config("qwen3_dense").to_dict() | {"layer_types": ["sliding_attention"] * 3}
    with pytest.raises(ConfigurationError, match="layer_types"):
        handlers.QWEN3_DENSE_HANDLER.read_config(config)


def test_other_dtypes_are_refused() -> None:
    from art.megatron.models.build import transformer_config

    architecture = handlers.LLAMA3_DENSE_HANDLER.read_config(hf_config("llama3_dense"))
    with pytest.raises(ConfigurationError, match="float64"):
        transformer_config(architecture, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_near_transformers(tmp_path: Path, name: str) -> None:
    """The two round in another order, so they differ by a few of bfloat16's last bits."""
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    reference = hf_model(name)
    save(name, tmp_path)
    handler = CASES[name].handler
    architecture = handler.read_config(hf_config(name))
    model = build_model(architecture, transformer_config(architecture, dtype=torch.bfloat16))
    load_weights(model, handler.weight_mapping(architecture), tmp_path)
    tokens = torch.randint(97, (1, TOKENS))
    with torch.no_grad():
        ours = model(tokens, torch.arange(TOKENS)[None], None)
        theirs = reference(tokens).logits
    assert ours.dtype is torch.bfloat16
    assert (ours - theirs).abs().mean() < 0.02 * theirs.abs().max()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_experts_per_tok", 7, "there are 6 experts"),
        ("num_experts_per_tok", 1, "its router learns nothing"),
        ("mlp_only_layers", [5], "mlp_only_layers"),
        ("mlp_only_layers", [0, 1], "no layer would have experts"),
        ("decoder_sparse_step", 3, "no layer would have experts"),
    ],
)
def test_an_unsupported_field_about_experts_is_named(
    field: str, value: object, message: str
) -> None:
    config = hf_config("qwen3_moe").to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=message):
        handlers.QWEN3_MOE_HANDLER.read_config(config)


PUBLISHED_QWEN3_5 = {
    "attn_output_gate": True,
    "full_attention_interval": 4,
    "mamba_ssm_dtype": "float32",
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "mlp_only_layers": [],
}


def test_fields_of_the_published_qwen3_5_configs_are_known() -> None:
    config = hf_config("qwen3_5_moe").to_dict()
    handler = handlers.QWEN3_5_MOE_HANDLER
    assert handler.read_config(config | PUBLISHED_QWEN3_5) == handler.read_config(config)
    for field, value in {"attn_output_gate": False, "mamba_ssm_dtype": "bfloat16"}.items():
        with pytest.raises(ConfigurationError, match=field):
            handler.read_config(config | {field: value})
    with pytest.raises(ConfigurationError, match="linear_num_value_heads=5"):
        handler.read_config(config | {"linear_num_value_heads": 5})


def test_the_copy_of_a_field_that_older_transformers_keep_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before 5.20 they keep a `partial_rotary_factor` beside `rope_parameters` that they do not
    use: it is a default, and need not be the same."""
    config, handler = hf_config("qwen3_5_dense"), handlers.QWEN3_5_DENSE_HANDLER
    expected = handler.read_config(config)
    to_dict = type(config).to_dict
    monkeypatch.setattr(
        type(config), "to_dict", lambda self: to_dict(self) | {"partial_rotary_factor": 0.25}
    )
    assert handler.read_config(config) == expected
    assert expected.rope.rotated == 10  # half of a head, as rope_parameters says


def test_a_vision_language_config_that_contradicts_itself_is_refused() -> None:
    config = hf_config("qwen3_5_dense_vision").to_dict() | {"tie_word_embeddings": True}
    with pytest.raises(ConfigurationError, match="tie_word_embeddings=True"):
        handlers.QWEN3_5_DENSE_HANDLER.read_config(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attention_bias", False, "only True"),
        ("swiglu_alpha", 1.5, "only 1.702"),
        ("swiglu_limit", -1.0, "not negative"),
        ("sliding_window", None, "positive whole number"),
        ("layer_types", ["sliding_attention", "chunked_attention"], "for each of 2 layers"),
        ("num_experts_per_tok", 1, "its router learns nothing"),
        ("experts_per_token", 2, "only 3"),
    ],
)
def test_a_field_that_gpt_oss_does_not_support_is_named(
    field: str, value: object, message: str
) -> None:
    config = hf_config("gpt_oss").to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=f"config's {field}.*{message}"):
        handlers.GPT_OSS_HANDLER.read_config(config)
