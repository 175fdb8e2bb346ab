"""Devices share a process with other people's protobuf: under each that is supported, our stubs
load, and what is read and written is the same, byte for byte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import google.protobuf
import pytest

from tests.compat.written_bytes import digests
from tests.support.patience import PATIENCE_SECONDS

ROOT: Final = Path(__file__).resolve().parents[2]

every_kind = pytest.mark.parametrize("kind", ["upb", "python"])


@every_kind
def test_the_runtime_at_hand_reads_and_writes_the_same_either_way(kind: str) -> None:
    check_runtime(kind, Path(google.protobuf.__file__).parents[2], google.protobuf.__version__)


@pytest.mark.slow
@pytest.mark.parametrize("release", ["5.29.", "6.33.", "7."])
def test_other_releases_read_and_write_the_same_either_way(release: str, tmp_path: Path) -> None:
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target")
    subprocess.run([*install, str(tmp_path), f"protobuf=={release}*"], check=True, timeout=240)
    for kind in ("upb", "python"):
        check_runtime(kind, tmp_path, release)


def check_runtime(kind: str, folder: Path, release: str) -> None:
    """Run it first on the path, and with warnings as errors, as devices may."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import client_sdk\n" + RUN],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": kind,
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout)
    runtime = told["runtime"]
    assert runtime["version"].startswith(release)
    assert runtime["file"].startswith(str(folder))
    assert runtime["kind"] == kind
    assert told["digests"] == here()


RUN: Final = "from tests.compat.written_bytes import main\nmain()"


@cache
def here() -> dict[str, str]:
    return digests()
