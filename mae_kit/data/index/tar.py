"""Walk the members of an uncompressed tar without extracting it and without trusting it.

Python's tarfile stops at the first damaged header without a word, so that half a shard may be lost unseen. Here a
damaged header is reported and the walk resumes at the next sound one. Headers: POSIX.1-1988 ustar, POSIX.1-2001 pax
(records `path` and `size`) and GNU long names; only regular files are members, nothing is ever written to disk.
"""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHUNK = 2048 * BLOCK
_LONGEST_NAME = 1 << 16
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
_EXTENSIONS = (b"x", b"g", b"L", b"K")
_REGULAR = (b"0", b"\0", b"7")
_DIRECTORY = b"5"
_WITHOUT_DATA = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    _DIRECTORY: "a directory",
    b"6": "a named pipe",
}


class Member(NamedTuple):
    """A regular file: its name, and where its bytes lie in the tar."""

    name: str
    offset: int
    size: int


class Damage(NamedTuple):
    """Something that is no sound regular member: where, and what; `kind: detail` or just the kind."""

    offset: int
    reason: str


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes


def walk(stream: BufferedIOBase) -> Iterator[Member | Damage]:
    """Yield the members and the damage of a tar, in the order of the file.

    Args:
        stream: Opened for reading in binary and seekable; the caller may move it between two items.
    """
    refused = _refuse(_read(stream, 0, BLOCK))
    if refused:
        yield Damage(0, refused)
        return
    for entry in _entries(stream, stream.seek(0, 2)):
        if isinstance(entry, Damage):
            yield entry
            continue
        header, data = entry
        odd = _odd(header)
        if odd:
            yield Damage(data, odd)
        elif header.type in _REGULAR and not header.name.endswith("/"):
            yield Member(header.name.removeprefix("./"), data, header.size)


def _entries(stream: BufferedIOBase, end: int) -> Iterator[tuple[_Header, int] | Damage]:
    """Headers with the offset of their data, names and sizes already corrected by the extension headers before them."""
    position, corrections = 0, dict[str, str]()
    while position < end:
        block = _read(stream, position, BLOCK)
        header = _parse(block)
        if header is None:
            damage, following = _recover(stream, position, block)
            if damage:
                yield damage
            if following is None:
                return
            position, corrections = following, {}
            continue
        header, data = _correct(header, corrections), position + BLOCK
        position = data + -(-header.size // BLOCK) * BLOCK
        if data + header.size > end:
            yield Damage(data, f"cut inside a member: {header.name} has {end - data:,} of {header.size:,} bytes")
            return
        if header.type in _EXTENSIONS:
            corrections |= _corrections(header.type, _read(stream, data, min(header.size, _LONGEST_NAME)))
        else:
            corrections = {}
            yield header, data
    yield Damage(end, "no end-of-archive blocks: cut between two members, or never closed")


def _refuse(start: bytes) -> str:
    """Why a file that begins so is not walked at all; empty where it is."""
    if not start:
        return "empty: a file of 0 bytes"
    for magic, name in _COMPRESSIONS.items():
        if start.startswith(magic):
            return f"compressed: {name} inside, unpack it first (samples are read by offset)"
    return ""


def _odd(header: _Header) -> str:
    """Why a member is not to be used; empty for files and directories inside the archive."""
    name, kind = header.name, header.type
    if name.startswith("/") or ".." in name.split("/"):
        return f"name outside the archive: {name}"
    if kind in _REGULAR or kind == _DIRECTORY:
        return ""
    return f"not a regular file: {name} is {_WITHOUT_DATA.get(kind, f'of tar type {kind!r}')}"


def _read(stream: BufferedIOBase, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set (GNU, for files over 8 GiB)."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _text(field: bytes) -> str:
    """Up to the first zero byte; names that are no UTF-8 keep their bytes as escapes, and stay distinct."""
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _parse(block: bytes) -> _Header | None:
    """Read one header, None unless its checksum holds; a sixth of the time of `tarfile.TarInfo.frombuf`."""
    if len(block) < BLOCK:
        return None
    try:
        # The checksum counts itself as eight spaces.
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
            return None
        name, size, kind = _text(block[:100]), _number(block[124:136]), block[156:157]
    except ValueError:
        return None
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, size, kind) if size >= 0 else None


def _correct(header: _Header, corrections: dict[str, str]) -> _Header:
    if header.type in _WITHOUT_DATA:
        return header._replace(name=corrections.get("path", header.name), size=0)
    if header.type in _EXTENSIONS or not corrections:
        return header
    name, size = corrections.get("path", header.name), corrections.get("size", header.size)
    return header._replace(name=name, size=int(size))


def _recover(stream: BufferedIOBase, position: int, block: bytes) -> tuple[Damage | None, int | None]:
    """What is wrong at `position`, where no header is, and the offset to resume at (None: nothing readable follows)."""
    if len(block) < BLOCK and not position:
        return Damage(0, f"not a tar: {len(block)} bytes, less than one header"), None
    if len(block) < BLOCK:
        return Damage(position, f"cut inside a header: {len(block)} of {BLOCK} bytes"), None
    following = _next_header(stream, position + BLOCK)
    if block == _ZEROS and following is None:
        return None, None
    if following is None:
        kind = "damaged header: nothing readable behind it" if position else "not a tar: no header in it"
        return Damage(position, kind), None
    kind = "zeroed header" if block == _ZEROS else "damaged header"
    return Damage(position, f"{kind}: {following - position:,} bytes skipped"), following


def _next_header(stream: BufferedIOBase, position: int) -> int | None:
    """Offset of the next sound header at or after `position`."""
    while chunk := _read(stream, position, _CHUNK):
        for start in range(0, len(chunk), BLOCK):
            block = chunk[start : start + BLOCK]
            if block != _ZEROS and _parse(block) is not None:
                return position + start
        position += len(chunk)
    return None


def _corrections(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extension says of the member behind it; global pax records (comments, times) say nothing of use."""
    if kind == b"L":
        return {"path": _text(data)}
    return _pax(data) if kind == b"x" else {}


def _pax(data: bytes) -> dict[str, str]:
    """The records `<length> <keyword>=<value>` that count here; a record that lies about its length ends them."""
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not _is_number(length) or not len(length) < int(length) <= len(data):
            break
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        keyword, _, value = record.partition(b"=")
        if keyword == b"path" or (keyword == b"size" and _is_number(value)):
            found[keyword.decode()] = value.decode("utf-8", "backslashreplace")
    return found


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) < 20
