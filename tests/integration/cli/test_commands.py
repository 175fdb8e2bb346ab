"""Operators' commands over HTTP: what they change, what they print, what they refuse."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import Result

from admin_api.services import MAX_PAGE
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.tasks import TaskState, Tier
from flasc_cli.api import AdminApi
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.watching import states
from flasc_core.layout import Role
from flasc_core.methods import Flasc
from tests.builders import (
    a_device,
    a_privacy,
    an_assignment,
    an_update,
    some_counts,
    stored,
)
from tests.integration.cli.conftest import Terminal


def refusal(terminal: Terminal, *words: str) -> CliError:
    error = terminal.run(*words).exception
    assert isinstance(error, CliError)
    return error


def tier_line(printed: Result, tier: str) -> dict[str, str]:
    """A tier's row of a printed table, by the table's header."""
    lines = [line.split("\t") for line in printed.stdout.splitlines()]
    (header,) = [line for line in lines if line[0] == "tier"]
    (row,) = [line for line in lines if line[0] == tier]
    return dict(zip(header, row, strict=True))


def test_a_device_is_enrolled_listed_and_revoked(terminal: Terminal) -> None:
    enrolled = terminal.ask("device", "enroll", "phone")
    assert enrolled["credential"].startswith("fld_")
    (listed,) = terminal.ask("device", "list")
    assert listed["revoked_at"] is None
    revoked = terminal.ask("device", "revoke", listed["id"])
    assert revoked["revoked_at"] is not None
    assert terminal.ask("device", "revoke", listed["id"]) == revoked


def test_a_device_s_tier_is_said_at_enrolment_or_later(terminal: Terminal) -> None:
    terminal.ask("device", "enroll", "mine", "--tier", "phone")
    (listed,) = terminal.ask("device", "list")
    assert listed["tier"] == "phone"
    assert terminal.ask("device", "tier", listed["id"], "laptop")["tier"] == "laptop"
    (listed,) = terminal.ask("device", "list")
    assert listed["tier"] == "laptop"


def test_tiers_are_shown_with_what_their_masks_hold(terminal: Terminal) -> None:
    tiers = (Tier(name="phone", method=Flasc(download_density=0.5, upload_density=0.5)),)
    task = terminal.make_task(tiers=tiers)
    assert "tier phone" in terminal.run("task", "show", "a-task").stdout
    current = terminal.store.read("test", lambda tx: tx.rounds.latest(task.id))
    assert current is not None
    device = a_device(tier="phone")
    part = an_assignment(
        current,
        device,
        state=AssignmentState.ACCEPTED,
        tier="phone",
        values_by_role={Role.LORA_B: 3, Role.HEAD: 1},
        evaluation=some_counts(correct=6, total=8),
    )
    stored(terminal.store, device, part, an_update(part))
    for words in (("round", "show", "a-task", "1"), ("task", "show", "a-task")):
        shown = tier_line(terminal.run(*words), "phone")
        assert (shown["assigned"], shown["accepted"]) == ("1", "1")
        assert shown["A / B / head up"] == "0 % / 75 % / 25 %"
        assert shown["accuracy"] == "0.75"
    assert shown["of version"] == "0"
    in_round = tier_line(terminal.run("round", "show", "a-task", "1"), "phone")
    assert in_round["A / B / head down"].count("%") == 3
    (listed,) = terminal.ask("round", "show", "a-task", "1")["assignments"]
    assert listed["tier"] == "phone"


def test_a_name_that_is_taken_is_refused_in_the_services_words(terminal: Terminal) -> None:
    terminal.ask("device", "enroll", "phone")
    assert "name" in refusal(terminal, "device", "enroll", "phone").message
    assert len(terminal.ask("device", "list")) == 1


def test_lists_go_through_all_pages(terminal: Terminal) -> None:
    names = {f"device {index}" for index in range(2 * MAX_PAGE + 1)}
    stored(terminal.store, *(a_device(name=name) for name in names))
    assert {device["name"] for device in terminal.ask("device", "list")} == names


def test_a_wrong_key_is_refused_with_its_own_exit_code(terminal: Terminal) -> None:
    error = refusal(terminal, "task", "list", "--api-key", "flk_wrong")
    assert error.exit_code is ExitCode.NOT_ALLOWED


def test_a_proxy_for_the_world_is_not_asked_for_this_machine(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Port 9 is nobody's on loopback, so that a call by way of this proxy would fail.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert terminal.ask("task", "list") == []


def test_a_task_is_shown_paused_resumed_and_cancelled(terminal: Terminal) -> None:
    task = terminal.make_task()
    assert [row["name"] for row in terminal.ask("task", "list")] == ["a-task"]
    for step, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELLED")):
        assert terminal.ask("task", step, "a-task")["state"] == state
        assert terminal.ask("task", "show", str(task.id))["state"] == state
    assert terminal.ask("task", "show", "a-task")["bytes"]["down"] == 0
    assert "bytes wasted up" in terminal.run("task", "show", "a-task").stdout
    error = refusal(terminal, "task", "resume", "a-task")
    assert error.exit_code is ExitCode.FAILED


def test_a_private_task_shows_its_budget_and_what_is_spent_of_it(terminal: Terminal) -> None:
    terminal.make_task("secret", privacy=a_privacy())
    terminal.make_task("plain")
    lines = terminal.run("task", "show", "secret").stdout
    for name in ("privacy epsilon budget", "privacy epsilon spent", "privacy max participations"):
        assert name in lines
    assert terminal.ask("task", "show", "secret")["privacy"]["epsilon_budget"] == 20.0
    assert "privacy" not in terminal.run("task", "show", "plain").stdout


def test_an_unknown_task_is_refused_by_every_command_about_one(terminal: Terminal) -> None:
    for words in (("task", "show"), ("round", "list"), ("adapter", "list"), ("round", "watch")):
        assert refusal(terminal, *words, "nowhere").exit_code is ExitCode.FAILED


def test_rounds_are_listed_and_shown_by_their_number(terminal: Terminal) -> None:
    terminal.make_task()
    (listed,) = terminal.ask("round", "list", "a-task")
    shown = terminal.ask("round", "show", "a-task", "1")
    assert shown == {**listed, "assignments": []}
    lines = terminal.run("round", "show", "a-task", "1").stdout
    for name in ("bytes wasted down", "dense bfloat16", "saving against float32"):
        assert name in lines
    assert "no round 2" in refusal(terminal, "round", "show", "a-task", "2").message


def test_a_device_s_update_is_taken_out_of_a_round(terminal: Terminal) -> None:
    task = terminal.make_task()
    current = terminal.store.read("test", lambda tx: tx.rounds.latest(task.id))
    assert current is not None
    device = a_device()
    part = an_assignment(current, device, state=AssignmentState.ACCEPTED)
    stored(terminal.store, device, part, an_update(part))
    terminal.store.run("seat", lambda tx: tx.rounds.take_seat(current.id, 1))
    words = ("round", "retract", "a-task", "1", str(device.id), "--reason", "consent withdrawn")

    done = terminal.run(*words)

    assert done.exit_code == 0
    assert "out of round 1" in done.stdout
    (shown,) = terminal.ask("round", "show", "a-task", "1")["assignments"]
    assert (shown["state"], shown["detail"]) == ("RETRACTED", "consent withdrawn")
    assert terminal.ask(*words)["devices"]["by_state"]["RETRACTED"] == 1
    nobody = refusal(terminal, *words[:4], str(task.id), *words[5:])
    assert "no update" in nobody.message


def test_a_round_is_aborted_once_and_stays_so(terminal: Terminal) -> None:
    terminal.make_task()
    done = terminal.run("round", "abort", "a-task", "1")
    assert done.exit_code == 0
    assert "round 1 is ABORTED" in done.stdout
    assert terminal.ask("round", "abort", "a-task", "1")["abort_reason"] == "OPERATOR"
    assert "no round 7" in refusal(terminal, "round", "abort", "a-task", "7").message


def test_a_retraction_needs_a_reason(terminal: Terminal) -> None:
    done = terminal.run("round", "retract", "a-task", "1", "00000000-0000-0000-0000-000000000001")
    assert done.exit_code == ExitCode.USAGE


def test_text_has_the_same_rows_as_json(terminal: Terminal) -> None:
    terminal.make_task("first")
    terminal.make_task("second")
    lines = terminal.run("task", "list").stdout.splitlines()
    assert lines[0].split("\t")[0] == "name"
    assert [line.split("\t")[0] for line in lines[1:]] == [
        row["name"] for row in terminal.ask("task", "list")
    ]
    for words in (
        ("task", "show", "first"),
        ("round", "list", "first"),
        ("adapter", "list", "first"),
    ):
        assert terminal.run(*words).exit_code == 0


def test_an_adapter_is_exported_as_a_folder_and_as_a_file(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.make_task()
    folder, file = tmp_path / "folder", tmp_path / "new" / "adapter.safetensors"
    as_folder = terminal.ask("adapter", "export", "a-task", str(folder))
    as_file = terminal.ask("adapter", "export", "a-task", str(file), "--format", "safetensors")
    assert as_folder["adapter_sha256"] == as_file["adapter_sha256"]
    assert sha256(file.read_bytes()).hexdigest() == as_file["adapter_sha256"]
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_master_weights_have_what_the_mask_leaves_out(terminal: Terminal, tmp_path: Path) -> None:
    terminal.make_task()
    kept = {}
    for weights in ("masked", "master"):
        path = tmp_path / weights
        words = ("--weights", weights, "--format", "safetensors", "--version", "0")
        terminal.ask("adapter", "export", "a-task", str(path), *words)
        kept[weights] = sum(int((tensor != 0).sum()) for tensor in load_file(path).values())
    assert kept["masked"] < kept["master"]


def test_a_folder_that_is_not_empty_is_not_written_to(terminal: Terminal, tmp_path: Path) -> None:
    terminal.make_task()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").touch()
    error = refusal(terminal, "adapter", "export", "a-task", str(folder))
    assert error.exit_code is ExitCode.USAGE
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_watching_shows_the_task_now_and_after_each_change_until_it_ends(
    terminal: Terminal,
) -> None:
    task = terminal.make_task()
    steer = SteerTask(store=terminal.store, now=utc_now)
    with AdminApi(terminal.address, terminal.environment["FLASC_API_KEY"]) as client:
        seen = []
        for shown in states(client, "a-task"):
            state = shown["task"]["state"]
            seen.append(state)
            if len(seen) == 1:
                steer(task.id, TaskState.PAUSED)
            elif state == "PAUSED":
                steer(task.id, TaskState.CANCELLED)
    assert seen[0] == "RUNNING"
    assert "PAUSED" in seen
    assert seen[-1] == "CANCELLED"


def test_watching_a_task_that_has_ended_shows_it_once(terminal: Terminal) -> None:
    task = terminal.make_task()
    SteerTask(store=terminal.store, now=utc_now)(task.id, TaskState.CANCELLED)
    shown = terminal.ask("round", "watch", "a-task")
    assert shown["task"]["state"] == "CANCELLED"
    assert shown["rounds"][0]["state"] == "ABORTED"
