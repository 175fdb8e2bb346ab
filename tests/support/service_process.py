"""Parts of the service as processes, started by the real command and killed at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final, Self

from tests.support.child import ROOT
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["ServiceProcess"]

_COMMAND: Final = (sys.executable, "-c", "from flasc_cli.main import main; main()", "serve")


class ServiceProcess:
    """`role` is one of the command's; `settings` are those of the service, in lower case.

    The port is any free one at the first start and the same one from then on. The log of all
    starts goes to one file.
    """

    def __init__(
        self, role: str, *, database_url: str, blobs: Path, log: Path, **settings: Any
    ) -> None:
        self._role: Final = role
        self._log: Final = log
        self._settings: Final[dict[str, Any]] = {
            "database_url": database_url,
            "blobs": str(blobs),
            "check_postgres_durability": False,
            "driver_interval_seconds": 0.02,
            "insecure_dev": True,
            "grpc_port": 0,
        } | settings
        self._process: subprocess.Popen[str] | None = None
        self.starts = 0

    @property
    def port(self) -> int:
        return int(self._settings["grpc_port"])

    @property
    def pid(self) -> int:
        return self._running.pid

    def __enter__(self) -> Self:
        self.begin()
        try:
            self.wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Ends it as an operator would and expects a good end, unless the test has failed."""
        try:
            if self._process is not None and error[0] is None:
                self._process.send_signal(signal.SIGTERM)
                returned = self._process.wait(timeout=PATIENCE_SECONDS)
                assert returned == 0, self._log.read_text()[-2000:]
        finally:
            self._end()

    def begin(self) -> None:
        """Starts the process; several may be begun before any is waited for."""
        given = {f"FLASC_{name.upper()}": str(value) for name, value in self._settings.items()}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, "--role", self._role, "--json"],
                cwd=ROOT,
                env=os.environ | given,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.starts += 1

    def wait_until_ready(self) -> None:
        """Returns once it says that it is; its line names the port."""
        line = self._pipe.readline()
        if not line:
            raise AssertionError(f"{self._role} did not start: {self._log.read_text()[-2000:]}")
        address = json.loads(line).get("devices", "")
        if address:
            self._settings["grpc_port"] = int(address.rpartition(":")[2])

    def kill(self) -> None:
        """Ends it at this instant."""
        killed = self._running
        self._end()
        assert killed.returncode == -signal.SIGKILL

    @property
    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise AssertionError(f"{self._role} is not running")
        return self._process

    @property
    def _pipe(self) -> IO[str]:
        pipe = self._running.stdout
        if pipe is None:
            raise AssertionError("stdout is a pipe")
        return pipe

    def _end(self) -> None:
        """Nothing is left of it, whatever it was doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
            self._process = None
