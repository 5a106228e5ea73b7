"""Insertion of adapters into a model. Axes: T tokens, I input and O output features."""

from collections.abc import Iterator, Sequence

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from torch import Tensor, distributed, nn

from art.errors import ConfigurationError
from art.megatron.model_support.protocol import ModelSupportHandler
from art.megatron.model_support.spec import LoraTarget

from .config import MegatronLoraConfig
from .layers import ColumnAdapter, LinearAdapter, RowAdapter
from .projections import column_fusion

_ATTRIBUTE = "adapter"


def add_adapters(model: GPTModel, handler: ModelSupportHandler, config: MegatronLoraConfig) -> None:
    """Add adapters to a model's linear modules, and freeze all other parameters.

    The model's outputs do not change yet, since every B starts at zero. Its own parameters keep
    their memory and their names. All ranks of the model must call it.

    Args:
        model: A model, or the part of one that a pipeline rank holds.
        handler: The handler of the model's family.
        config: The adapter's config.

    Raises:
        ConfigurationError: The model has adapters already, has no module of a name in
            ``target_modules``, or has such a module that cannot be adapted.
    """
    if next(adapters_of(model), None) is not None:
        raise ConfigurationError("the model has adapters already")
    targets = handler.collect_lora_targets(model)
    _check_names(config.target_modules, targets)
    adapters = {}
    for target in targets:
        modules = _adapted(target, config.target_modules)
        if any(modules.values()):
            linear = model.get_submodule(target.module_path)
            adapters[target.module_path] = _adapter(
                target.module_path, linear, model, config, modules
            )
    model.requires_grad_(False)
    for path, adapter in adapters.items():
        linear = model.get_submodule(path)
        linear.register_module(_ATTRIBUTE, adapter)
        linear.register_forward_hook(_add_adapter_output)


def adapters_of(model: nn.Module) -> Iterator[LinearAdapter]:
    """Find the adapters of a model, in the order of its layers."""
    return (module for module in model.modules() if isinstance(module, LinearAdapter))


def _adapter(
    path: str,
    linear: nn.Module,
    model: GPTModel,
    config: MegatronLoraConfig,
    modules: dict[str, bool],
) -> LinearAdapter:
    if isinstance(linear, ColumnParallelLinear):
        return ColumnAdapter(linear, config, column_fusion(path, linear, model.config, modules))
    if isinstance(linear, RowParallelLinear):
        (module,) = modules
        return RowAdapter(linear, config, module)
    raise ConfigurationError(
        f"{path} is a {type(linear).__name__}; art adapts ColumnParallelLinear and "
        "RowParallelLinear, which a layer spec of megatron's local layers has"
    )


def _adapted(target: LoraTarget, wanted: Sequence[str]) -> dict[str, bool]:
    """Map each of a target's modules to True if it is wanted."""
    if "experts" in target.target_modules:
        chosen = not set(wanted).isdisjoint(target.target_modules)
        return dict.fromkeys(target.adapter_modules, chosen)
    return {
        module: name in wanted
        for module, name in zip(target.adapter_modules, target.target_modules, strict=True)
    }


def _check_names(wanted: Sequence[str], targets: Sequence[LoraTarget]) -> None:
    # A pipeline rank may lack a kind of layer that another rank has.
    group = parallel_state.get_pipeline_model_parallel_group()
    names = {name for target in targets for name in target.target_modules}
    names_of_ranks: list[set[str]] = [set()] * group.size()
    distributed.all_gather_object(names_of_ranks, names, group=group)
    known = set().union(*names_of_ranks)
    projections = {"gate_proj", "up_proj", "down_proj"}
    if "experts" in known and "experts" not in wanted and 0 < len(projections & set(wanted)) < 3:
        raise ConfigurationError(
            "an expert is adapted whole, since PEFT keeps its gate and up together: name "
            f"experts, or all of {', '.join(sorted(projections))}"
        )
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigurationError(
            f"the model has no modules called {', '.join(unknown)}; those that can be adapted "
            f"are {', '.join(sorted(known))}"
        )


def _add_adapter_output(
    linear: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, Tensor | None]:
    x_TI = inputs[0]
    output_TO, bias_O = outputs
    return output_TO + linear.get_submodule(_ATTRIBUTE)(x_TI), bias_O
