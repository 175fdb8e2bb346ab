"""What a demo run comes to: the figures, as a file and as tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from flasc_cli.api import Record
from flasc_cli.demo.forwarder import SocketBytes
from flasc_cli.demo.settings import DemoSettings
from flasc_sim.processor import processor_name

__all__ = ["DenseRun", "DeviceBytes", "Report", "make_dense_run", "make_report"]

_FLOAT32_BYTES: Final = 4
_PACKAGES: Final = ("torch", "peft", "transformers", "grpcio", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBytes:
    """Socket bytes as the forwarder counted them, payload bytes as the device did."""

    device_id: str
    socket_bytes_sent: int
    socket_bytes_received: int
    payload_bytes_sent: int
    payload_bytes_received: int

    @property
    def socket_bytes(self) -> int:
        return self.socket_bytes_sent + self.socket_bytes_received

    @classmethod
    def of(cls, device_id: str, socket: SocketBytes, summary: Mapping[str, Any]) -> DeviceBytes:
        return cls(
            device_id=device_id,
            socket_bytes_sent=socket.sent,
            socket_bytes_received=socket.received,
            payload_bytes_sent=summary["payload_bytes_sent"],
            payload_bytes_received=summary["payload_bytes_received"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseRun:
    """The same devices, rounds and seeds with dense LoRA in float32."""

    accuracy_after: float
    accuracy_per_round: Sequence[float]
    seconds_of_rounds: Sequence[float]
    # Both ways, over all devices.
    socket_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Field for field what the summary file holds."""

    accuracy_before: float
    accuracy_after: float
    # Rounds that trained.
    rounds: int
    # Median over them, from opened to published: the first one waits for devices to start.
    seconds_per_round: float
    devices: Sequence[DeviceBytes]
    # Every download and upload of one device, each value a float32.
    dense_fp32_bytes_per_device: int
    # Dense bytes over the bytes that sockets carried, both ways, over all devices.
    saving_factor: float
    adapter_sha256: str
    settings: Mapping[str, Any]
    accuracy_per_round: Sequence[float]
    seconds_of_rounds: Sequence[float]
    held_out_examples: int
    trainable_values: int
    base_model_sha256: str
    machine: Mapping[str, str | int]
    # None where no dense run was asked for.
    dense: DenseRun | None

    @property
    def socket_bytes(self) -> int:
        """Both ways, over all devices."""
        return sum(device.socket_bytes for device in self.devices)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def print(self, console: Console) -> None:
        rise = 100 * (self.accuracy_after - self.accuracy_before)
        console.print(_device_table(self))
        accuracy = (
            f"held-out accuracy: {self.accuracy_before:.1%} before, {self.accuracy_after:.1%} "
            f"after {self.rounds} rounds ({rise:+.1f} points, {self.held_out_examples} examples)"
        )
        traffic = (
            f"dense LoRA in float32, by arithmetic: {_mb(self.dense_fp32_bytes_per_device)} MB per "
            f"device; sockets carried {self.saving_factor:.1f} times less"
        )
        time = f"time per round: {self.seconds_per_round:.1f} s (median)"
        for line in (accuracy, time, traffic, *self._comparison()):
            console.out(line, highlight=False)

    def _comparison(self) -> Sequence[str]:
        if self.dense is None:
            return []
        lost = 100 * (self.dense.accuracy_after - self.accuracy_after)
        told = f"costs {lost:.1f} points" if lost > 0 else f"is {abs(lost):.1f} points ahead"
        line = (
            f"dense LoRA on the same devices: accuracy {self.dense.accuracy_after:.1%}, "
            f"{_mb(self.dense.socket_bytes)} MB at all sockets against "
            f"{_mb(self.socket_bytes)} MB, {self.dense.socket_bytes / self.socket_bytes:.1f} "
            f"times as much; sending the sparse adapter {told}"
        )
        return [line]


def make_report(
    settings: DemoSettings,
    *,
    task: Record,
    rounds: Sequence[Record],
    devices: Sequence[DeviceBytes],
    adapter_sha256: str,
    dense: DenseRun | None = None,
) -> Report:
    """`rounds` are all of the task's, in order; the last one scored the final adapter."""
    trained = [shown for shown in rounds if shown["state"] == "PUBLISHED"]
    scored = [shown["evaluation"] for shown in rounds if shown["evaluation"]]
    # A device downloads for each round it trains in and for the last evaluation, and uploads but
    # for the latter.
    transfers = 2 * len(trained) + 1
    dense_bytes = _FLOAT32_BYTES * task["dimension"] * transfers
    carried = sum(device.socket_bytes for device in devices)
    seconds = _seconds_of(trained)
    return Report(
        accuracy_before=scored[0]["accuracy"],
        accuracy_after=scored[-1]["accuracy"],
        rounds=len(trained),
        seconds_per_round=median(seconds),
        devices=devices,
        dense_fp32_bytes_per_device=dense_bytes,
        saving_factor=dense_bytes * len(devices) / carried,
        adapter_sha256=adapter_sha256,
        settings={**asdict(settings), "data": settings.data and Path(settings.data).name},
        accuracy_per_round=[evaluation["accuracy"] for evaluation in scored],
        seconds_of_rounds=seconds,
        held_out_examples=scored[-1]["total"],
        trainable_values=task["dimension"],
        base_model_sha256=task["config"]["base_model"]["sha256"],
        machine=_machine(),
        dense=dense,
    )


def make_dense_run(rounds: Sequence[Record], sockets: Sequence[SocketBytes]) -> DenseRun:
    """`rounds` are all of the dense task's, in order; `sockets` what each device carried for it."""
    accuracies = [shown["evaluation"]["accuracy"] for shown in rounds if shown["evaluation"]]
    return DenseRun(
        accuracy_after=accuracies[-1],
        accuracy_per_round=accuracies,
        seconds_of_rounds=_seconds_of([s for s in rounds if s["state"] == "PUBLISHED"]),
        socket_bytes=sum(socket.sent + socket.received for socket in sockets),
    )


def _seconds_of(published: Sequence[Record]) -> list[float]:
    return [shown["collecting_seconds"] + shown["publishing_seconds"] for shown in published]


def _device_table(report: Report) -> Table:
    table = Table(title="Bytes per device, counted at the socket (MB)", title_justify="left")
    table.add_column("device")
    for column in ("sent", "received", "payload sent", "payload received", "dense LoRA"):
        table.add_column(column, justify="right")
    for index, device in enumerate(report.devices):
        table.add_row(
            str(index),
            _mb(device.socket_bytes_sent),
            _mb(device.socket_bytes_received),
            _mb(device.payload_bytes_sent),
            _mb(device.payload_bytes_received),
            _mb(report.dense_fp32_bytes_per_device),
        )
    return table


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f}"


def _machine() -> dict[str, str | int]:
    return {
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }
