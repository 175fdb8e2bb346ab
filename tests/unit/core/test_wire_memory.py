"""What choosing and writing an update take beside it, and starting from a download."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DIM = 3_000_000
DENSE_KIB = 4 * DIM // 1024
# What one segment takes while it is read or written, many times its bytes.
SEGMENT_KIB = 4 * 1024

# Runs in a process of its own, since the parser's memory is not Python's. Prints the payload's KiB,
# and how many more the process held at the most than just before.
_MEASURED = """
import re, sys
from pathlib import Path
import numpy as np
from flasc_core.base import ZeroBase
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import KeepLargest, UploadRule
from flasc_core.methods.selection import apply_upload_rule
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode_segments, encode, largest_written

def held(line):
    return int(re.search(line + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")
    return held("VmRSS")

work, dim, every, encoding = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
encoding = Encoding.parse(encoding)
rng = np.random.default_rng(5)
indices = np.flatnonzero(rng.random(dim) < 1 / every).astype(np.int64)
values = rng.standard_normal(indices.size, dtype=np.float32)
# Whatever is loaded at the first use is.
encode(SparseVector(dim=dim, indices=indices[:9], values=values[:9]), encoding)
vector = SparseVector(dim=dim, indices=indices, values=values)
before = forget_peak()
payload = encode(vector, encoding)
if work == "start":
    del vector, indices, values
    layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(dim,), role=Role.LORA_A),))
    before = forget_peak()
    ZeroBase().start_from(layout, decode_segments(payload, DecodeLimits.of_download(dim)))
elif work == "choose":
    layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(dim,), role=Role.LORA_A),))
    update = rng.standard_normal(dim, dtype=np.float32)
    largest = KeepLargest(roles=frozenset({Role.LORA_A}), count=dim // every)
    del vector, indices, values
    before = forget_peak()
    chosen = apply_upload_rule(layout, update, UploadRule(groups=(largest,)))
    largest_written(chosen, encoding)
print(len(payload) // 1024, held("VmHWM") - before)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
every_kind = pytest.mark.parametrize("profile", ["plain", "float32", "int8"])
densities = pytest.mark.parametrize("every", [1, 16])


@linux_only
@every_kind
@densities
def test_a_download_is_read_into_the_one_dense_vector_that_training_starts_from(
    profile: str, every: int
) -> None:
    _, taken = measured("start", profile, every)
    assert taken < DENSE_KIB + SEGMENT_KIB


@linux_only
@every_kind
@densities
def test_an_update_is_written_into_the_payload_a_segment_at_a_time(
    profile: str, every: int
) -> None:
    payload, taken = measured("encode", profile, every)
    # The payload grows in steps of an eighth.
    assert taken < 9 / 8 * payload + SEGMENT_KIB


@linux_only
@every_kind
@pytest.mark.parametrize(("every", "dense"), [(1, 2.3), (16, 1.6)])
def test_an_update_is_chosen_in_little_more_than_its_positions(
    profile: str, every: int, dense: float
) -> None:
    """Of all coordinates those are two dense vectors; of a few, all magnitudes are in one."""
    _, taken = measured("choose", profile, every)
    assert taken < dense * DENSE_KIB + SEGMENT_KIB


def measured(work: str, profile: str, every: int) -> tuple[int, int]:
    command = [sys.executable, "-c", _MEASURED, work, str(DIM), str(every), profile]
    # Arrays that are freed leave the process, so that none after them hides in their place.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    payload, taken = map(int, told.stdout.split())
    return payload, taken
