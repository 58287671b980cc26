"""Folders that must be refused as an expert, by class; each is made from a seed.

A folder starts as a good random adapter. A class is one kind of harm: to the content of the
files (``draft``), to the files themselves (``folder``), or to both.
"""

from __future__ import annotations

import functools
import io
import math
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from adapters.adapter_files import PREFIX, joined_file
from adapters.drafts import SHAPES, Draft, Tensor, good_draft, numbers
from rankloom_adapters.expert import BASE_DIGEST, CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES
from rankloom_adapters.header import MAX_DIMENSION, MAX_HEADER_BYTES, MAX_TENSORS
from rankloom_adapters.lora_config import MAX_CONFIG_BYTES

MAX_BYTES = {CONFIG_FILE: MAX_CONFIG_BYTES, WEIGHTS_FILE: MAX_WEIGHTS_BYTES}


OnDraft = Callable[[Draft, Random], object]
OnFolder = Callable[[Path, Random], object]


@dataclass(frozen=True)
class Bad:
    """One class: a pattern of the refusal's message, and the harm."""

    says: str
    draft: OnDraft = lambda *_: None
    folder: OnFolder = lambda *_: None


def make_bad(folder: Path, kind: str, seed: int) -> None:
    random = Random(f"{kind} {seed}")
    draft = good_draft(random)
    BAD[kind].draft(draft, random)
    draft.write(folder)
    BAD[kind].folder(folder, random)


def sets(name: str, *values: object) -> Bad:
    def harm(draft: Draft, random: Random) -> None:
        draft.config[name] = random.choice(values)

    return Bad(name, harm)


def claims(says: str, name: str, *values: object) -> Bad:
    """A field of one tensor's entry."""

    def harm(draft: Draft, random: Random) -> None:
        random.choice(draft.tensors).fields[name] = random.choice(values)

    return Bad(says, harm)


def puts(bits: dict[str, bytes]) -> OnDraft:
    """One number of one tensor, by its format."""

    def harm(draft: Draft, random: Random) -> None:
        one = random.choice(draft.tensors)
        size = len(bits[one.dtype])
        at = size * random.randrange(len(one.data) // size)
        one.data = one.data[:at] + bits[one.dtype] + one.data[at + size :]

    return harm


def adds(*names: str) -> OnDraft:
    def harm(draft: Draft, random: Random) -> None:
        one = draft.tensors[0]
        draft.tensors.append(Tensor(random.choice(names), one.dtype, one.shape, one.data))

    return harm


def renames(*paths: str) -> OnDraft:
    """The module of one pair; its last part is among the config's targets."""

    def harm(draft: Draft, random: Random) -> None:
        path = random.choice(paths)
        draft.config["target_modules"] = ["q_proj", "v_proj", path.rsplit(".", 1)[-1]]
        for one, side in zip(draft.tensors, "AB", strict=False):
            one.name = f"{PREFIX}{path}.lora_{side}.weight"

    return harm


def reshapes(shape: Callable[[list[int]], list[int]]) -> OnDraft:
    def harm(draft: Draft, random: Random) -> None:
        one = random.choice(draft.tensors)
        one.shape = shape(one.shape)

    return harm


def say_metadata(*values: object) -> OnDraft:
    def harm(draft: Draft, random: Random) -> None:
        draft.metadata = random.choice(values)

    return harm


def trade_offsets(draft: Draft, random: Random) -> None:
    """Two tensors of the same size swap their offsets."""
    one, other = random.choice([(0, 4), (1, 5), (2, 6), (3, 7)])
    before = sum(len(tensor.data) for tensor in draft.tensors[:other])
    size = len(draft.tensors[other].data)
    draft.tensors[one].fields["data_offsets"] = [before, before + size]


def halve_or_double(draft: Draft, random: Random) -> None:
    one = random.choice(draft.tensors)
    one.dtype = "F16" if one.dtype == "F32" else "F32"


def raise_rank(draft: Draft, random: Random) -> None:
    draft.config["r"] = len(draft.tensors[0].data) // 32 + random.randint(7, 20)


def widen(draft: Draft, random: Random) -> None:
    """A pair of a base with wider layers."""
    one = draft.tensors[2 * random.randrange(4)]
    one.shape = [one.shape[0], 17]
    one.data = numbers(random, one.dtype, math.prod(one.shape))


def multiply(draft: Draft, random: Random) -> None:
    for number in range(MAX_TENSORS + random.randrange(100)):
        draft.tensors.append(Tensor(f"{number}", "F16", [1], b"\0\0"))


def nest(draft: Draft, random: Random) -> None:
    deep: object = 1
    for _ in range(random.randint(50, 200)):
        deep = [deep]
    draft.config["peft_version"] = draft.config["merged_from"] = deep


def rewrites(file: str, change: Callable[[bytes, Random], bytes]) -> OnFolder:
    def harm(folder: Path, random: Random) -> None:
        (folder / file).write_bytes(change((folder / file).read_bytes(), random))

    return harm


def replaces(change: Callable[[Path, Random], object]) -> OnFolder:
    """One of the two files, which is no longer there."""

    def harm(folder: Path, random: Random) -> None:
        path = folder / random.choice([CONFIG_FILE, WEIGHTS_FILE])
        path.rename(folder / "before")
        change(path, random)

    return harm


def recode(data: bytes, random: Random) -> bytes:
    return data.decode().encode(random.choice(["utf-8-sig", "utf-16", "utf-32-le"]))


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def flip(data: bytes, random: Random) -> bytes:
    at = random.randrange(8 + int.from_bytes(data[:8], "little"))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def extend(data: bytes, random: Random) -> bytes:
    return data + random.randbytes(random.randint(1, 99))


def relength(data: bytes, random: Random) -> bytes:
    lengths = [0, 1, len(data), MAX_HEADER_BYTES + 1, random.getrandbits(64) | 1 << 40]
    return random.choice(lengths).to_bytes(8, "little") + data[8:]


def zipped(data: bytes, random: Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(random.choice(["archive/data.pkl", WEIGHTS_FILE]), data)
    return buffer.getvalue()


def pickled(data: bytes, random: Random) -> bytes:
    return pickle.dumps({"a": data}, protocol=random.randint(2, 5))


def other_format(data: bytes, random: Random) -> bytes:
    starts = [
        b"GGUF\x03\0\0\0",
        b"\x93NUMPY\x01\0v\0",
        b"\x89HDF\r\n\x1a\n",
        b"version https://git-",
    ]
    return random.choice(starts) + data


def header_of(*texts: bytes) -> OnFolder:
    return rewrites(WEIGHTS_FILE, lambda data, random: joined_file(random.choice(texts), data))


def config_of(*texts: bytes) -> OnFolder:
    return rewrites(CONFIG_FILE, lambda _, random: random.choice(texts))


def key_twice(data: bytes, random: Random) -> bytes:
    """The harmless value comes last and would win."""
    name = random.choice(["use_dora", "use_rslora", "lora_bias"])
    return data[:-1] + f', "{name}": true, "{name}": false}}'.encode()


@functools.cache
def million_tensors() -> bytes:
    entry = '"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
    return joined_file(f"{{{','.join(entry % number for number in range(10**6))}}}".encode(), b"")


def lead(path: Path, random: Random) -> None:
    targets = ["before", "nothing", path.name, "/dev/zero", "/proc/self/mem", "."]
    path.symlink_to(random.choice(targets))


def grow(path: Path, random: Random) -> None:
    path.write_bytes((path.with_name("before")).read_bytes())
    os.truncate(path, random.choice([1 << 40, (1 << 40) + random.randrange(1 << 20)]))


def exceed(path: Path, random: Random) -> None:
    path.touch()
    os.truncate(path, MAX_BYTES[path.name] + random.randint(1, 1000))


def fill_header(unit: bytes) -> bytes:
    """As much JSON as a header may have."""
    return b'{"x":[' + unit * ((MAX_HEADER_BYTES - 10) // len(unit)) + b"1]}"


NAN = {"F32": b"\0\0\xc0\x7f", "F16": b"\0\x7e", "BF16": b"\xc0\x7f"}
SIGNALLING = {"F32": b"\1\0\x80\xff", "F16": b"\1\xfc", "BF16": b"\x81\xff"}
INFINITE = {"F32": b"\0\0\x80\x7f", "F16": b"\0\x7c", "BF16": b"\x80\x7f"}
MINUS_INFINITE = {"F32": b"\0\0\x80\xff", "F16": b"\0\xfc", "BF16": b"\x80\xff"}
Q_PROJ = f"{PREFIX}{next(iter(SHAPES))}"
FLIPPED = rf"{WEIGHTS_FILE}|needs one lora_A|not among|no such linear"

BAD: dict[str, Bad] = {
    # Other arithmetic.
    "DoRA": sets("use_dora", True, "yes", 1, None),
    "rsLoRA": sets("use_rslora", 1, "yes", [True]),
    "bias": sets("bias", "all", "lora_only", None, ["none"]),
    "bias of LoRA": sets("lora_bias", True, 1),
    "modules to save": sets("modules_to_save", ["lm_head"], "lm_head", {"a": 1}),
    "rank pattern": sets("rank_pattern", {"q_proj": 7}, {"q_proj": 257}, [], "q_proj"),
    "alpha pattern": sets("alpha_pattern", {"q_proj": "2"}, {"q_proj": math.inf}, 0, False),
    "some layers": sets("layers_to_transform", [0], 0, [True], False),
    "some modules": sets("exclude_modules", ["q_proj"], ".*v_proj", {"q_proj": 1}),
    "pattern not valid": Bad(
        "not a regular expression", lambda d, _: d.config.update(rank_pattern={"(": 2})
    ),
    "layers repeated": sets("layer_replication", [[0, 1]], []),
    "token indices": sets("trainable_token_indices", [1], {"embed_tokens": [1]}),
    "parameters": sets("target_parameters", ["weight"], "weight"),
    "base altered at the start": sets("init_lora_weights", "pissa", "olora", "loftq", None, 1),
    "another method": sets("peft_type", "LOHA", "IA3", "lora", None, 1),
    "unknown field": sets("of_a_later_version", True, 1, 0, 0.0, "x", [0], {"a": None}),
    # The config's types and bounds.
    "rank of another type": sets("r", "4", True, 4.0, [4], {}, None),
    "rank out of bounds": sets("r", 0, -1, 257, 10**9, 10**400),
    "alpha of another type": sets("lora_alpha", "16", True, None, [16], {}),
    "alpha not finite": sets("lora_alpha", math.nan, math.inf, -math.inf, 1e39, 10**400),
    "targets of another type": sets("target_modules", "q_proj", None, {"q_proj": 1}, [1], [""]),
    "targets are others": Bad("target_modules", lambda d, _: d.config.update(target_modules=["o"])),
    "config nested": Bad("merged_from", nest),
    "config nested too deep": Bad("JSON", folder=config_of(b'{"a":' * 9000, b"[" * 30_000)),
    "config no object": Bad("JSON object", folder=config_of(b"[]", b"null", b"3", b'"LORA"')),
    "config cut": Bad("JSON", folder=rewrites(CONFIG_FILE, cut)),
    "config not UTF-8": Bad("JSON", folder=rewrites(CONFIG_FILE, recode)),
    "config key twice": Bad("duplicate key", folder=rewrites(CONFIG_FILE, key_twice)),
    "config of lists": Bad("'x' is set", folder=config_of(b'{"peft_type":"LORA","x":[[[]]]}')),
    # Names, types, shapes and indices of tensors.
    "number NaN": Bad("NaN or infinite", puts(NAN)),
    "number signalling NaN": Bad("NaN or infinite", puts(SIGNALLING)),
    "number infinite": Bad("NaN or infinite", puts(INFINITE)),
    "number minus infinite": Bad("NaN or infinite", puts(MINUS_INFINITE)),
    "dtype": claims("dtype must", "dtype", "I64", "F64", "U8", "BOOL", "F8_E4M3", "C64", "f32"),
    "dtype of another type": claims("dtype must", "dtype", None, 32, ["F32"], {}, True, [[[1]]]),
    "dtype of another width": Bad("data_offsets do not match its size", halve_or_double),
    "rank is another": Bad("rank differs", raise_rank),
    "shape transposed": Bad("rank differs", reshapes(lambda shape: shape[::-1])),
    "shape flat": Bad("needs one lora_A", reshapes(lambda shape: [math.prod(shape)])),
    "shape of three": Bad("needs one lora_A", reshapes(lambda shape: [1, *shape])),
    "shape empty": claims("dimensions must be", "shape", [10**12, 0], [0, 10**12], [0], [4, 0]),
    "shape beyond the file": claims(
        "data_offsets do not match its size", "shape", [MAX_DIMENSION] * 8, [4, 10**9]
    ),
    "shape of no numbers": claims(
        "dimensions must be",
        "shape",
        [True, 16],
        [4.0, 16],
        ["4"],
        [-4, -16],
        [None],
        [10**400],
        [[4]],
    ),
    "shape no list": claims("shape must be", "shape", "4x16", None, {}, 64, [1] * 9, True),
    "indices overlap": Bad("overlap", trade_offsets),
    "indices of another size": claims(
        "data_offsets do not match its size", "data_offsets", [0, 10**400], [0, 1], [8, 0], [-8, 0]
    ),
    "indices of another type": claims(
        "two integers", "data_offsets", [0.0, 4], ["0", "4"], [True, 4], [], [0], [0, 4, 8], None
    ),
    "entry of more": claims("no more", "extra", 1, None, [[]]),
    "tensor twice": Bad("duplicate key", lambda d, r: d.tensors.append(r.choice(d.tensors))),
    "tensor missing": Bad("one lora_A and one lora_B", lambda d, r: d.tensors.pop(r.randrange(8))),
    "tensors too many": Bad("tensors; 1 to", multiply),
    "tensors none": Bad("0 tensors", lambda d, _: d.tensors.clear()),
    "tensor of a bias": Bad("unexpected tensor", adds(f"{Q_PROJ}.bias", f"{Q_PROJ}.lora_B.bias")),
    "tensor of DoRA": Bad("unexpected tensor", adds(f"{Q_PROJ}.lora_magnitude_vector")),
    "tensor saved whole": Bad("unexpected tensor", adds(f"{PREFIX}lm_head.weight", "extra", "")),
    "tensor of another adapter": Bad("unexpected tensor", adds(f"{Q_PROJ}.lora_A.other.weight")),
    "module of one factor": Bad("one lora_A and one", adds(f"{PREFIX}o_proj.lora_A.weight")),
    "module above": Bad("unexpected tensor", renames("../../q_proj", "model..q_proj", "/q", "..q")),
    "module unprintable": Bad("unexpected tensor", renames("a\nb", "a\0", "\ud800", "q proj", "é")),
    "module of a long name": Bad("unexpected tensor", renames("x." * 200 + "q_proj", "x" * 5000)),
    "metadata no text": Bad("__metadata__", say_metadata({"format": 1}, [], None, "pt", {"a": {}})),
    # Another base model.
    "base of other layers": Bad("no such linear module", renames("model.layers.2.q_proj")),
    "base wider": Bad("the base has", widen),
    "base named otherwise": Bad("trained on base", say_metadata({BASE_DIGEST: "0" * 64})),
    "base no digest": Bad(
        "is not a SHA-256 digest", say_metadata({BASE_DIGEST: "main"}, {BASE_DIGEST: ""})
    ),
    # Other bytes.
    "cut": Bad("shorter than|header of|its header says", folder=rewrites(WEIGHTS_FILE, cut)),
    "longer": Bad("its header says", folder=rewrites(WEIGHTS_FILE, extend)),
    "bit flipped": Bad(FLIPPED, say_metadata({}), rewrites(WEIGHTS_FILE, flip)),
    "length of the header": Bad("header of", folder=rewrites(WEIGHTS_FILE, relength)),
    "pickle": Bad("header of", folder=rewrites(WEIGHTS_FILE, pickled)),
    "zip": Bad("header of", folder=rewrites(WEIGHTS_FILE, zipped)),
    "another format": Bad("header of", folder=rewrites(WEIGHTS_FILE, other_format)),
    "header no JSON": Bad("not JSON", folder=header_of(b"{" * 9, b"{'a': 1}", b'{"\xff": 1}')),
    "header no object": Bad("not a JSON object", folder=header_of(b"[]", b"12", b'"{}"')),
    "header nested too deep": Bad("JSON|lists", folder=header_of(b"[" * 9999, b'{"a":' * 99_999)),
    "header costly": Bad(
        "over|no more", folder=header_of(*map(fill_header, (b"[],", b"{},", b"1e5,", b'"",')))
    ),
    "header of a million": Bad(
        "header of", folder=rewrites(WEIGHTS_FILE, lambda *_: million_tensors())
    ),
    # Files that are not regular.
    "missing": Bad("No such file", folder=replaces(lambda *_: None)),
    "empty": Bad("shorter than|not JSON", folder=replaces(lambda path, _: path.touch())),
    "symlink": Bad("a link|cannot be read", folder=replaces(lead)),
    "hard link": Bad(
        "other names", folder=replaces(lambda path, _: path.hardlink_to(path.with_name("before")))
    ),
    "FIFO": Bad("not a regular file", folder=replaces(lambda path, _: os.mkfifo(path))),
    "socket": Bad(
        "cannot be read", folder=replaces(lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600))
    ),
    "folder": Bad("Is a directory", folder=replaces(lambda path, _: path.mkdir())),
    "terabyte": Bad(r"10995\d{8} bytes", folder=replaces(grow)),
    "too large": Bad("are allowed", folder=replaces(exceed)),
}
