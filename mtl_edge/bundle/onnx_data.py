"""Where an ONNX graph's weights lie, read from its bytes without the package onnx.

A tensor of an ONNX file may say that its values are in another file, by name, offset and length.
An engine opens whatever is named there. This walks through the protobuf messages in which such
tensors can be, of which most bytes are never looked at, and refuses names that are not the graph's
own and places beyond the file's end.

Wire format: https://protobuf.dev/programming-guides/encoding; messages and the numbers of their
fields: onnx/onnx.proto in https://github.com/onnx/onnx.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from mtl_edge.bundle.safe_files import altered, opened

__all__ = ["External", "external_data", "require_external"]

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING = range(8)

# By message: which of its fields hold which other message.
FIELDS: Mapping[int, Mapping[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    TENSOR: {},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
}
OP_TYPE, EXTERNAL_DATA, DATA_LOCATION = 4, 13, 14  # of a node; of a tensor, the latter two
IN_ANOTHER_FILE = 1

MOST_FIELDS = 4_000_000  # 100 layers have half a million; these take some seconds
MOST_LEVELS = 100  # protobuf's own limit
MOST_ENTRIES, MOST_ENTRY_BYTES = 16, 4096  # of what a tensor says of the place of its values
NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)

# A file's bytes, and the start and end of a message in them.
Bytes = bytes | mmap.mmap
External = Mapping[str, str]


def require_external(root: Path, name: str, sizes: Mapping[str, int]) -> None:
    """Check where a bundle's ONNX graph says that its weights are.

    Args:
        root: the bundle's folder, resolved.
        name: of the graph's file, relative to it.
        sizes: bytes of each file of the graph, by name.

    Raises:
        BundleError: the file is malformed, or names a file or a place that is not the graph's.
    """
    with opened(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:  # cannot be mapped
            raise altered(f"{root / name} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for entry in external_data(data):
                    _require_own(entry, PurePosixPath(name).parent, sizes)
            except ValueError as error:
                raise altered(f"{root / name} is no ONNX graph to be opened: {error}") from None


def _require_own(entry: External, folder: PurePosixPath, sizes: Mapping[str, int]) -> None:
    location = entry.get("location", "")
    # Names in `sizes` are plain and relative: nothing that leads elsewhere equals one of them.
    path = str(folder / location)
    if not location or path not in sizes:
        raise ValueError(f"its weights are to come from {location!r:.100}, no file of the graph")
    offset, length = (_number(entry.get(key, "0"), key) for key in ("offset", "length"))
    if offset + length > sizes[path]:
        raise ValueError(
            f"its weights are to come from bytes {offset:,} to {offset + length:,} of "
            f"{location!r}, which has {sizes[path]:,}"
        )


def _number(text: str, what: str) -> int:
    if NUMBER.fullmatch(text) is None:
        raise ValueError(f"{what} of its weights is {text!r:.40}, expected a number")
    return int(text)


def external_data(data: Bytes) -> Iterator[External]:
    """What each tensor of an ONNX file says of the place of its values, `location` among it.

    Raises:
        ValueError: the bytes are no such file, or have a form that no writer uses and that readers
            may take differently.
    """
    left = MOST_FIELDS
    waiting = [(MODEL, 0, len(data), 0)]
    while waiting:
        kind, start, end, level = waiting.pop()
        if level > MOST_LEVELS:
            raise ValueError("its messages are nested too deep")
        inner = FIELDS[kind]
        entries: list[tuple[int, int]] = []
        elsewhere = False
        for number, wire, value, after in _fields(data, start, end):
            left -= 1
            if left < 0:
                raise ValueError(f"it has more than {MOST_FIELDS:,} fields")
            if wire == 2 and number in inner:
                waiting.append((inner[number], value, after, level + 1))
            elif kind == TENSOR and number == EXTERNAL_DATA and wire == 2:
                entries.append((value, after))
            elif kind == TENSOR and number == DATA_LOCATION and wire == 0:
                elsewhere = elsewhere or value == IN_ANOTHER_FILE
            elif kind == NODE and number == OP_TYPE and data[value:after] == b"EPContext":
                raise ValueError("it is a graph compiled for one device, whose file it names")
        if entries or elsewhere:
            yield _pairs(data, entries)


def _pairs(data: Bytes, entries: list[tuple[int, int]]) -> dict[str, str]:
    """Keys and values of a tensor's entries, each key once."""
    if len(entries) > MOST_ENTRIES or any(end - start > MOST_ENTRY_BYTES for start, end in entries):
        raise ValueError("a tensor says too much of the place of its values")
    result: dict[str, str] = {}
    for start, end in entries:
        texts = {1: "", 2: ""}
        for number, wire, value, after in _fields(data, start, end):
            if wire == 2 and number in texts:
                texts[number] = data[value:after].decode("utf-8")
        if texts[1] in result:
            raise ValueError(f"a tensor gives the {texts[1]!r:.40} of its values twice")
        result[texts[1]] = texts[2]
    return result


def _fields(data: Bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and place of each field of a message.

    The place of a field with a length (wire type 2) is where its content starts and where it ends;
    of a varint (0), its value and where it ends; of the others, its start and its end.
    """
    position = start
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, position - 1, end, 5)
        wire = tag & 7
        if tag < 8 or tag >= 2**32:
            raise ValueError(f"a field has no number at byte {position}")
        if wire == 2:
            length, content = _varint(data, position, end, 5)
            position = content + length
            place = content
        elif wire == 0:
            place, position = _varint(data, position, end, 10)
        elif wire in (1, 5):
            place = position
            position += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field has the wire type {wire} at byte {position}")
        if position > end:
            raise ValueError(f"a field goes on beyond its message at byte {place}")
        yield tag >> 3, wire, place, position


def _varint(data: Bytes, position: int, end: int, most: int) -> tuple[int, int]:
    """An integer of at most `most` bytes, and where it ends."""
    value = 0
    for shift in range(0, 7 * most, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"a number does not end at byte {position}")
