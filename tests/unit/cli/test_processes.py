"""No child outlives its parent, whether the parent leaves in order or is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flasc_cli.demo.processes import Children
from tests.support.patience import PATIENCE_SECONDS

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(600)"
)


def test_leaving_ends_children_that_obey_and_kills_those_that_do_not(tmp_path: Path) -> None:
    with Children() as children:
        obedient = children.start(["-c", SLEEPER], log=tmp_path / "log", piped=True)
        stubborn = children.start(["-c", STUBBORN], log=tmp_path / "log", piped=True)
        for process in (obedient, stubborn):
            assert process.stdout is not None
            with process.stdout as lines:
                assert lines.readline() == "up\n"
        children.end_all(grace_seconds=0.5)
    assert obedient.returncode == -signal.SIGTERM
    assert stubborn.returncode == -signal.SIGKILL


def test_an_error_of_the_parent_ends_children(tmp_path: Path) -> None:
    started: list[subprocess.Popen[str]] = []

    def work() -> None:
        with Children() as children:
            started.append(children.start(["-c", SLEEPER], log=tmp_path / "log"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert started[0].returncode is not None


def test_a_child_sees_its_environment_niceness_and_log(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['WORD'], os.nice(0), file=sys.stderr)"
    log = tmp_path / "log"
    with Children() as children:
        process = children.start(["-c", program], log=log, environment={"WORD": "x"}, niceness=3)
        assert process.wait(timeout=PATIENCE_SECONDS) == 0
    assert log.read_text() == f"x {os.nice(0) + 3}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_a_killed_parent_takes_its_children_with_it(tmp_path: Path) -> None:
    program = f"""
import json, os, pathlib, sys
from flasc_cli.demo.processes import Children
with Children() as children:
    process = children.start(["-c", {SLEEPER!r}], log=pathlib.Path({str(tmp_path / "log")!r}),
                             piped=True)
    process.stdout.readline()
    print(json.dumps(process.pid), flush=True)
    os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parents[3]
    parent = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert parent.returncode == -signal.SIGKILL
    assert _is_gone(json.loads(parent.stdout))


def _is_gone(pid: int) -> bool:
    """Waits for the kernel: a process that is being killed is not gone at once."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    readable, _, _ = select.select([descriptor], [], [], PATIENCE_SECONDS)
    os.close(descriptor)
    return bool(readable)
