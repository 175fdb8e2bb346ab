"""Runs the demo: the service, a counting forwarder, device processes, and a check of the result.

    serve ─▶ task create ─▶ enrol ─▶ forwarder ─▶ devices ═▶ export ─▶ check in a fresh process

Whatever ends the run early ends every process that it started.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
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
from flasc_cli.demo.forwarder import CountingForwarder
from flasc_cli.demo.processes import Children, log_tail
from flasc_cli.demo.progress import Display, open_display
from flasc_cli.demo.report import DeviceBytes, Report, make_report
from flasc_cli.demo.service import ServiceProcess
from flasc_cli.demo.settings import TASK_NAME, DemoSettings, DeviceSettings
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.exporting import export_adapter

__all__ = ["run_demo"]

# Says that a folder is a demo's own, which the next demo may replace.
_MARK: Final = ".flasc-demo"
_FINAL_STATES: Final = frozenset({"PUBLISHED", "EVALUATED", "ABORTED"})
_LOOK_SECONDS: Final = 0.5


def run_demo(
    settings: DemoSettings,
    *,
    data_folder: Path,
    summary: Path,
    kill_server_in_round: int | None,
    as_json: bool,
) -> None:
    """Raises CliError: FAILED where something breaks, CHECK_FAILED where accuracies differ."""
    # With --json, stdout is for the summary alone.
    console = Console(stderr=as_json)
    folder = _fresh_folder(data_folder.resolve())
    with _interruptible(), Children() as children:
        report = _Demo(settings, folder, children, console, kill_server_in_round).run()
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
        self._summaries: dict[int, Mapping[str, Any]] = {}

    def run(self) -> Report:
        key = self._start_service()
        task = self._create_task(key)
        # What "auto" came to is what devices must load.
        self._settings = replace(
            self._settings, dtype=task["config"]["base_model"]["name"].rpartition("@")[2]
        )
        with AdminApi(self._service.admin_address, key) as client:
            devices = [
                client.post("/v1/devices", {"name": f"maintainer group {index}"})
                for index in range(self._settings.devices)
            ]
            ids = [enrolled["device"]["id"] for enrolled in devices]
            host, _, port = self._service.devices_address.rpartition(":")
            with CountingForwarder((host, int(port)), ids) as forwarder:
                self._run_devices(client, devices, forwarder)
                # Devices have ended, so the counts are whole.
                counted = [
                    DeviceBytes.of(device_id, forwarder.count(device_id), self._summaries[index])
                    for index, device_id in enumerate(ids)
                ]
            return self._conclude(client, task, counted)

    def _start_service(self) -> str:
        from aggregator_service.app.api_keys import CreateApiKey
        from aggregator_service.store.schema import upgrade

        url = self._service.database_url
        with database.database_errors(url):
            upgrade(url)
        with database.opened_store(url) as store:
            make = CreateApiKey(store=store, now=database.utc_now)
            _, key = make("demo", timedelta(days=1))
        self._service.start()
        self._say(f"web page and admin API: {self._service.admin_address}")
        self._say(f"API key (valid for a day): {key}")
        return key

    def _create_task(self, key: str) -> Record:
        self._say(f"making the task: {self._settings.model} with LoRA r = {self._settings.rank}")
        output = self._run_child(
            [
                *("-m", "flasc_cli", "task", "create", TASK_NAME, "--json"),
                *self._settings.task_options(),
            ],
            log="task-create.log",
            environment={"FLASC_API": self._service.admin_address, "FLASC_API_KEY": key},
        )
        task: Record = json.loads(output)
        self._say(f"task {TASK_NAME}: {task['dimension']:,} trainable values")
        return task

    def _run_devices(
        self, client: AdminApi, devices: list[Record], forwarder: CountingForwarder
    ) -> None:
        fleet = Fleet(self._children, self._folder)
        fleet.start(
            [
                DeviceSettings(
                    index=index,
                    address=f"127.0.0.1:{forwarder.ports[enrolled['device']['id']]}",
                    credential=enrolled["credential"],
                    state_folder=str(self._folder / "devices" / str(index)),
                    demo=self._settings,
                )
                for index, enrolled in enumerate(devices)
            ]
        )
        self._say(f"{len(devices)} device processes are loading the model")
        rounds = _RoundsSeen(client)
        display = open_display(
            self._console, devices=self._settings.devices, rounds=self._settings.rounds
        )
        with display:
            while len(self._summaries) < len(devices):
                event = fleet.next_event(_LOOK_SECONDS)
                if event is not None:
                    self._take(event, display)
                fleet.check_alive()
                self._service.check_alive()
                for shown in rounds.newly_ended():
                    display.round_ended(shown)

    def _take(self, event: DeviceEvent, display: Display) -> None:
        display.device(event)
        if event.kind == "Summary":
            self._summaries[event.index] = event.fields
        # One update is in, the others are on their way: the middle of the round.
        if event.kind == "Uploaded" and event.fields["round_number"] == self._kill_in_round:
            self._kill_in_round = None
            display.say(f"kill -9 of the service in round {event.fields['round_number']}")
            self._service.kill()
            self._service.start()
            display.say("the service is back on the same database")

    def _conclude(self, client: AdminApi, task: Record, devices: list[DeviceBytes]) -> Report:
        rounds = sorted(client.list_all(f"/v1/tasks/{TASK_NAME}/rounds"), key=_number)
        state = client.get(f"/v1/tasks/{TASK_NAME}")["state"]
        if state != "COMPLETED":
            raise CliError(f"the task is {state}, not COMPLETED; see {self._folder / 'logs'}")
        adapter = self._folder / "adapter"
        sha256 = export_adapter(client, TASK_NAME, adapter)
        self._check_export(adapter, task, rounds[-1]["evaluation"])
        return make_report(
            self._settings, task=task, rounds=rounds, devices=devices, adapter_sha256=sha256
        )

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


class _RoundsSeen:
    """Asks the admin API, at most twice a second, which rounds have ended since."""

    def __init__(self, client: AdminApi) -> None:
        self._client = client
        self._last_ended = 0
        self._asked_at = 0.0

    def newly_ended(self) -> Iterator[Record]:
        now = time.monotonic()
        if now - self._asked_at < _LOOK_SECONDS:
            return
        self._asked_at = now
        rounds = self._client.get(f"/v1/tasks/{TASK_NAME}/rounds", limit=5)["items"]
        for shown in sorted(rounds, key=_number):
            if shown["number"] > self._last_ended and shown["state"] in _FINAL_STATES:
                self._last_ended = shown["number"]
                yield shown


def _number(shown: Record) -> int:
    number: int = shown["number"]
    return number


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
