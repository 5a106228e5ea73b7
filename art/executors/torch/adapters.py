"""LoRA adapters beside one base model, by PEFT: trainable ones and frozen ones to sample from.

PEFT keeps the active adapter in the modules, so whatever computes with them takes a turn.
"""

import dataclasses
import json
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.targets import AdaptableParts
from art.executors.torch.tensor_files import read_tensors, write_tensors
from art.executors.torch.turns import Turns
from art.executors.types import LoraConfig
from art.formats.peft_folder import CONFIG_FILE, WEIGHTS_FILE

Parameters = dict[str, torch.nn.Parameter]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Adapter:
    """One adapter in memory.

    Attributes:
        peft_name: Its name in PEFT, which puts it into module paths, where a dot would split it.
        config: PEFT's configuration of it.
        parameters: Its tensors, by the keys of its weights file.
    """

    peft_name: str
    config: Any
    parameters: Parameters


class Adapters:
    """The adapters in memory, by name. Any thread may call any method.

    Args:
        language_model: The base model. Its layers are wrapped in place; it is computed with only
            inside :meth:`turn`.
        base_model_name: Written into saved adapters.
    """

    def __init__(self, language_model: LanguageModel, base_model_name: str) -> None:
        self._model = language_model.model
        self._base_model_name = base_model_name
        self._parts = AdaptableParts(language_model)
        self._turns = Turns()
        self._peft: Any = None
        self._adapters: dict[str, _Adapter] = {}
        self._count = 0
        # What the modules compute with, and those of them that have adapters.
        self._active: str | None = None
        self._layers: list[Any] = []

    def __contains__(self, name: str) -> bool:
        return name in self._adapters

    @contextmanager
    def turn(self, name: str | None) -> Iterator[None]:
        """Hold the model, computing with an adapter; with ``None``, as the base model.

        One thread at a time; others wait in the order they came. Keep it to one pass.

        Raises:
            NotFoundError: There is no adapter of that name.
        """
        with self._turns.turn():
            self._activate(None if name is None else self._find(name).peft_name)
            yield

    def add(self, name: str, lora: LoraConfig, *, trainable: bool) -> None:
        """Add an adapter: A random by the seed (Kaiming uniform), B zero, both float32.

        Raises:
            InvalidRequestError: The rank or alpha cannot be used, nothing is left to train, or
                the model has experts that cannot be adapted.
        """
        config = self._peft_config(lora)
        seed = secrets.randbits(63) if lora.seed is None else lora.seed
        # A turn, since modules change, and since PEFT draws A from torch's global generator: on
        # the CPU, whatever the device.
        with self._turns.turn(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft_name = self._inject(config)
            infix = f".{peft_name}."
            parameters = {
                path.replace(infix, "."): parameter
                for path, parameter in self._peft.named_parameters()
                if infix in path
            }
        for parameter in parameters.values():
            parameter.requires_grad_(trainable)
        self._adapters[name] = _Adapter(peft_name=peft_name, config=config, parameters=parameters)

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            NotFoundError: There is none of that name.
        """
        adapter = self._find(name)
        with self._turns.turn():
            # PEFT warns when it has to choose what is active next.
            self._activate(None)
            self._peft.base_model.delete_adapter(adapter.peft_name)
        del self._adapters[name]

    def parameters(self, name: str) -> Parameters:
        """An adapter's tensors, by the keys of its weights file.

        Raises:
            NotFoundError: There is no adapter of that name.
        """
        return self._find(name).parameters

    def save(self, name: str, folder: Path) -> None:
        """Write a PEFT adapter folder.

        Raises:
            CheckpointError: It cannot be written.
            NotFoundError: There is no adapter of that name.
        """
        adapter = self._find(name)
        config = adapter.config.to_dict() | {"inference_mode": True}
        for targets in ("target_modules", "target_parameters"):
            # Sets have no order; a checkpoint's bytes should.
            config[targets] = sorted(config[targets] or ())
        write_tensors(folder / WEIGHTS_FILE, adapter.parameters)
        try:
            (folder / CONFIG_FILE).write_text(
                json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise CheckpointError(f"cannot write the adapter to {folder}: {error}") from error

    def read(self, name: str, folder: Path) -> dict[str, torch.Tensor]:
        """Read a folder's weights for an adapter, by the keys of :meth:`parameters`.

        Raises:
            CheckpointError: The folder cannot be read, or holds another shape of adapter.
            NotFoundError: There is no adapter of that name.
        """
        adapter = self._find(name)
        weights = read_tensors(folder / WEIGHTS_FILE)
        expected = {key: parameter.shape for key, parameter in adapter.parameters.items()}
        if {key: tensor.shape for key, tensor in weights.items()} != expected:
            raise CheckpointError(
                f"the adapter in {folder} (rank {self.read_config(folder).rank}) does not fit this "
                f"model's adapter (rank {adapter.config.r}): other rank, target modules or base "
                "model. Create the model from the checkpoint instead."
            )
        return weights

    def write(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Replace an adapter's weights by what :meth:`read` gave. Nobody may compute with it."""
        with torch.no_grad():
            for key, parameter in self.parameters(name).items():
                parameter.copy_(weights[key])

    def add_from(self, name: str, folder: Path) -> None:
        """Add a frozen adapter with a folder's configuration and weights.

        Raises:
            CheckpointError: The folder cannot be read, or is of another base model.
            InvalidRequestError: The model cannot be adapted so.
        """
        # The first values are overwritten, so the seed is of no consequence.
        self.add(name, dataclasses.replace(self.read_config(folder), seed=0), trainable=False)
        try:
            self.write(name, self.read(name, folder))
        except CheckpointError:
            self.remove(name)
            raise

    def read_config(self, folder: Path) -> LoraConfig:
        """Read the configuration of an adapter folder.

        Raises:
            CheckpointError: The folder or its ``adapter_config.json`` cannot be read, or it is
                of another base model.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            parts = self._parts.parts_of(config)
            return LoraConfig(
                rank=int(config["r"]),
                alpha=float(config["lora_alpha"]),
                train_attn="train_attn" in parts,
                train_mlp="train_mlp" in parts,
                train_unembed="train_unembed" in parts,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder} holds no readable LoRA adapter: {error!r}") from error

    def _find(self, name: str) -> _Adapter:
        if name not in self._adapters:
            raise NotFoundError(f"there is no adapter {name!r}")
        return self._adapters[name]

    def _activate(self, peft_name: str | None) -> None:
        if peft_name == self._active:
            return
        active = [] if peft_name is None else [peft_name]
        for layer in self._layers:
            # Not `set_adapter`, which also freezes and thaws every adapter of every layer: 60 ms
            # for a model of 210 layers and six adapters, as long as decoding a token takes there.
            layer._active_adapter = active
        self._active = peft_name

    def _peft_config(self, lora: LoraConfig) -> Any:
        from peft import LoraConfig as PeftLoraConfig

        if lora.rank < 1 or not lora.alpha > 0:
            raise InvalidRequestError(
                f"LoRA rank must be 1 or more and alpha positive, not {lora.rank} and {lora.alpha}"
            )
        targets = self._parts.targets(lora)
        return PeftLoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number scales
            target_modules=list(targets.modules),
            target_parameters=list(targets.parameters) or None,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            base_model_name_or_path=self._base_model_name,
        )

    def _inject(self, config: Any) -> str:
        from peft import PeftModel
        from peft.tuners.lora import LoraLayer

        self._count += 1
        peft_name = f"adapter{self._count}"
        with warnings.catch_warnings():
            # For those who merge an adapter of the output layer into tied weights.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
            if self._peft is None:
                self._peft = PeftModel(self._model, config, adapter_name=peft_name)
            else:
                try:
                    self._peft.add_adapter(peft_name, config)
                except ValueError as error:
                    raise InvalidRequestError(
                        f"PEFT cannot put this adapter beside those in memory: {error}"
                    ) from error
        # PEFT makes the new adapter active wherever it is the first.
        self._layers = [layer for layer in self._peft.modules() if isinstance(layer, LoraLayer)]
        self._active = peft_name
        self._activate(None)
        return peft_name
