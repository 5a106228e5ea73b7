"""The parts of a model that LoRA can adapt: linear layers and fused experts, as PEFT names them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from art.errors import InvalidRequestError, UnsupportedModelArchitectureError
from art.executors.torch.language_model import LanguageModel
from art.executors.types import LoraConfig
from art.megatron.model_support.registry import get_model_support_spec

# A layer belongs to a part by a piece of its path; the parts are fields of `LoraConfig`.
_WORDS_OF_PART = {
    "train_attn": ("attn", "attention"),
    "train_mlp": ("mlp", "feed_forward", "experts"),
}
_UNEMBED = "train_unembed"
# The registry's word for all routed experts.
_EXPERTS = "experts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Names to give PEFT. Each is the end of one or more paths in the model.

    Attributes:
        modules: ``target_modules``: linear layers.
        parameters: ``target_parameters``: the weights of modules that are no linear layer.
    """

    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def __add__(self, other: "Targets") -> "Targets":
        return Targets(
            modules=(*self.modules, *other.modules),
            parameters=(*self.parameters, *other.parameters),
        )


class AdaptableParts:
    """The targets of each part of a model, by the names of the wire's LoRA configuration.

    In a model of a family that :mod:`art.megatron.model_support` knows, these are the family's
    default target modules; in any other, all linear layers and all fused experts.

    Args:
        language_model: The model, without adapters.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        model = language_model.model
        self._architecture = type(model).__name__
        wanted = family_target_modules(language_model.folder)
        modules = {part: set[str]() for part in (*_WORDS_OF_PART, _UNEMBED)}
        parameters = {part: set[str]() for part in modules}
        self._paths: dict[str, list[str]] = {part: [] for part in modules}
        head = model.get_output_embeddings()
        for path, module in model.named_modules():
            if module is head:
                modules[_UNEMBED].add(path)
                self._paths[_UNEMBED].append(path)
            elif isinstance(module, torch.nn.Linear):
                self._note(modules, path, wanted)
            else:
                for name in _fused_weights(module):
                    self._note(parameters, f"{path}.{name}", wanted)
        self._targets = {part: _targets(model, modules[part], parameters[part]) for part in modules}
        experts_wanted = wanted is None or _EXPERTS in wanted
        self._refusal = next(_unadaptable_experts(model), None) if experts_wanted else None

    def targets(self, lora: LoraConfig) -> Targets:
        """Choose what a configuration adapts.

        Raises:
            InvalidRequestError: Nothing is left to train, or the model has experts that cannot be
                adapted.
        """
        if lora.train_mlp and self._refusal is not None:
            raise InvalidRequestError(
                f"train_mlp would leave out the experts of {self._architecture}: {self._refusal}. "
                "Create the model with train_mlp=False to train the rest"
            )
        wanted = [targets for part, targets in self._targets.items() if getattr(lora, part)]
        chosen = sum(wanted, Targets())
        if not chosen.modules and not chosen.parameters:
            raise InvalidRequestError(
                "nothing to train: train_attn, train_mlp and train_unembed are all off, or the "
                "model has no linear layers of that kind"
            )
        return chosen

    def parts_of(self, config: Mapping[str, Any]) -> set[str]:
        """Find the parts that a PEFT configuration adapts.

        Raises:
            ValueError: It adapts nothing of this model.
        """
        named = config["target_modules"] or ()
        parameters = tuple(config.get("target_parameters") or ())
        parts = {
            part
            for part, paths in self._paths.items()
            if any(_matches(path, named) or _matches(path, parameters) for path in paths)
        }
        if not parts:
            raise ValueError(f"target_modules {named!r} are not modules of {self._architecture}")
        return parts

    def _note(self, targets: dict[str, set[str]], path: str, wanted: frozenset[str] | None) -> None:
        """Add the end of a path, from the piece that names its part, to that part's targets.

        A checkpoint so tells its parts by itself, whatever reads it.
        """
        pieces = path.split(".")
        if wanted is not None and pieces[-1] not in wanted:
            routed = any(piece == _EXPERTS for piece in pieces[:-1])
            if not (routed and _EXPERTS in wanted):
                return
        for index, piece in enumerate(pieces[:-1]):
            for part, words in _WORDS_OF_PART.items():
                if any(word in piece for word in words):
                    targets[part].add(".".join(pieces[index:]))
                    self._paths[part].append(path)
                    return


def family_target_modules(folder: Path) -> frozenset[str] | None:
    """Look up the modules that a base model's family adapts by default.

    Args:
        folder: The base model's folder; its ``config.json`` tells the family.

    Returns:
        Names of modules, ``"experts"`` among them where routed experts are adapted; ``None``
        where no family is known.
    """
    try:
        return frozenset(get_model_support_spec(str(folder)).default_target_modules)
    except UnsupportedModelArchitectureError:
        return None


def _fused_weights(module: torch.nn.Module) -> list[str]:
    """List the parameters of a module that hold one matrix for each expert, ``[E, .., ..]``."""
    if isinstance(module, torch.nn.Conv1d):
        return []
    return [
        name
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3 and parameter.is_floating_point()
    ]


def _unadaptable_experts(model: torch.nn.Module) -> Iterator[str]:
    """Say of each module with experts that PEFT cannot adapt why that is."""
    for path, module in model.named_modules():
        routed = any(_EXPERTS in piece and "shared" not in piece for piece in path.split("."))
        if not routed or isinstance(module, torch.nn.Linear) or _fused_weights(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                yield (
                    f"{path}.{name} is {list(parameter.shape)} in {parameter.dtype}, and only "
                    "weights in a floating-point type with one matrix an expert, [experts, .., "
                    "..], can be adapted"
                )


def _targets(model: Any, modules: set[str], parameters: set[str]) -> Targets:
    # PEFT takes some names of linear layers for those of experts: since transformers 5 fused them,
    # it redirects old configurations. Such layers are adapted by their weight, which is the same
    # computation in the same format.
    taken = _taken_for_experts(model, modules)
    return Targets(
        modules=tuple(sorted(modules - taken)),
        parameters=tuple(sorted({*parameters, *(f"{module}.weight" for module in taken)})),
    )


def _taken_for_experts(model: Any, modules: set[str]) -> set[str]:
    from peft import LoraConfig as PeftLoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = PeftLoraConfig(target_modules=sorted(modules))
    convert_peft_config_for_transformers(config, model=model, conversions=None)
    return modules - set(config.target_modules or ())


def _matches(path: str, names: str | Iterable[str]) -> bool:
    """Tell whether PEFT would find a path by ``target_modules`` or ``target_parameters``."""
    if isinstance(names, str):
        return names == "all-linear" or re.fullmatch(names, path) is not None
    # A linear layer that is adapted by parameter is named by its weight.
    return any(f".{path}".endswith(f".{name.removesuffix('.weight')}") for name in names)
