"""The demo's device processes, and what they tell, in one queue."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from flasc_cli.demo.processes import Children, log_tail
from flasc_cli.demo.settings import DeviceSettings
from flasc_cli.errors import CliError

__all__ = ["DeviceEvent", "Fleet"]

# Devices are many and the service is one: it goes first where cores are few.
_NICENESS: Final = 5
_THREAD_SETTINGS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """What a device told; `kind` is the SDK event's name, "Summary" at its end."""

    index: int
    task: str
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


class Fleet:
    def __init__(self, children: Children, folder: Path) -> None:
        self._children: Final = children
        self._folder: Final = folder
        self._queue: queue.SimpleQueue[DeviceEvent] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []

    def start(self, devices: Sequence[DeviceSettings]) -> None:
        for device in devices:
            settings = self._folder / f"device-{device.index}.json"
            device.write(settings)
            process = self._children.start(
                ["-m", "flasc_cli.demo.device", str(settings)],
                log=self._log(device.index),
                environment=dict.fromkeys(_THREAD_SETTINGS, "1"),
                niceness=_NICENESS,
                piped=True,
            )
            if process.stdout is None:
                raise AssertionError("a piped process has a pipe")
            reader = threading.Thread(
                target=self._read, args=(device.index, process.stdout), daemon=True
            )
            reader.start()
            self._processes.append(process)
            self._readers.append(reader)

    def next_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """None where nothing happens for so long."""
        try:
            return self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def check_alive(self) -> None:
        """Raise CliError if a device has failed; one that is done is fine."""
        for index, process in enumerate(self._processes):
            if process.poll():
                raise CliError(f"device {index} has failed:\n{log_tail(self._log(index))}")

    def _read(self, index: int, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                fields = json.loads(line)
                kind, task = fields.pop("event"), fields.pop("task")
                self._queue.put(DeviceEvent(index=index, task=task, kind=kind, fields=fields))

    def _log(self, index: int) -> Path:
        return self._folder / "logs" / f"device-{index}.log"
