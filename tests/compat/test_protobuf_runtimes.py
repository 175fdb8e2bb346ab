"""Devices share a process with other people's protobuf: every supported runtime reads our stubs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.patience import PATIENCE_SECONDS

ROOT: Final = Path(__file__).resolve().parents[2]

# Run with the runtime under test first on the path, and with warnings as errors, as devices may.
ROUND_TRIP: Final = """
import sys
import google.protobuf
import numpy as np

assert google.protobuf.__version__.startswith(sys.argv[1]), google.protobuf.__version__
assert google.protobuf.__file__.startswith(sys.argv[2]), google.protobuf.__file__

import client_sdk
from flasc_core.pb.v1 import device_service_pb2 as pb, sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode, encode

request = pb.CheckInRequest(task_name="sections", known_task_sha256=bytes(32))
assert pb.CheckInRequest.FromString(request.SerializeToString()) == request

indices = np.array([0, 5, 99_999], dtype=np.int64)
values = np.array([0.5, -1.25, 3.0], dtype=np.float32)
payload = encode(SparseVector(dim=100_000, indices=indices, values=values))
limits = DecodeLimits(dim=100_000, max_nnz=3, max_abs_value=64.0)
vector = decode(payload, limits)
assert vector.indices.tolist() == indices.tolist()
assert vector.values.tolist() == values.tolist()

# The public schema reads the same bytes that the packed twin wrote.
message = sparse_update_pb2.SparseUpdate.FromString(payload)
assert list(message.segments[0].values) == values.tolist()
print(google.protobuf.__version__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("release", ["5.29.", "6.33.", "7."])
def test_stubs_load_and_round_trip_under_protobuf(release: str, tmp_path: Path) -> None:
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target")
    subprocess.run([*install, str(tmp_path), f"protobuf=={release}*"], check=True, timeout=240)

    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", ROUND_TRIP, release, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(release)
