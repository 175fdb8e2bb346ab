"""What a demo shows while it runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from flasc_cli.api import Record
from flasc_cli.demo.fleet import DeviceEvent

__all__ = ["Display", "describe_round", "open_display"]

# The device's state after each of its events, where that changes what a person would see.
_STATES: Final = {
    "CheckedIn": "downloading",
    "Downloaded": "evaluating",
    "Evaluated": "training",
    "Trained": "uploading",
    "Uploaded": "done",
    "Waiting": "waiting",
    "Retrying": "trying again",
    "UploadResumed": "uploading",
    "Refused": "refused",
    "Failed": "failed",
    "Finished": "finished",
}


class Display(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def say(self, line: str) -> None: ...

    def device(self, event: DeviceEvent) -> None: ...

    def round_ended(self, task: str, shown: Record) -> None: ...


def open_display(console: Console, *, devices: int, rounds: int, tasks: int) -> Display:
    """`rounds` are of each task."""
    if console.is_terminal:
        return _Bars(console, devices=devices, rounds=rounds, tasks=tasks)
    return _Lines(console, devices=devices, rounds=rounds)


def describe_round(shown: Record, rounds: int) -> str:
    accuracy = (shown["evaluation"] or {}).get("accuracy")
    scored = "" if accuracy is None else f"started from accuracy {accuracy:.1%}, "
    traffic = f"{shown['bytes']['down'] / 1e6:.1f} MB down, {shown['bytes']['up'] / 1e6:.1f} MB up"
    if shown["kind"] == "EVALUATION":
        return f"last evaluation: accuracy {accuracy:.1%}" if accuracy is not None else ""
    loss = shown["training"]["loss_mean"]
    trained = "" if loss is None else f"training loss {loss:.3f}, "
    seconds = (shown["collecting_seconds"] or 0) + (shown["publishing_seconds"] or 0)
    state = "" if shown["state"] == "PUBLISHED" else f" {shown['state']}:"
    return f"round {shown['number']}/{rounds}:{state} {scored}{trained}{traffic}, {seconds:.1f} s"


class _Lines:
    def __init__(self, console: Console, *, devices: int, rounds: int) -> None:
        self._console = console
        self._devices = devices
        self._rounds = rounds
        self._seen: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def say(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def device(self, event: DeviceEvent) -> None:
        if event.kind == "CheckedIn" and event.index not in self._seen:
            self._seen.add(event.index)
            if len(self._seen) == self._devices:
                self.say(f"all {self._devices} devices have checked in")

    def round_ended(self, task: str, shown: Record) -> None:
        self.say(f"{task}: {describe_round(shown, self._rounds)}")


class _Bars:
    def __init__(self, console: Console, *, devices: int, rounds: int, tasks: int) -> None:
        self._rounds = rounds
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._devices: list[TaskID] = [
            self._progress.add_task(f"device {index}", total=None, state="loading its model")
            for index in range(devices)
        ]
        self._whole = self._progress.add_task("rounds", total=rounds * tasks, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.out(line, highlight=False)

    def device(self, event: DeviceEvent) -> None:
        bar = self._devices[event.index]
        if event.kind == "TrainingProgressed":
            step, total = event.fields["step"], event.fields["total"]
            self._progress.update(bar, completed=step, total=total)
        elif event.kind in _STATES:
            number = event.fields.get("round_number")
            where = f"{event.task}: " if number is None else f"{event.task}, round {number}: "
            self._progress.update(bar, state=where + _STATES[event.kind])
            if event.kind == "CheckedIn":
                self._progress.update(bar, completed=0)

    def round_ended(self, task: str, shown: Record) -> None:
        self.say(f"{task}: {describe_round(shown, self._rounds)}")
        if shown["state"] == "PUBLISHED":
            self._progress.advance(self._whole)
