"""A decoder from the bytes of its files, tensor by tensor, in the number format that serves."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.initialization import no_init_weights

from rankloom_adapters.bundle import BundleError
from rankloom_engine.errors import ModelError

_MAX_HEADER_BYTES = 16 << 20
_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# transformers turns off the drawing of random weights for the whole process, not for a thread.
building = threading.Lock()


def read_config(data: bytes) -> PreTrainedConfig:
    """A decoder's config from the bytes of config.json. Raises ModelError."""
    try:
        fields = json.loads(data)
        if fields.get("auto_map"):
            raise ModelError(
                "base: its config needs custom code (auto_map); use a model of transformers itself"
            )
        return cast("PreTrainedConfig", AutoConfig.for_model(fields.pop("model_type"), **fields))
    except ModelError:
        raise
    except Exception as error:  # transformers raises many classes for a bad config
        raise ModelError("base: config.json is not the config of a language model") from error


def load_decoder_model(
    config: PreTrainedConfig, weights: Iterable[bytes], dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A causal LM from its config and its weights, in evaluation mode. Raises ModelError.

    ``weights``: the pieces of a safetensors file, read to their end. No more memory is used than
    for the model in ``dtype`` and one tensor. Nothing is downloaded, and no code from the model's
    repository runs.
    """
    state = read_tensors(weights, dtype)
    try:
        with building, no_init_weights():
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation="eager", dtype=torch.float32
            )
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except Exception as error:  # transformers raises many classes for a bad config
        raise ModelError("base: config and weights are not a causal language model") from error
    model.tie_weights()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ModelError("base: the weights do not match the config")
    return cast("nn.Module", model.eval())


def read_tensors(pieces: Iterable[bytes], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, numbers with a fraction in ``dtype``.

    All pieces are read, whatever they hold. Raises ModelError, and what the pieces raise.
    """
    left = iter(pieces)
    try:
        return dict(_tensors(_Stream(left), dtype))
    except BundleError:
        raise
    except (ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        deque(left, maxlen=0)  # at their end, altered pieces say so themselves
        raise ModelError("base: the weights are not a safetensors file") from error


class _Stream:
    """Bytes that come in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def fill(self, target: memoryview) -> None:
        """Writes the next bytes to ``target``. Raises ValueError if there are fewer."""
        while target:
            if not self._piece:
                self._piece = memoryview(next(self._pieces, b""))
                if not self._piece:
                    raise ValueError("the file ends early")
            num = min(len(target), len(self._piece))
            target[:num] = self._piece[:num]
            target, self._piece = target[num:], self._piece[num:]

    def take(self, num: int) -> bytes:
        """The next ``num`` bytes."""
        found = bytearray(num)
        self.fill(memoryview(found))
        return bytes(found)

    def end(self) -> None:
        """Raises ValueError if there are more bytes."""
        if self._piece or any(self._pieces):
            raise ValueError("there are bytes behind the last tensor")


def _tensors(stream: _Stream, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    length = int.from_bytes(stream.take(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    entries: dict[str, Any] = json.loads(stream.take(length))
    entries.pop("__metadata__", None)
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != at:
            raise ValueError(f"a gap before {name}")
        raw = torch.empty(end - begin, dtype=torch.uint8)
        stream.fill(memoryview(cast("Any", raw.numpy())))
        tensor = raw.view(_DTYPES[entry["dtype"]]).view(entry["shape"])
        yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor
        at = end
    stream.end()
