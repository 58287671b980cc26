from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from adapters.adapter_files import (
    ALPHA,
    FIRST,
    FIRST_A,
    FIRST_B,
    HIDDEN,
    LAYERS,
    PREFIX,
    RANK,
    AdapterFiles,
    joined_file,
    split_file,
    tiny_llama,
    with_entry,
)
from rankloom_adapters.expert import ExpertError, check_shapes, parse_expert
from rankloom_adapters.header import MAX_HEADER_BYTES, MAX_TENSORS
from rankloom_adapters.lora_config import MAX_CONFIG_BYTES

Harm = Callable[[AdapterFiles], bytes]


def refused(config: bytes, weights: bytes) -> str:
    """The message of the refusal; any other exception fails the test."""
    with pytest.raises(ExpertError) as caught:
        parse_expert("e", config, weights)
    assert caught.value.expert == "e"
    assert str(caught.value) == f"expert e: {caught.value.reason}"
    return caught.value.reason


def test_what_peft_writes_is_parsed(adapter: AdapterFiles) -> None:
    expert = parse_expert("e", adapter.config, adapter.weights)
    assert expert.digest == hashlib.sha256(adapter.weights).hexdigest()
    assert (expert.name, expert.rank, expert.scale) == ("e", RANK, ALPHA / RANK)
    expected = {
        f"model.layers.{layer}.self_attn.{name}"
        for layer in range(LAYERS)
        for name in ("q_proj", "v_proj")
    }
    assert set(expert.modules) == expected
    tensors = adapter.tensors()
    for module, pair in expert.modules.items():
        for side, found in (("A", pair.a), ("B", pair.b)):
            assert found.dtype == np.float32
            assert np.array_equal(found, tensors[f"{PREFIX}{module}.lora_{side}.weight"])


def test_what_peft_writes_fits_its_base(adapter: AdapterFiles) -> None:
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in tiny_llama().named_modules()
        if name.endswith("_proj")
    }
    check_shapes(parse_expert("e", adapter.config, adapter.weights), shapes)


def halves_of(tensors: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).to(dtype) for name, array in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_read_as_float32(adapter: AdapterFiles, dtype: torch.dtype) -> None:
    halves = halves_of(adapter.tensors(), dtype)
    expert = parse_expert("e", adapter.config, safetensors.torch.save(halves))
    assert expert.modules[FIRST].a.dtype == np.float32
    assert np.array_equal(expert.modules[FIRST].a, halves[FIRST_A].float().numpy())


@pytest.mark.parametrize(
    ("module", "shape"),
    [(None, None), (FIRST, (HIDDEN + 1, HIDDEN)), (FIRST, (HIDDEN, HIDDEN + 1))],
    ids=["unknown", "d_out", "d_in"],
)
def test_an_expert_of_another_base_is_refused(
    adapter: AdapterFiles, module: str | None, shape: tuple[int, int] | None
) -> None:
    expert = parse_expert("e", adapter.config, adapter.weights)
    shapes = {
        name: (pair.b.shape[0], pair.a.shape[1])
        for name, pair in expert.modules.items()
        if module is not None or name != FIRST
    }
    check_shapes(expert, {FIRST: (HIDDEN, HIDDEN)} | shapes)
    if module is not None and shape is not None:
        shapes[module] = shape
    with pytest.raises(ExpertError, match=FIRST):
        check_shapes(expert, shapes)


def renamed(old: str, new: str) -> Harm:
    def harm(adapter: AdapterFiles) -> bytes:
        header, payload = split_file(adapter.weights)
        return joined_file({new if k == old else k: v for k, v in header.items()}, payload)

    return harm


def cut(share: float) -> Harm:
    return lambda adapter: adapter.weights[: int(share * len(adapter.weights))]


def entry(name: str, **fields: object) -> Harm:
    return lambda adapter: with_entry(adapter.weights, name, **fields)


def saved(change: Callable[[dict[str, Any]], object]) -> Harm:
    def harm(adapter: AdapterFiles) -> bytes:
        tensors = adapter.tensors()
        change(tensors)
        return bytes(safetensors.numpy.save(tensors))

    return harm


def put(value: float, dtype: str = "float32") -> Harm:
    def change(tensors: dict[str, Any]) -> None:
        tensors[FIRST_B] = tensors[FIRST_B].astype(dtype)
        tensors[FIRST_B][0, 0] = value

    return saved(change)


def nan_bfloat(adapter: AdapterFiles) -> bytes:
    tensors = adapter.tensors()
    tensors[FIRST_B][0, 0] = math.nan
    saved_bytes: bytes = safetensors.torch.save(halves_of(tensors, torch.bfloat16))
    return saved_bytes


def duplicated(adapter: AdapterFiles) -> bytes:
    header, payload = split_file(adapter.weights)
    text = json.dumps(header).encode()
    again = json.dumps({FIRST_A: header[FIRST_A]}).encode()
    return joined_file(text[:-1] + b", " + again[1:], payload)


def zipped(adapter: AdapterFiles) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("adapter_model.safetensors", adapter.weights)
    return buffer.getvalue()


def long_header(adapter: AdapterFiles) -> bytes:
    header, payload = split_file(adapter.weights)
    return joined_file(json.dumps(header).encode() + b" " * MAX_HEADER_BYTES, payload)


def many_tensors(adapter: AdapterFiles) -> bytes:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return joined_file({str(n): one for n in range(MAX_TENSORS + 1)}, b"\0" * 4 * (MAX_TENSORS + 1))


def overlapping(adapter: AdapterFiles) -> bytes:
    header, _ = split_file(adapter.weights)
    return with_entry(adapter.weights, FIRST_A, data_offsets=header[FIRST_B]["data_offsets"])


UP = f"{PREFIX}../../etc/q_proj.lora_A.weight"
HARMS: dict[str, Harm] = {
    "empty": lambda _: b"",
    "seven-bytes": lambda adapter: adapter.weights[:7],
    "length-only": lambda adapter: adapter.weights[:8],
    "cut-in-header": cut(0.05),
    "cut-in-half": cut(0.5),
    "last-byte-missing": lambda adapter: adapter.weights[:-1],
    "one-byte-more": lambda adapter: adapter.weights + b"\0",
    "pickle": lambda _: pickle.dumps({"a": [1.0] * 100}, protocol=4),
    "zip": zipped,
    "header-length-huge": lambda adapter: b"\xff" * 8 + adapter.weights[8:],
    "header-length-of-file": lambda a: len(a.weights).to_bytes(8, "little") + a.weights[8:],
    "header-length-zero": lambda adapter: bytes(8) + adapter.weights[8:],
    "header-too-long": long_header,
    "header-bit-flip": lambda a: a.weights[:8] + bytes([a.weights[8] ^ 4]) + a.weights[9:],
    "header-not-json": lambda adapter: joined_file(b"{" * 10, b""),
    "header-a-list": lambda adapter: joined_file(b"[]", b""),
    "header-deep": lambda adapter: joined_file(b"[" * 200_000, b""),
    "header-not-utf8": lambda adapter: joined_file(b'{"\xff": 1}', b""),
    "no-tensors": lambda adapter: joined_file({"__metadata__": {}}, b""),
    "too-many-tensors": many_tensors,
    "duplicate-key": duplicated,
    "entry-a-number": lambda a: joined_file(split_file(a.weights)[0] | {FIRST_A: 1}, b""),
    "dtype-i64": entry(FIRST_A, dtype="I64"),
    "dtype-f64": entry(FIRST_A, dtype="F64"),
    "dtype-list": entry(FIRST_A, dtype=["F32"]),
    "dtype-null": entry(FIRST_A, dtype=None),
    "dtype-f16-of-f32-bytes": entry(FIRST_A, dtype="F16"),
    "shape-transposed": entry(FIRST_A, shape=[HIDDEN, RANK]),
    "shape-flat": entry(FIRST_A, shape=[RANK * HIDDEN]),
    "shape-three": entry(FIRST_A, shape=[RANK, HIDDEN, 1]),
    "shape-scalar": entry(FIRST_A, shape=[]),
    "shape-empty-dimension": entry(FIRST_A, shape=[10**12, 0]),
    "shape-huge": entry(FIRST_A, shape=[10**12, HIDDEN]),
    "shape-too-long-to-print": entry(FIRST_A, shape=[10**4000, 10**4000]),
    "shape-of-many-dimensions": entry(FIRST_A, shape=[1] * 100 + [RANK, HIDDEN]),
    "shape-negative": entry(FIRST_A, shape=[-RANK, -HIDDEN]),
    "shape-true": entry(FIRST_A, shape=[True, HIDDEN]),
    "shape-float": entry(FIRST_A, shape=[float(RANK), HIDDEN]),
    "shape-string": entry(FIRST_A, shape="416"),
    "offsets-overlap": overlapping,
    "offsets-beyond": entry(FIRST_A, data_offsets=[0, 10**9]),
    "offsets-negative": entry(FIRST_A, data_offsets=[-4, 0]),
    "nan": put(math.nan),
    "inf": put(math.inf),
    "minus-inf": put(-math.inf),
    "nan-half": put(math.nan, "float16"),
    "nan-bfloat": nan_bfloat,
    "inf-half": put(math.inf, "float16"),
    "no-lora-b": saved(lambda tensors: tensors.pop(FIRST_B)),
    "no-lora-a": saved(lambda tensors: tensors.pop(FIRST_A)),
    "extra-tensor": saved(lambda tensors: tensors.update(extra=np.ones((2, 2), np.float32))),
    "extra-bias": saved(lambda t: t.update({f"{PREFIX}{FIRST}.bias": np.ones(HIDDEN, np.float32)})),
    "extra-dora": saved(
        lambda t: t.update({f"{PREFIX}{FIRST}.lora_magnitude_vector": np.ones(HIDDEN, np.float32)})
    ),
    "name-outside": renamed(FIRST_A, UP),
    "name-of-another-module": renamed(FIRST_A, FIRST_A.replace("q_proj", "o_proj")),
    "name-without-prefix": renamed(FIRST_A, FIRST_A.removeprefix(PREFIX)),
    "name-empty": renamed(FIRST_A, ""),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_harmed_weights_are_refused(adapter: AdapterFiles, harm: Harm) -> None:
    weights = harm(adapter)
    assert weights != adapter.weights
    assert refused(adapter.config, weights)


def test_the_wrong_rank_is_named(adapter: AdapterFiles) -> None:
    assert "rank" in refused(adapter.with_config(r=RANK + 1), adapter.weights)
    wide = {name: np.tile(array, 2) for name, array in adapter.tensors().items()}
    assert "rank" in refused(adapter.config, bytes(safetensors.numpy.save(wide)))


CHANGES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LOHA", None, 1),
    "use_dora": (True, "yes", None),
    "use_rslora": (1, None, [True]),
    "bias": ("all", "lora_only", None),
    "lora_bias": (True,),
    "modules_to_save": (["lm_head"], "lm_head"),
    "rank_pattern": ({"q_proj": 2}, {"q_proj": 0}, {"q_proj": 4.0}, {"(": 4}, "q_proj"),
    "alpha_pattern": ({"q_proj": "2"}, {"q_proj": math.nan}, {"(": 2}, [2]),
    "layers_to_transform": ([0], 0, True, ["0"], "0"),
    "layers_pattern": (1, [""], {"h": 0}),
    "layer_replication": ([[0, 1]],),
    "trainable_token_indices": ([1],),
    "target_parameters": (["weight"],),
    "alora_invocation_tokens": ([1, 2],),
    "init_lora_weights": ("pissa", "olora", "pissa_niter_4", "loftq", "corda", None, [True]),
    "use_qalora": (True,),
    "megatron_config": ({"tensor_parallel": 2},),
    "exclude_modules": (["q_proj"], r".*\.v_proj", [1], 1),
    "a_field_of_a_later_version": (True,),
    "r": ("4", True, 0, -4, 257, 4.0, None, [4], 10**400),
    "lora_alpha": (None, math.nan, math.inf, -math.inf, "12", True, [], {}, 10**400, 1e39),
    "target_modules": ("q_proj", "(", None, [], [1], [""], ["k_proj"], {"q_proj": 1}),
}
CASES = [(field, value) for field, values in CHANGES.items() for value in values]


@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda value: str(value)[:30])
def test_a_config_that_means_another_model_is_refused(
    adapter: AdapterFiles, field: str, value: object
) -> None:
    reason = refused(adapter.with_config(**{field: value}), adapter.weights)
    assert field in reason or "not a regular expression" in reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model_name_or_path", "a/model"),
        ("revision", "main"),
        ("task_type", "CAUSAL_LM"),
        ("lora_dropout", 0.1),
        ("inference_mode", False),
        ("peft_version", "0.21.2"),
        ("init_lora_weights", True),
        ("init_lora_weights", "gaussian"),
        ("eva_config", {"rho": 2.0}),
        ("fan_in_fan_out", True),
        ("exclude_modules", ["k_proj"]),
        ("layers_to_transform", [0, 1]),
        ("rank_pattern", {"k_proj": 2}),
        ("alpha_pattern", {"k_proj": 2}),
        ("target_modules", "all-linear"),
        ("a_field_of_a_later_version", None),
        ("a_field_of_a_later_version", False),
        ("a_field_of_a_later_version", {}),
    ],
)
def test_a_field_that_changes_nothing_is_accepted(
    adapter: AdapterFiles, field: str, value: object
) -> None:
    expert = parse_expert("e", adapter.with_config(**{field: value}), adapter.weights)
    assert expert.scale == ALPHA / RANK


@pytest.mark.parametrize("field", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_a_config_without_a_needed_field_is_refused(adapter: AdapterFiles, field: str) -> None:
    fields = {name: value for name, value in json.loads(adapter.config).items() if name != field}
    assert field in refused(json.dumps(fields).encode(), adapter.weights)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"3",
        b'"LORA"',
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b" " * (MAX_CONFIG_BYTES + 1),
    ],
    ids=lambda config: repr(config[:12]),
)
def test_bytes_that_are_no_config_are_refused(adapter: AdapterFiles, config: bytes) -> None:
    assert "adapter_config.json" in refused(config, adapter.weights)
