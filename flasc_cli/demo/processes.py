"""Child processes that never outlive their parent, however it ends.

Each child leads a process group of its own, so that Ctrl-C reaches only the parent, which then ends
them in order. On Linux the kernel kills them too if the parent is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

__all__ = ["Children", "log_tail"]

_TETHER: Final = Path(__file__).with_name("tether.py")
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Children:
    """Ends every child when it is left. Use it from the main thread: the tether is to a thread."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave half of them running.
        held = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
        try:
            self.end_all(grace_seconds=5.0)
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)

    def start(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        niceness: int = 0,
        piped: bool = False,
    ) -> subprocess.Popen[str]:
        """Run `python arguments…`; stderr goes to `log`, and stdout too unless it is `piped`.

        Who asks for a pipe closes it. Settings of the service that the parent's environment
        happens to have are not passed on.
        """
        command = [sys.executable, "-S", str(_TETHER), str(os.getpid()), str(niceness)]
        with log.open("a") as log_file:
            target: IO[str] | int = subprocess.PIPE if piped else log_file
            process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=log_file,
                env={**_inherited_environment(), **(environment or {})},
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def end_all(self, *, grace_seconds: float) -> None:
        """SIGTERM to all, SIGKILL to what is left after the grace; returns when all are gone."""
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()
        self._processes.clear()


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the end of a child's log, with where the rest is."""
    return "\n".join([*log.read_text(errors="replace").splitlines()[-lines:], f"(from {log})"])


def _inherited_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASC_")}
    # A proxy may be needed for a hub's models, but never between the processes of this machine.
    given = kept.get("no_proxy") or kept.get("NO_PROXY")
    kept["no_proxy"] = kept["NO_PROXY"] = ",".join(filter(None, (given, "127.0.0.1,localhost")))
    return kept


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
