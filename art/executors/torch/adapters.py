"""LoRA adapters beside one base model, by PEFT: trainable ones and frozen ones to sample from."""

import contextlib
import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.executors.torch.language_model import LanguageModel
from art.executors.types import LoraConfig
from art.formats.peft_folder import CONFIG_FILE, WEIGHTS_FILE

logger = logging.getLogger(__name__)

# A linear layer belongs to a part by a piece of its path; both are the words of the wire.
_PARTS = {"train_attn": ("attn", "attention"), "train_mlp": ("mlp", "feed_forward", "experts")}


class Adapters:
    """The adapters in memory, by name.

    Args:
        language_model: The base model. Its linear layers are wrapped in place; no adapter is
            active outside :meth:`active`.
        base_model_name: Written into saved adapters.
    """

    def __init__(self, language_model: LanguageModel, base_model_name: str) -> None:
        self._model = language_model.model
        self._device = language_model.device
        self._base_model_name = base_model_name
        self._targets = _linear_layers(self._model)
        self._peft: Any = None
        # PEFT puts a name into module paths, where a dot would split it: ours are numbered.
        self._peft_names: dict[str, str] = {}
        self._count = 0

    def __contains__(self, name: str) -> bool:
        return name in self._peft_names

    def add(self, name: str, lora: LoraConfig) -> None:
        """Add an adapter: A random by the seed (Kaiming uniform), B zero, both float32.

        Raises:
            InvalidRequestError: The rank or alpha cannot be used, or nothing is left to train.
        """
        from peft import LoraConfig as PeftLoraConfig

        if lora.rank < 1 or not lora.alpha > 0:
            raise InvalidRequestError(
                f"LoRA rank must be 1 or more and alpha positive, not {lora.rank} and {lora.alpha}"
            )
        config = PeftLoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number scales
            target_modules=self._target_modules(lora),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            base_model_name_or_path=self._base_model_name,
        )
        seed = torch.seed() if lora.seed is None else lora.seed
        # PEFT draws A on the CPU, whatever the device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._inject(name, config)

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            NotFoundError: There is none of that name.
        """
        peft_name = self._peft_name(name)
        with warnings.catch_warnings():
            # PEFT then picks another to be active, which is no concern: `active` picks its own.
            warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted")
            self._peft.base_model.delete_adapter(peft_name)
        del self._peft_names[name]

    def parameters(self, name: str) -> dict[str, torch.nn.Parameter]:
        """An adapter's parameters, by the keys of its weights file."""
        infix = f".{self._peft_name(name)}."
        return {
            path.replace(infix, "."): parameter
            for path, parameter in self._peft.named_parameters()
            if infix in path
        }

    @contextlib.contextmanager
    def active(self, name: str | None, *, trainable: bool) -> Iterator[None]:
        """Make the base model compute with an adapter; with ``None``, as the base model.

        ``trainable`` is whether its parameters can be differentiated by.
        """
        if self._peft is None:
            if name is not None:
                self._peft_name(name)
            yield
        elif name is None:
            # Not PeftModel.disable_adapter: it looks up the adapter that was added first, which
            # may have been removed.
            self._peft.base_model.disable_adapter_layers()
            try:
                yield
            finally:
                self._peft.base_model.enable_adapter_layers()
        else:
            self._peft.base_model.set_adapter(self._peft_name(name), inference_mode=not trainable)
            yield

    def save(self, name: str, folder: Path) -> None:
        """Write a PEFT adapter folder.

        Raises:
            CheckpointError: It cannot be written.
        """
        from safetensors.torch import save_file

        weights = {key: p.detach().cpu().clone() for key, p in self.parameters(name).items()}
        config = self._peft.peft_config[self._peft_name(name)].to_dict()
        # Sets have no order; a checkpoint's bytes should.
        config["target_modules"] = sorted(config["target_modules"])
        config["inference_mode"] = True
        try:
            save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
            (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, default=str) + "\n")
        except OSError as error:
            raise CheckpointError(f"cannot write the adapter to {folder}: {error}") from error

    def read(self, name: str, folder: Path) -> dict[str, torch.Tensor]:
        """Read a folder's weights for an adapter, by the keys of :meth:`parameters`.

        Raises:
            CheckpointError: The folder cannot be read, or holds another shape of adapter.
        """
        weights = read_tensors(folder / WEIGHTS_FILE)
        expected = {key: parameter.shape for key, parameter in self.parameters(name).items()}
        if {key: tensor.shape for key, tensor in weights.items()} != expected:
            rank = self._peft.peft_config[self._peft_name(name)].r
            raise CheckpointError(
                f"the adapter in {folder} (rank {read_lora_config(folder).rank}) does not fit this "
                f"model's adapter (rank {rank}): other rank, target modules or base model. Create "
                "the model from the checkpoint instead."
            )
        return weights

    def write(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Replace an adapter's weights by what :meth:`read` gave."""
        with torch.no_grad():
            for key, parameter in self.parameters(name).items():
                parameter.copy_(weights[key])

    def add_from(self, name: str, folder: Path) -> None:
        """Add an adapter with a folder's configuration and weights.

        Raises:
            CheckpointError: The folder cannot be read, or is of another base model.
        """
        # The first values are overwritten, so the seed is of no consequence.
        self.add(name, dataclasses.replace(read_lora_config(folder), seed=0))
        try:
            self.write(name, self.read(name, folder))
        except CheckpointError:
            self.remove(name)
            raise

    def _inject(self, name: str, config: Any) -> None:
        from peft import PeftModel

        self._count += 1
        peft_name = f"adapter{self._count}"
        with warnings.catch_warnings():
            # Of concern to who merges an adapter of the output layer into tied weights.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
            if self._peft is None:
                self._peft = PeftModel(self._model, config, adapter_name=peft_name)
            else:
                self._peft.add_adapter(peft_name, config)
        self._peft_names[name] = peft_name

    def _peft_name(self, name: str) -> str:
        if name not in self._peft_names:
            raise NotFoundError(f"there is no adapter {name!r}")
        return self._peft_names[name]

    def _target_modules(self, lora: LoraConfig) -> list[str]:
        wanted = [part for part in self._targets if getattr(lora, part)]
        modules = sorted({module for part in wanted for module in self._targets[part]})
        if not modules:
            raise InvalidRequestError(
                "nothing to train: train_attn, train_mlp and train_unembed are all off, or the "
                "model has no linear layers of that kind"
            )
        return modules


def read_lora_config(folder: Path) -> LoraConfig:
    """The configuration of an adapter folder.

    Raises:
        CheckpointError: The folder or its ``adapter_config.json`` cannot be read.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        modules = set(config["target_modules"])
        return LoraConfig(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            train_attn=any(_part_of(module) == "train_attn" for module in modules),
            train_mlp=any(_part_of(module) == "train_mlp" for module in modules),
            train_unembed=any(_part_of(module) == "train_unembed" for module in modules),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no readable LoRA adapter: {error!r}") from error


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error


def _linear_layers(model: Any) -> dict[str, list[str]]:
    """The linear layers that each part of the wire's LoRA configuration names.

    A target is written as the end of a path with the piece that names its part
    (``self_attn.q_proj``), so that a checkpoint tells its parts by itself.
    """
    head = model.get_output_embeddings()
    parts: dict[str, set[str]] = {part: set() for part in (*_PARTS, "train_unembed")}
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        if module is head:
            parts["train_unembed"].add(path)
            continue
        pieces = path.split(".")
        for index, piece in enumerate(pieces[:-1]):
            part = _part_of(piece + ".")
            if part is not None:
                parts[part].add(".".join(pieces[index:]))
                break
    return {part: sorted(modules) for part, modules in parts.items()}


def _part_of(module: str) -> str | None:
    for part, words in _PARTS.items():
        if any(word in module.partition(".")[0] for word in words):
            return part
    return None if "." in module else "train_unembed"
