"""The two encodings in which Terraform talks to a provider, as far as needed: protobuf's fields, and MessagePack's values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message: text, bytes or a message, or a whole number or bool."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(body)) + body


def _numbers(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def fields(data: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message; of several with one number the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        key, at = _numbers(data, at)
        size, at = _numbers(data, at)
        if key & 7 == 2:
            found[key >> 3] = data[at : at + size]
            at += size
    return found


def unpacked(data: bytes) -> Any:
    """A MessagePack value. Raises ValueError for an unknown one: this provider knows all its values when it plans."""
    return next(_values(memoryview(data)))


def _values(data: memoryview) -> Iterator[Any]:
    at = 0

    def take(count: int) -> memoryview:
        nonlocal at
        at += count
        return data[at - count : at]

    def sized(form: str) -> int:
        return int(struct.unpack(form, take(struct.calcsize(form)))[0])

    def mapping(count: int) -> dict[str, Any]:
        return {value(): value() for _ in range(count)}

    def value() -> Any:
        kind = take(1)[0]
        match kind:
            case _ if kind < 0x80:
                return kind
            case _ if kind < 0x90:
                return mapping(kind & 15)
            case _ if kind < 0xA0:
                return [value() for _ in range(kind & 15)]
            case _ if kind < 0xC0:
                return bytes(take(kind & 31)).decode()
            case _ if kind >= 0xE0:
                return kind - 256
            case 0xC0 | 0xC2 | 0xC3:
                return {0xC0: None, 0xC2: False, 0xC3: True}[kind]
            case 0xD9 | 0xDA | 0xDB:
                return bytes(take(sized({0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}[kind]))).decode()
            case 0xDC | 0xDD:
                return [value() for _ in range(sized({0xDC: ">H", 0xDD: ">I"}[kind]))]
            case 0xDE | 0xDF:
                return mapping(sized({0xDE: ">H", 0xDF: ">I"}[kind]))
            case 0xCA | 0xCB:
                form = {0xCA: ">f", 0xCB: ">d"}[kind]
                return struct.unpack(form, take(struct.calcsize(form)))[0]
            case _ if kind in _WHOLE:
                return sized(_WHOLE[kind])
        raise ValueError(f"a value of kind {kind:#x}, such as one that is not known yet")

    yield value()


_WHOLE = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
