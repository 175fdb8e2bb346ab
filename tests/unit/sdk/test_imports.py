"""What a device pays for `import client_sdk`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
PRINT_PACKAGES = """
import sys
import google.protobuf.any_pb2, google.protobuf.duration_pb2, google.protobuf.timestamp_pb2
import grpc, numpy
theirs = set(sys.modules)
import client_sdk
ours = {name.partition(".")[0] for name in set(sys.modules) - theirs}
print(" ".join(sorted(ours - sys.stdlib_module_names)))
"""


def test_importing_the_sdk_loads_grpc_protobuf_and_numpy_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    # numpy and protobuf load parts of themselves late.
    assert set(done.stdout.split()) - {"google", "numpy"} == {"client_sdk", "flasc_core"}
