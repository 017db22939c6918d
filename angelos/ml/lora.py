"""LoRA adapters on the attention and the MLP of `llm` (Hu et al. 2021), several in one process.

    host = AdapterHost(base)
    host.load("style", body)               # safetensors; its base must be this one
    with host.using("style") as model:     # each request takes the adapter that it names
        model.generate(ids, 40)
    plain = host.merged("style")           # the base with the adapter in its weights

The traps, each with a test: PyTorch's own encoder ignores adapters in `eval()` (ours has no such
path), `out_proj` alone gets no gradient, and a head that shares its weight with the embedding must
not be adapted, or merging changes both. So exactly the four matrices of each layer are adapted.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load, save
from torch import nn

from angelos.core.errors import Conflict, InvalidInput, NotFound
from llm.model import GPTDecoder

TARGETS = ("in_proj", "out_proj", "linear1", "linear2")
"""Of each layer: attention's queries, keys and values, its output, and both matrices of the MLP."""
MAX_ADAPTER_BYTES = 10_000_000
_HEADER = "angelos"


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of an adapter: `rank * (inputs + outputs)` numbers for each matrix."""

    rank: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    alpha: Annotated[float, msgspec.Meta(gt=0, le=1024)] = 16.0
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the tensors of an adapter."""

    config: AdapterConfig
    base: str


def base_hash(model: GPTDecoder) -> str:
    """Return the SHA-256 of a model's shape, vocabulary and weights, without its adapters."""
    digest = hashlib.sha256(repr(model.config).encode())
    if model.tokenizer is not None:
        digest.update(msgspec.json.encode(model.tokenizer.to_dict(), order="sorted"))
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def add_adapter(
    model: GPTDecoder, name: str, config: AdapterConfig, seed: int = 1
) -> list[nn.Parameter]:
    """Add a fresh adapter to a model, in place, and return its parameters: they alone learn."""
    present = _names(model)
    if name in present:
        raise Conflict(f"There is an adapter {name} already.")
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # it divides by the rank
        lora_dropout=config.dropout,
        target_modules=list(TARGETS),
        bias="none",
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are our trade
        peft.inject_adapter_in_model(lora, model, name)
    activate(model, name)
    own = [p for n, p in model.named_parameters() if f".{name}." in n]
    for parameter in model.parameters():
        parameter.requires_grad = False
    for parameter in own:
        parameter.requires_grad = True
    return own


def activate(model: GPTDecoder, name: str | None) -> None:
    """Compute with one adapter from now on, or with the base alone."""
    for layer in _lora_layers(model):
        layer.enable_adapters(enabled=name is not None)
        if name is not None:
            layer.set_adapter(name)


def save_adapter(model: GPTDecoder, name: str, config: AdapterConfig) -> bytes:
    """Return an adapter as safetensors, with its shape and the hash of its base."""
    state = get_peft_model_state_dict(model, adapter_name=name)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    header = _Header(config=config, base=base_hash(model))
    return save(tensors, {_HEADER: msgspec.json.encode(header).decode()})


class AdapterHost:
    """One base and any number of adapters; whoever computes says with which.

    Args:
        base: The model; it is taken over, and is changed by nothing but through this class.
    """

    def __init__(self, base: GPTDecoder) -> None:
        self._model = base.eval()
        self._base = base_hash(base)
        self._lock = threading.RLock()

    @property
    def base(self) -> str:
        """Hash of the base."""
        return self._base

    def names(self) -> list[str]:
        """Return the adapters that are loaded."""
        return sorted(_names(self._model))

    def load(self, name: str, body: bytes) -> None:
        """Add an adapter.

        Raises:
            InvalidInput: It is no adapter, or one of another base; nothing was changed.
            Conflict: There is one of that name.
        """
        header, tensors = read_adapter(body)
        if header.base != self._base:
            raise InvalidInput(
                f"The adapter {name} was trained on another base ({header.base[:12]}, "
                f"not {self._base[:12]})."
            )
        with self._lock:
            add_adapter(self._model, name, header.config)
            try:
                _fill(self._model, name, tensors)
            except InvalidInput:
                self.unload(name)
                raise

    def unload(self, name: str) -> None:
        """Remove an adapter; raise `NotFound` if there is none of that name."""
        with self._lock:
            if name not in _names(self._model):
                raise NotFound(f"There is no adapter {name}.")
            for layer in _lora_layers(self._model):
                layer.delete_adapter(name)
            del self._model.peft_config[name]  # type: ignore[attr-defined]  # peft keeps it there

    @contextmanager
    def using(self, name: str | None) -> Iterator[GPTDecoder]:
        """Yield the model with one adapter, or none; nobody else computes meanwhile.

        Raises:
            NotFound: There is no such adapter.
        """
        with self._lock:
            if name is not None and name not in _names(self._model):
                raise NotFound(f"There is no adapter {name}.")
            activate(self._model, name)
            yield self._model

    def merged(self, name: str) -> GPTDecoder:
        """Return a plain model, whose weights hold the adapter; the host stays as it is."""
        with self.using(name):
            model = copy.deepcopy(self._model)
        for layer in _lora_layers(model):
            _merge(layer, name)
        _replace_layers(model)
        return model.eval()

    @contextmanager
    def merging(self, name: str) -> Iterator[GPTDecoder]:
        """Yield the model with an adapter merged into its weights, and take it out afterwards."""
        with self.using(name) as model:
            layers = _lora_layers(model)
            kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]
            for layer in layers:
                _merge(layer, name)
            try:
                yield model
            finally:
                for layer, weight in zip(layers, kept, strict=True):
                    layer.unmerge()
                    layer.get_base_layer().weight.data.copy_(weight)  # subtracting rounds


def read_adapter(body: bytes) -> tuple[_Header, dict[str, torch.Tensor]]:
    """Return what an adapter says of itself, and its tensors; raise `InvalidInput`."""
    if len(body) > MAX_ADAPTER_BYTES:
        raise InvalidInput(f"An adapter has at most {MAX_ADAPTER_BYTES} bytes.")
    try:
        size = int.from_bytes(body[:8], "little")
        metadata = msgspec.json.decode(body[8 : 8 + size]).get("__metadata__", {})
        header = msgspec.json.decode(metadata[_HEADER], type=_Header)
        tensors = load(body)
    except Exception as error:  # a strange file makes its readers raise whatever they like
        raise InvalidInput(
            f"This is no adapter that can be read ({type(error).__name__})."
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise InvalidInput("The adapter holds numbers that are not finite.")
    return header, tensors


def _fill(model: GPTDecoder, name: str, tensors: dict[str, torch.Tensor]) -> None:
    expected = get_peft_model_state_dict(model, adapter_name=name)
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    if shapes != {key: tuple(tensor.shape) for key, tensor in tensors.items()}:
        raise InvalidInput(f"The adapter {name} does not fit the layers of its base.")
    set_peft_model_state_dict(model, tensors, adapter_name=name)


def _merge(layer: Any, name: str) -> None:
    layer.merge(safe_merge=True, adapter_names=[name])


def _lora_layers(model: nn.Module) -> list[Any]:  # peft types methods as tensors
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _names(model: nn.Module) -> set[str]:
    return {name for layer in _lora_layers(model) for name in layer.lora_A}


def _replace_layers(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, LoraLayer):
            layer: Any = child
            setattr(module, name, layer.get_base_layer())
        else:
            _replace_layers(child)
