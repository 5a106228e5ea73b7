"""megatron-core on a CPU, in one process, and the tiny models that are built with it.

Without megatron-core, an extra for Linux only, these tests are skipped. It is therefore imported
in the fixtures.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch
from torch._C._distributed_c10d import HashStore

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules

    from .mesh_launch import MeshRuns


class FamilyConfig(Protocol):
    """Builds the tiny config of a family by its key; options override."""

    def __call__(self, key: str, **options: object) -> "TransformerConfig": ...


class BuildModel(Protocol):
    """Builds the model of a config, of megatron's own layers."""

    def __call__(self, config: "TransformerConfig") -> "GPTModel": ...


class Measure(Protocol):
    """Notes the difference of a case from its reference, for the table at the end."""

    def __call__(self, case: str, check: str, difference: float) -> None: ...


@pytest.fixture(scope="package", autouse=True)
def one_process() -> Iterator[None]:
    """A gloo group of one process, and megatron on its CPU."""
    pytest.importorskip("megatron.core", reason="needs the extra megatron")
    from megatron.core import parallel_state

    from art.megatron.cpu import megatron_on_cpu

    store = HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    with megatron_on_cpu():
        yield
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def mesh_runs(tmp_path_factory: pytest.TempPathFactory) -> "MeshRuns":
    """All cases on all meshes of processes, launched when they are first asked for."""
    pytest.importorskip("megatron.core", reason="needs the extra megatron")
    from .mesh_launch import MeshRuns

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "meshes"
    folder.mkdir(exist_ok=True)
    return MeshRuns(folder)


@pytest.fixture
def measure(record_property: Callable[[str, object], None]) -> Measure:
    """Notes the difference of a case from its reference, for the table at the end."""

    def note(case: str, check: str, difference: float) -> None:
        record_property("difference", (case, check, difference))

    return note


@pytest.fixture(scope="session")
def family_config() -> FamilyConfig:
    """Builds the tiny config of a family by its key; options override."""

    def build(key: str, **options: object) -> "TransformerConfig":
        from megatron.core.transformer import TransformerConfig

        from .megatron_configs import CONFIGS, TINY

        fields: dict[str, Any] = TINY | CONFIGS[key] | options
        return TransformerConfig(**fields)

    return build


@pytest.fixture(scope="session")
def build_model() -> BuildModel:
    """Builds the model of a config, of megatron's own layers."""

    def build(config: "TransformerConfig") -> "GPTModel":
        from megatron.core.models.gpt import GPTModel

        return GPTModel(
            config=config,
            transformer_layer_spec=_block_spec(config),
            vocab_size=64,
            max_sequence_length=16,
            position_embedding_type="rope",
        )

    return build


def _block_spec(config: "TransformerConfig") -> "TransformerBlockSubmodules":
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.ssm.gated_delta_net import GatedDeltaNet, GatedDeltaNetSubmodules
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
    from megatron.core.transformer import ModuleSpec
    from megatron.core.transformer.torch_norm import WrappedTorchNorm
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules

    if config.experimental_attention_variant is None:
        return gpt_layer_specs.get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    # Megatron has the spec of hybrid blocks for Transformer Engine only; this is the same block of
    # its local layers, every linear_attention_freq-th with standard attention.
    gated_delta_net = ModuleSpec(
        module=GatedDeltaNet,
        submodules=GatedDeltaNetSubmodules(
            in_proj=ColumnParallelLinear, out_norm=WrappedTorchNorm, out_proj=RowParallelLinear
        ),
    )
    every = config.linear_attention_freq
    assert isinstance(every, int)
    layers = []
    for number in range(1, config.num_layers + 1):
        layer = gpt_layer_specs.get_gpt_layer_local_spec(
            num_experts=config.num_moe_experts,
            qk_layernorm=config.qk_layernorm,
            normalization=config.normalization,
        )
        if number % every:
            vars(layer.submodules)["self_attention"] = gated_delta_net
        layers.append(layer)
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=WrappedTorchNorm)
