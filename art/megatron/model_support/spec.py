"""Records of what is known about a model family without running it: plain frozen data.

The records are small classes with ``__slots__`` instead of dataclasses, named tuples or pydantic
models, because a registry question is answered in a cold process: ``typing`` alone costs as much
as most of Python's own start, ``dataclasses`` twice that, pydantic ten times.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .literals import NativeVllmLoraStatus as NativeVllmLoraStatus
    from .literals import RolloutWeightsMode as RolloutWeightsMode
else:
    # ART's address of three names that need `typing`, each with the module that has it. By name,
    # since the protocol is itself written in terms of these records.
    _LOADED_WHEN_TOUCHED = {
        "ModelSupportHandler": "protocol",
        "NativeVllmLoraStatus": "literals",
        "RolloutWeightsMode": "literals",
    }

    def __getattr__(name: str) -> object:
        module = _LOADED_WHEN_TOUCHED.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        from importlib import import_module

        return getattr(import_module(f"{__package__}.{module}"), name)


class Record:
    """Frozen data: each slot is written once, by ``__init__``. Compared and hashed by value."""

    __slots__: tuple[str, ...] = ()

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__slots__ and not hasattr(self, name):
            object.__setattr__(self, name, value)
            return
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        pairs = zip(self.__slots__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"


class DependencyFloor(Record):
    """The minimum versions that a family needs; ``None`` is no minimum.

    Args:
        transformers: Version of transformers.
        vllm: Version of vLLM.
        megatron_bridge: Version, or full commit, of Megatron-Bridge. art's own handlers do not use
            it, so art's own families leave it out.
        megatron_core: Version of megatron-core.
    """

    __slots__ = ("transformers", "vllm", "megatron_bridge", "megatron_core")

    def __init__(
        self,
        *,
        transformers: str | None = None,
        vllm: str | None = None,
        megatron_bridge: str | None = None,
        megatron_core: str | None = None,
    ) -> None:
        self.transformers: Final = transformers
        self.vllm: Final = vllm
        self.megatron_bridge: Final = megatron_bridge
        self.megatron_core: Final = megatron_core


class HandlerMeta(Record):
    """The facts that the registry and the handler of a family share.

    Args:
        key: The family's key, such as ``"qwen3_dense"``.
        handler_name: The name that :mod:`art.megatron.model_support.handlers` exports the handler
            by, such as ``"QWEN3_DENSE_HANDLER"``.
        is_moe: True if the family routes tokens to experts.
        native_vllm_lora_status: The state of vLLM's support for the family's LoRA tensors:
            ``"validated"`` by tests, ``"wip"`` (work in progress) or ``"disabled"``.
    """

    __slots__ = ("key", "handler_name", "is_moe", "native_vllm_lora_status")

    def __init__(
        self,
        *,
        key: str,
        handler_name: str,
        is_moe: bool = False,
        native_vllm_lora_status: "NativeVllmLoraStatus" = "disabled",
    ) -> None:
        self.key: Final = key
        self.handler_name: Final = handler_name
        self.is_moe: Final = is_moe
        self.native_vllm_lora_status: Final[NativeVllmLoraStatus] = native_vllm_lora_status


class ModelSupportSpec(Record):
    """One family in the registry.

    Args:
        handler: The family's :class:`HandlerMeta`. ``key``, ``handler_key``, ``is_moe`` and
            ``native_vllm_lora_status`` are read from it.
        default_target_modules: The Hugging Face module names that get a LoRA adapter when a
            config names none.
        model_types: Each ``model_type`` of a ``config.json`` that the family's handler reads, such
            as ``"qwen3"``. By these a local folder or a downloaded fine-tune is recognised.
        model_names: Hugging Face names of the family's published models, which are recognised
            without a file.
        default_rollout_weights_mode: ``"lora"`` if rollouts use the adapter, ``"merged"`` if they
            need it merged into the weights.
        dependency_floor: The minimum versions that the family needs.
    """

    __slots__ = (
        "handler",
        "default_target_modules",
        "model_types",
        "model_names",
        "default_rollout_weights_mode",
        "dependency_floor",
    )

    def __init__(
        self,
        *,
        handler: HandlerMeta,
        default_target_modules: tuple[str, ...],
        model_types: tuple[str, ...] = (),
        model_names: tuple[str, ...] = (),
        default_rollout_weights_mode: "RolloutWeightsMode" = "lora",
        dependency_floor: DependencyFloor = DependencyFloor(),  # noqa: B008 - it is frozen
    ) -> None:
        self.handler: Final = handler
        self.default_target_modules: Final = default_target_modules
        self.model_types: Final = model_types
        self.model_names: Final = model_names
        self.default_rollout_weights_mode: Final[RolloutWeightsMode] = default_rollout_weights_mode
        self.dependency_floor: Final = dependency_floor

    @property
    def key(self) -> str:
        """The family's key."""
        return self.handler.key

    @property
    def handler_key(self) -> str:
        """The key of the family's handler."""
        return self.handler.key

    @property
    def is_moe(self) -> bool:
        """True if the family routes tokens to experts."""
        return self.handler.is_moe

    @property
    def native_vllm_lora_status(self) -> "NativeVllmLoraStatus":
        """The state of vLLM's support for the family's LoRA tensors."""
        return self.handler.native_vllm_lora_status


class LayerFamilyInstance(Record):
    """One kind of layer in a model, and the layers of that kind.

    Args:
        key: ``"standard_attention"``, ``"gated_delta_net_attention"``, ``"dense_mlp"``,
            ``"grouped_moe_mlp"`` or ``"shared_experts_mlp"``.
        layer_indices: The layers that have it, counted from 0 as Hugging Face counts; not empty.
        module_path: Its path in a ``TransformerLayer``, such as ``"mlp.shared_experts"``.
        module_type: Its class in megatron-core, such as ``"SharedExpertMLP"``.
    """

    __slots__ = ("key", "layer_indices", "module_path", "module_type")

    def __init__(
        self, *, key: str, layer_indices: tuple[int, ...], module_path: str, module_type: str
    ) -> None:
        self.key: Final = key
        self.layer_indices: Final = layer_indices
        self.module_path: Final = module_path
        self.module_type: Final = module_type

    @property
    def count(self) -> int:
        """The number of layers that have it."""
        return len(self.layer_indices)

    @property
    def layer_index(self) -> int:
        """The first layer that has it."""
        return self.layer_indices[0]


class LoraTarget(Record):
    """One linear module of a megatron model that can take an adapter.

    Args:
        module_path: Its name in the model, such as ``"decoder.layers.0.mlp.linear_fc1"``.
        target_modules: The names by which a LoRA config asks for it, such as
            ``("gate_proj", "up_proj")``; any of them is enough. Experts are also ``"experts"``.
        adapter_modules: The Hugging Face modules whose weights it holds, such as
            ``("model.layers.0.mlp.gate_proj", ...)``. Its adapter's tensors are named by them.
    """

    __slots__ = ("module_path", "target_modules", "adapter_modules")

    def __init__(
        self, *, module_path: str, target_modules: tuple[str, ...], adapter_modules: tuple[str, ...]
    ) -> None:
        self.module_path: Final = module_path
        self.target_modules: Final = target_modules
        self.adapter_modules: Final = adapter_modules
