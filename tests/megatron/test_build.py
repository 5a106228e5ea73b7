"""Models that handlers build, against transformers' models of the same config and weights."""

import pytest
import torch

from art.errors import ConfigurationError
from art.megatron.model_support import handlers

from .tiny_models import CASES, MODEL_TYPES, hf_config, hf_model, save

TOKENS = 33  # more than the context that the scaled rotations were trained with


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Logits:
    """The logits of a case by our model and by transformers'."""

    def run(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        from art.megatron.models.build import build_model, transformer_config
        from art.megatron.weights.load import load_weights

        folder = tmp_path_factory.mktemp(name)
        reference = save(name, folder)
        handler = getattr(handlers, f"{CASES[name].family.upper()}_HANDLER")
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
def test_a_config_is_read_the_same_from_its_json(name: str) -> None:
    handler = getattr(handlers, f"{CASES[name].family.upper()}_HANDLER")
    config = hf_config(name)
    assert handler.read_config(config.to_diff_dict()) == handler.read_config(config)


UNSUPPORTED = [
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
def test_what_is_not_supported_is_named(field: str, value: object, message: str) -> None:
    config = hf_config("llama3_dense").to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=message):
        handlers.LLAMA3_DENSE_HANDLER.read_config(config)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", MODEL_TYPES)
def test_the_config_of_another_family_is_refused(name: str, family: str) -> None:
    handler = getattr(handlers, f"{family.upper()}_HANDLER")
    config = hf_config(name)
    if config.model_type in MODEL_TYPES[family]:
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
    """Each rounds in its own order, so the two differ by a few of bfloat16's last bits."""
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    reference = hf_model(name)
    save(name, tmp_path)
    handler = getattr(handlers, f"{CASES[name].family.upper()}_HANDLER")
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
def test_experts_that_are_not_supported_are_named(field: str, value: object, message: str) -> None:
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


def test_the_copy_of_a_field_that_older_transformers_keep_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before 5.20 they leave `partial_rotary_factor` beside `rope_parameters`, and go by the one
    inside: the one outside is a default, and need not be the same."""
    config, handler = hf_config("qwen3_5_dense"), handlers.QWEN3_5_DENSE_HANDLER
    expected = handler.read_config(config)
    to_dict = type(config).to_dict
    monkeypatch.setattr(
        type(config), "to_dict", lambda self: to_dict(self) | {"partial_rotary_factor": 0.25}
    )
    assert handler.read_config(config) == expected
    assert expected.rope.rotated == 10  # half of a head, as rope_parameters says


def test_a_vision_language_config_has_to_agree_with_itself() -> None:
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
def test_what_gpt_oss_does_not_have_is_named(field: str, value: object, message: str) -> None:
    config = hf_config("gpt_oss").to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=f"config's {field}.*{message}"):
        handlers.GPT_OSS_HANDLER.read_config(config)
