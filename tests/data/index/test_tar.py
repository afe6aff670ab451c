"""The walk through tars: sound ones as tarfile reads them, damaged ones to the last member that can be had."""
# Also tests data/index/samples.py.

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.gates import Measured

from mae_kit.data.index.tar import BLOCK, Damage, Member, walk

MEMBERS = [("a.jpg", b"j" * 700), ("a.cls", b"1"), ("b.jpg", b"k" * 512), ("b.cls", b""), ("c.jpg", b"l" * 1500)]

# Members read, and how the one damage begins (None: sound)
BAD = {
    "ok.tar": (16, None),
    "empty-0-bytes.tar": (0, "empty"),
    "cut-in-member.tar": (8, "cut inside a member: 000004.jpg has 300 of 1,565 bytes"),
    "cut-in-header.tar": (8, "cut inside a header: 312 of 512 bytes"),
    "cut-after-member.tar": (8, "no end-of-archive blocks"),
    "bad-header-checksum.tar": (15, "damaged header: 2,560 bytes skipped"),
    "zeroed-header.tar": (15, "zeroed header: 2,560 bytes skipped"),
    "cut.tar.gz": (0, "compressed: gzip inside, unpack it first"),
    "plain-named.tar.gz": (16, None),
    "dot-slash.tar": (16, None),
    "long-names-pax.tar": (16, None),
    "index-json-first.tar": (17, None),
    "html-named.tar": (0, "not a tar"),
}


def tar(members=MEMBERS, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def walked(data: bytes) -> tuple[list[Member], list[Damage]]:
    found = list(walk(io.BytesIO(data)))
    return [x for x in found if isinstance(x, Member)], [x for x in found if isinstance(x, Damage)]


def contents(data: bytes) -> list[tuple[str, bytes]]:
    return [(name, data[offset : offset + size]) for name, offset, size in walked(data)[0]]


@pytest.mark.parametrize("name", BAD)
def test_bad_tars(shared: Path, name: str):
    count, reason = BAD[name]
    members, damage = walked((shared / "data/bad/tars" / name).read_bytes())
    assert len(members) == count
    assert len(damage) == (reason is not None)
    assert all(found.reason.startswith(reason) for found in damage)
    assert not any(member.name.startswith("./") for member in members)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_in_every_dialect(kind: int):
    long = "d" * 90 + "/" + "f" * (95 if kind == tarfile.USTAR_FORMAT else 400) + ".jpg"
    members = [(long, b"1"), ("é/ß.jpg", b"2"), *MEMBERS]
    assert contents(tar(members, kind)) == members
    assert walked(tar(members, kind))[1] == []


def test_pax_sizes_count():
    data = bytearray(tar([("a.jpg", b"x" * 600)], tarfile.PAX_FORMAT))
    record = b"12 size=600\n"
    extension = tarfile.TarInfo("pax")
    extension.type, extension.size = tarfile.XHDTYPE, len(record)
    lying = tarfile.TarInfo("a.jpg")  # says 0 bytes, as writers do where octal digits do not suffice
    data[:BLOCK] = extension.tobuf() + record.ljust(BLOCK, b"\0") + lying.tobuf()
    assert contents(bytes(data)) == [("a.jpg", b"x" * 600)]


def test_gnu_sizes_in_base_256():
    info = tarfile.TarInfo("huge.jpg")
    info.size = 1 << 34
    members, damage = walked(info.tobuf(tarfile.GNU_FORMAT))
    assert members == []
    assert damage[0].reason == "cut inside a member: huge.jpg has 0 of 17,179,869,184 bytes"


@pytest.mark.gate("R12")
def test_only_regular_files_inside_the_archive_are_members():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in [
            ("d", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
            ("../up.jpg", tarfile.REGTYPE),
            ("/root.jpg", tarfile.REGTYPE),
            ("d/../../up.jpg", tarfile.REGTYPE),
            ("good..jpg", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    members, damage = walked(stream.getvalue())
    assert [member.name for member in members] == ["good..jpg"]
    assert [found.reason.split(":")[0] for found in damage] == ["not a regular file"] * 3 + [
        "name outside the archive"
    ] * 3
    assert damage[0].reason == "not a regular file: link.jpg is a symbolic link"


@pytest.mark.gate("R9")
def test_cut_anywhere_keeps_what_is_before_and_tells():
    whole = tar()
    end = len(contents(whole)[-1][1]) + walked(whole)[0][-1].offset
    for length in range(0, end, 61):
        members = contents(whole[:length])
        assert members == MEMBERS[: len(members)]
        assert len(walked(whole[:length])[1]) == 1


@pytest.mark.gate("R9")
def test_every_damaged_header_costs_one_member():
    whole = tar()
    for number, member in enumerate(walked(whole)[0]):
        for damage in (bytes(BLOCK), b"\xff" * BLOCK):
            data = whole[: member.offset - BLOCK] + damage + whole[member.offset :]
            assert contents(data) == MEMBERS[:number] + MEMBERS[number + 1 :]
            found = walked(data)[1]
            assert len(found) == 1 or number == len(MEMBERS) - 1
            assert all(item.offset == member.offset - BLOCK for item in found)


def test_a_size_below_zero_does_not_turn_the_walk_back():
    info = tarfile.TarInfo("a.jpg")
    block = bytearray(info.tobuf())
    block[124:136] = b"-0000020000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    members, damage = walked(bytes(block) + tar())
    assert len(members) == len(MEMBERS)
    assert len(damage) == 1


def test_concatenated_tars_are_read_to_the_end():
    members, damage = walked(tar() + tar([("z.jpg", b"z")]))
    assert [member.name for member in members][-1] == "z.jpg"
    assert damage[0].reason.startswith("zeroed header")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\x28\xb5\x2f\xfd", "compressed: zstd"),
        (b"PK\x03\x04", "compressed: zip"),
        (b"<html>", "not a tar"),
        (b"x" * 2000, "not a tar"),
    ],
)
def test_other_files(start: bytes, reason: str):
    members, damage = walked(start + b"y" * BLOCK)
    assert members == []
    assert damage[0].reason.startswith(reason)


@pytest.mark.slow
@pytest.mark.gate("R12")
def test_a_million_members_in_little_memory(tmp_path: Path, measured: Measured):
    block = tarfile.TarInfo("x.cls").tobuf()
    path = tmp_path / "many.tar"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(block * 10_000)
        file.write(bytes(2 * BLOCK))
    # In a process of its own: without type checks on every call, and with a peak that is its own.
    code = f"""
import resource
from mae_kit.data.index.tar import walk
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open({str(path)!r}, "rb") as stream:
    print(sum(1 for _ in walk(stream)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    path.unlink()
    count, kilobytes = map(int, done.stdout.split())
    measured(f"a million members: {kilobytes / 1000:.1f} MB")
    assert count == 1_000_000
    assert kilobytes < 20_000
