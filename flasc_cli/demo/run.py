"""Runs the demo: the service, a counting forwarder, device processes, and a check of the result.

    serve ─▶ tasks ─▶ enrol ─▶ forwarder ─▶ devices: sparse, then dense ═▶ export ─▶ fresh check

Whatever ends the run early ends every process that it started.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from math import isclose
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from flasc_cli import database
from flasc_cli.api import AdminApi, Record
from flasc_cli.demo.fleet import DeviceEvent, Fleet
from flasc_cli.demo.forwarder import CountingForwarder, SocketBytes
from flasc_cli.demo.processes import Children, log_tail
from flasc_cli.demo.progress import Display, open_display
from flasc_cli.demo.report import DeviceBytes, Report, make_dense_run, make_report
from flasc_cli.demo.rounds_seen import RoundsSeen, number_of
from flasc_cli.demo.service import ServiceProcess
from flasc_cli.demo.settings import DENSE_TASK, SPARSE_TASK, DemoSettings, DeviceSettings
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.exporting import export_adapter

__all__ = ["run_demo"]

# Says that a folder is a demo's own, which the next demo may replace.
_MARK: Final = ".flasc-demo"
_LOOK_SECONDS: Final = 0.5


def run_demo(
    settings: DemoSettings,
    *,
    data_folder: Path,
    summary: Path,
    compare_with_dense: bool,
    kill_server_in_round: int | None,
    as_json: bool,
) -> None:
    """Raises CliError: FAILED where something breaks, CHECK_FAILED where accuracies differ."""
    # With --json, stdout is for the summary alone.
    console = Console(stderr=as_json)
    folder = _fresh_folder(data_folder.resolve())
    with _interruptible(), Children() as children:
        demo = _Demo(settings, folder, children, console, kill_server_in_round)
        report = demo.run(compare_with_dense=compare_with_dense)
    report.write(summary)
    report.print(console)
    console.out(f"all figures: {summary}; logs, database, adapter: {data_folder}", highlight=False)
    if as_json:
        sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")


class _Demo:
    def __init__(
        self,
        settings: DemoSettings,
        folder: Path,
        children: Children,
        console: Console,
        kill_in_round: int | None,
    ) -> None:
        self._settings = settings
        self._folder: Final = folder
        self._children: Final = children
        self._console: Final = console
        self._kill_in_round = kill_in_round
        self._service: Final = ServiceProcess(children, folder)
        # By task, and then by device.
        self._summaries: dict[str, dict[int, Mapping[str, Any]]] = {SPARSE_TASK: {}}

    def run(self, *, compare_with_dense: bool) -> Report:
        key = self._start_service()
        task = self._create_task(key, SPARSE_TASK, self._settings)
        if compare_with_dense:
            self._summaries[DENSE_TASK] = {}
            self._create_task(key, DENSE_TASK, self._settings.dense())
        # What "auto" came to is what devices must load.
        self._settings = replace(
            self._settings, dtype=task["config"]["base_model"]["name"].rpartition("@")[2]
        )
        with AdminApi(self._service.admin_address, key) as client:
            devices = [
                client.post("/v1/devices", {"name": f"maintainer group {index}"})
                for index in range(self._settings.devices)
            ]
            host, _, port = self._service.devices_address.rpartition(":")
            # A port for each task of each device: devices do not wait for one another between them.
            lines = [
                _line(task, index) for task in self._summaries for index in range(len(devices))
            ]
            with CountingForwarder((host, int(port)), lines) as forwarder:
                self._run_devices(client, devices, forwarder.ports)
                # Devices have ended, so the counts are whole.
                counted = {line: forwarder.count(line) for line in lines}
            return self._conclude(client, task, devices, counted)

    def _start_service(self) -> str:
        from aggregator_service.app.create_api_key import CreateApiKey
        from aggregator_service.clock import utc_now
        from aggregator_service.store.schema import upgrade

        url = self._service.database_url
        with database.database_errors(url):
            upgrade(url)
        with database.opened_store(url) as store:
            make = CreateApiKey(store=store, now=utc_now)
            _, key = make("demo", timedelta(days=1), made_by=None)
        self._service.start()
        self._say(f"web page and admin API: {self._service.admin_address}")
        self._say(f"API key (valid for a day): {key}")
        return key

    def _create_task(self, key: str, name: str, settings: DemoSettings) -> Record:
        self._say(f"making the task {name}: {settings.model} with LoRA r = {settings.rank}")
        output = self._run_child(
            [
                *("-m", "flasc_cli", "task", "create", name, "--json"),
                *settings.task_options(),
            ],
            log=f"task-create-{name}.log",
            environment={"FLASC_API": self._service.admin_address, "FLASC_API_KEY": key},
        )
        task: Record = json.loads(output)
        self._say(f"task {name}: {task['dimension']:,} trainable values")
        return task

    def _run_devices(
        self, client: AdminApi, devices: list[Record], ports: Mapping[str, int]
    ) -> None:
        fleet = Fleet(self._children, self._folder)
        fleet.start(
            [
                DeviceSettings(
                    index=index,
                    addresses={
                        task: f"127.0.0.1:{ports[_line(task, index)]}" for task in self._summaries
                    },
                    credential=enrolled["credential"],
                    state_folder=str(self._folder / "devices" / str(index)),
                    demo=self._settings,
                )
                for index, enrolled in enumerate(devices)
            ]
        )
        self._say(f"{len(devices)} device processes are loading the model")
        rounds = [RoundsSeen(client, task) for task in self._summaries]
        display = open_display(
            self._console,
            devices=self._settings.devices,
            rounds=self._settings.rounds,
            tasks=len(self._summaries),
        )
        with display:
            while any(len(told) < len(devices) for told in self._summaries.values()):
                event = fleet.next_event(_LOOK_SECONDS)
                if event is not None:
                    self._take(event, display)
                fleet.check_alive()
                self._service.check_alive()
                for seen in rounds:
                    for shown in seen.newly_ended():
                        display.round_ended(seen.task, shown)

    def _take(self, event: DeviceEvent, display: Display) -> None:
        display.device(event)
        if event.kind == "Summary":
            if not event.fields["finished"]:
                raise CliError(f"device {event.index} was stopped before its task came to an end")
            self._summaries[event.task][event.index] = event.fields
        # One update is in, the others are on their way: the middle of the round.
        if event.kind == "Uploaded" and self._kill_in_round == event.fields["round_number"]:
            self._kill_in_round = None
            display.say(f"kill -9 of the service in round {event.fields['round_number']}")
            self._service.kill()
            self._service.start()
            display.say("the service is back on the same database")

    def _conclude(
        self,
        client: AdminApi,
        task: Record,
        devices: Sequence[Record],
        counted: Mapping[str, SocketBytes],
    ) -> Report:
        rounds = self._ended_rounds(client, SPARSE_TASK)
        adapter = self._folder / "adapter"
        sha256 = export_adapter(client, SPARSE_TASK, adapter)
        self._check_export(adapter, task, rounds[-1]["evaluation"])
        dense = None
        if DENSE_TASK in self._summaries:
            sockets = [counted[_line(DENSE_TASK, index)] for index in range(len(devices))]
            dense = make_dense_run(self._ended_rounds(client, DENSE_TASK), sockets)
        summaries = self._summaries[SPARSE_TASK]
        return make_report(
            self._settings,
            task=task,
            rounds=rounds,
            devices=[
                DeviceBytes.of(
                    enrolled["device"]["id"], counted[_line(SPARSE_TASK, index)], summaries[index]
                )
                for index, enrolled in enumerate(devices)
            ],
            adapter_sha256=sha256,
            dense=dense,
        )

    def _ended_rounds(self, client: AdminApi, task: str) -> list[Record]:
        state = client.get(f"/v1/tasks/{task}")["state"]
        if state != "COMPLETED":
            raise CliError(f"{task} is {state}, not COMPLETED; see {self._folder / 'logs'}")
        return sorted(client.list_all(f"/v1/tasks/{task}/rounds"), key=number_of)

    def _check_export(self, adapter: Path, task: Record, published: Record) -> None:
        """Load the exported folder with PEFT in a fresh process, and compare what it scores."""
        self._say(f"exported the masked adapter to {adapter}; scoring it in a fresh process")
        output = self._run_child(
            [
                *("-m", "flasc_cli.demo.check_export", str(adapter)),
                json.dumps(asdict(self._settings)),
                task["config"]["base_model"]["sha256"],
            ],
            log="check-export.log",
            environment={},
        )
        scored = json.loads(output)
        loss = scored["loss_sum"] / scored["total"]
        ours = f"{scored['correct']} of {scored['total']}"
        theirs = f"{published['correct']} of {published['total']}"
        # Devices' losses are summed in the order in which they report, so the last digits may vary.
        if ours != theirs or not isclose(loss, published["loss"], rel_tol=1e-9):
            raise CliError(
                f"the exported adapter gets {ours} right at a loss of {loss!r}, but {theirs} at "
                f"{published['loss']!r} was published",
                ExitCode.CHECK_FAILED,
            )
        accuracy = f"{scored['correct'] / scored['total']:.1%}"
        self._say(
            f"PeftModel.from_pretrained gets {ours} right: its accuracy of {accuracy} is equal to "
            "the last published one"
        )

    def _run_child(self, arguments: list[str], *, log: str, environment: Mapping[str, str]) -> str:
        path = self._folder / "logs" / log
        process = self._children.start(arguments, log=path, environment=environment, piped=True)
        output, _ = process.communicate()
        if process.returncode:
            raise CliError(f"{log.removesuffix('.log')} has failed:\n{log_tail(path)}")
        return output

    def _say(self, line: str) -> None:
        self._console.out(line, highlight=False)


def _line(task: str, device: int) -> str:
    """Name the forwarder's port for one task of one device."""
    return f"{task} {device}"


def _fresh_folder(folder: Path) -> Path:
    """Empty the folder if a demo made it. Raises CliError for anybody else's."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / _MARK).is_file():
            raise CliError(
                f"{folder} is not empty and no demo's; give another one with --data-folder",
                ExitCode.USAGE,
            )
        shutil.rmtree(folder)
    (folder / "logs").mkdir(parents=True)
    (folder / _MARK).touch()
    return folder


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP unwind the run.

    SIGINT too even where a shell that started this in the background has it ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        exit_code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        name = signal.Signals(number).name
        raise CliError(f"ended by {name}, and every process it had started with it", exit_code)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    held = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
