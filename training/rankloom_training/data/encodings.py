"""Finds out how a text file is encoded: MovieLens' editions alone come in two ways.

A file without a byte order mark is UTF-8 if all of it is. What is not must be one byte a
character, and a file that is partly UTF-8 is refused: half of its texts would be garbled.
"""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import pyarrow as pa

from rankloom_training.data.errors import DataError

_CHUNK_BYTES = 1 << 20
_REMEDY = "save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """``name``: as people write it. ``codec``: Python's, which also skips the mark."""

    name: str
    codec: str


UTF_8 = TextEncoding("UTF-8", "utf-8")
# UTF-32's mark begins as UTF-16's does, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, None),
    (codecs.BOM_UTF32_BE, None),
    (codecs.BOM_UTF8, TextEncoding("UTF-8 with BOM", "utf-8-sig")),
    (codecs.BOM_UTF16_LE, TextEncoding("UTF-16", "utf-16")),
    (codecs.BOM_UTF16_BE, TextEncoding("UTF-16", "utf-16")),
)


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked if its name ends in ``.gz``."""
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def open_lines(path: Path, encoding: TextEncoding) -> TextIO:
    """The text for Python, with its line ends as they are."""
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding=encoding.codec, newline=""))
    return path.open(encoding=encoding.codec, newline="")


def open_text(path: Path, encoding: TextEncoding) -> pa.NativeFile:
    """The text for Arrow: as UTF-8 without a mark, whatever the file's encoding."""
    stream = pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None)
    if encoding == UTF_8:
        return stream
    return pa.transcoding_input_stream(stream, encoding.codec, "utf-8")


def encoding_of(path: Path) -> TextEncoding:
    """Reads the whole file once. Raises DataError, which names the encoding and the line."""
    with open_bytes(path) as file:
        head = file.read(_CHUNK_BYTES)
    if not head.strip():
        raise DataError(f"{path.name}: is empty; write rows into it")
    encoding = _by_mark(path, head) or _by_zeros(path, head) or UTF_8
    if _decodes(path, encoding):
        return encoding
    if encoding == UTF_8:
        return _single_byte(path)
    raise DataError(f"{path.name}: begins as {encoding.name} but goes on otherwise; {_REMEDY}")


def _by_mark(path: Path, head: bytes) -> TextEncoding | None:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if encoding is None:
                raise DataError(f"{path.name}: UTF-32 is not read; {_REMEDY}")
            return encoding
    return None


def _by_zeros(path: Path, head: bytes) -> TextEncoding | None:
    """UTF-16 without a mark: every other byte of most texts is zero."""
    if b"\0" not in head:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if 4 * max(even, odd) < len(head) // 2 or 4 * min(even, odd) > max(even, odd):
        raise DataError(f"{path.name}: holds zero bytes, so it is not text; {_REMEDY}")
    return TextEncoding("UTF-16", "utf-16-le" if odd > even else "utf-16-be")


def _decodes(path: Path, encoding: TextEncoding) -> bool:
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _chunks(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _single_byte(path: Path) -> TextEncoding:
    """Latin-1, or Windows' superset of it where its extra characters occur."""
    utf8_line = other_line = 0
    used: set[int] = set()
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            if _is_utf8(line):
                utf8_line = utf8_line or number
            else:
                other_line = other_line or number
                used.update(line)
    if utf8_line:
        raise DataError(
            f"{path.name}: line {utf8_line} is UTF-8, but line {other_line} is not "
            f"(perhaps Latin-1); {_REMEDY}"
        )
    if used.isdisjoint(range(0x80, 0xA0)):
        return TextEncoding("Latin-1", "latin-1")
    if used.isdisjoint(b"\x81\x8d\x8f\x90\x9d"):
        return TextEncoding("Windows-1252", "cp1252")
    raise DataError(
        f"{path.name}: line {other_line} is neither UTF-8 nor Latin-1 nor UTF-16; {_REMEDY}"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
