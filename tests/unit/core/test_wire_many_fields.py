"""Payloads of very many fields: refused or read in memory that their bytes bound."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedUpdate
from flasc_core.wire import decode, encode
from flasc_core.wire.tags import has_more_fields
from tests.unit.core.builders import a_payload, a_segment, a_vector, limits_of

DIM = 30_000_000
# Runs in a process of its own, since the parser's memory is not Python's.
_READING = """
import re, sys
from pathlib import Path
from flasc_core.errors import Refusal
from flasc_core.wire import DecodeLimits, decode
def peak():
    # getrusage's begins with the peak of the process that started this one.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
payload = Path(sys.argv[1]).read_bytes()
before = peak()
try:
    decode(payload, DecodeLimits(dim=30_000_000, max_nnz=1_900_000, max_abs_value=64.0))
except Refusal as refusal:
    print(refusal.reason.name)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("size", [700_000, 2_000_000])
@pytest.mark.parametrize("empty", [b"\x32\x00", b"\x3a\x00"])
def test_nothing_said_many_times_takes_little_memory(
    tmp_path: Path, empty: bytes, size: int
) -> None:
    update = PackedUpdate.FromString(encode(a_vector(dim=DIM)))
    segment = update.segments[0] + empty * (size // len(empty))
    (tmp_path / "payload").write_bytes(
        PackedUpdate(dim=DIM, segments=[segment], crc32=zlib.crc32(segment)).SerializeToString()
    )
    assert _kib_of(tmp_path / "payload") < 4 * size / 1024 + 2_048


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
# By itself, and behind a group with a field 0, which parsers let pass.
@pytest.mark.parametrize("before", [b"", b"\x0b\x00\x00\x0c"])
def test_an_update_of_nothing_but_segments_is_refused_before_it_is_parsed(
    tmp_path: Path, before: bytes
) -> None:
    update = b"\x08\x80\x87\xa7\x0e" + before + b"\x12\x00" * 4_000_000
    (tmp_path / "payload").write_bytes(update)
    assert _kib_of(tmp_path / "payload") < 2_048


def test_a_segment_longer_than_any_honest_one_is_refused() -> None:
    # A field that nobody knows, of 800,000 bytes.
    segment = a_segment() + b"\xa2\x06\x80\xea\x30" + bytes(800_000)
    with pytest.raises(Refusal, match="bytes") as refusal:
        decode(a_payload(segment), limits_of())
    assert refusal.value.reason is Reason.FIELD_RANGE


def _kib_of(payload: Path) -> int:
    command = [sys.executable, "-c", _READING, str(payload)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(told.stdout.split()[-1])


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (b"", 0),
        (b"\x08\x80\x87\xa7\x0e", 1),
        (b"\x08\x01\x12\x03\x08\x08\x08\x1d\x00\x00\x00\x00", 3),
        (b"\x09" + bytes(8) + b"\x10\x00", 2),
        # Cut off, or of a size that nothing has.
        (b"\x08\x80", 1),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1),
        (bytes(10), 5),
        (b"\x08" + b"\x80" * 11 + b"\x00", 1),
    ],
)
def test_fields_are_counted_as_a_parser_meets_them(message: bytes, fields: int) -> None:
    assert not has_more_fields(message, fields)
    assert fields == 0 or has_more_fields(message, fields - 1)
