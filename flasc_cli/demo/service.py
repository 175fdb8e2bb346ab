"""The demo's service process: started, killed and started again on the same ports."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flasc_cli.demo.processes import Children, log_tail
from flasc_cli.errors import CliError

__all__ = ["ServiceProcess"]


class ServiceProcess:
    """`flasc serve` with every role, on loopback, over SQLite and blobs in `folder`."""

    def __init__(self, children: Children, folder: Path) -> None:
        self._children: Final = children
        self._log: Final = folder / "logs" / "service.log"
        self._environment: Final = {
            "FLASC_DATABASE_URL": f"sqlite:///{folder / 'flasc.db'}",
            "FLASC_BLOBS": str(folder / "blobs"),
            "FLASC_DRIVER_INTERVAL_SECONDS": "0.1",
            "FLASC_DRAIN_SECONDS": "2",
        }
        self._ports = (0, 0)
        self._process: subprocess.Popen[str] | None = None
        self.devices_address = ""
        self.admin_address = ""

    @property
    def database_url(self) -> str:
        return self._environment["FLASC_DATABASE_URL"]

    def start(self) -> None:
        """Return once it listens: on free ports the first time, on the same ones ever after."""
        grpc_port, http_port = self._ports
        process = self._children.start(
            [
                *("-m", "flasc_cli", "serve", "--insecure-dev", "--json"),
                *("--grpc-port", str(grpc_port), "--http-port", str(http_port)),
            ],
            log=self._log,
            environment=self._environment,
            piped=True,
        )
        if process.stdout is None:
            raise AssertionError("a piped process has a pipe")
        with process.stdout as lines:
            ready = lines.readline()
        if not ready:
            raise CliError(f"the service did not start:\n{log_tail(self._log)}")
        addresses = json.loads(ready)
        self.devices_address = addresses["devices"]
        self.admin_address = addresses["admin"]
        self._ports = (_port(f"//{self.devices_address}"), _port(self.admin_address))
        self._process = process

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise CliError(f"the service has ended:\n{log_tail(self._log)}")


def _port(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise AssertionError(f"{url} has no port")
    return port
