"""Commands on the database itself, and the service as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from aggregator_service.store.base import NotDurable
from flasc_cli.database import database_errors
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.main import app
from tests.support.child import child
from tests.support.patience import PATIENCE_SECONDS


class Machine:
    """One service machine: its settings are in the environment."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            "FLASC_DATABASE_URL": f"sqlite:///{folder / 'data' / 'flasc.db'}",
            "FLASC_BLOBS": str(folder / "blobs"),
            "FLASC_DRAIN_SECONDS": "2",
        }

    def ask(self, *words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"], env=self.environment)
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    def serve(self, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
        return child(
            [sys.executable, "-m", "flasc_cli", "serve", "--insecure-dev", "--json", *options],
            env={**os.environ, **self.environment},
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


def address_for_devices(admin: str, key: str) -> str:
    """What a device is told as it is enrolled."""
    enrolled = httpx.post(
        f"{admin}/v1/devices",
        json={"name": "phone"},
        headers={"Authorization": f"Bearer {key}"},
        timeout=PATIENCE_SECONDS,
    )
    address: str = enrolled.json()["grpc_address"]
    return address


def end(process: subprocess.Popen[str], number: int) -> int:
    process.send_signal(number)
    return process.wait(timeout=PATIENCE_SECONDS)


def test_migrating_creates_the_folder_and_goes_up_down_and_up_again(machine: Machine) -> None:
    before = machine.ask("migrate", "current")
    assert before["current"] is None
    up = machine.ask("migrate")
    assert up == {"current": before["needed"], "needed": before["needed"]}
    assert machine.ask("migrate", "up") == up
    assert machine.ask("migrate", "down", "base") == before
    assert machine.ask("migrate", "up") == up


def test_a_database_that_is_named_before_the_command_is_not_passed_over(
    machine: Machine, tmp_path: Path
) -> None:
    before = machine.ask("migrate")
    scratch = f"sqlite:///{tmp_path / 'scratch.db'}"
    words = ["migrate", "--database-url", scratch, "down", "base"]
    error = CliRunner().invoke(app, words, env=machine.environment).exception
    assert isinstance(error, CliError)
    assert error.exit_code is ExitCode.USAGE
    assert machine.ask("migrate", "current") == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_nobody_else_can_read_the_database(machine: Machine, tmp_path: Path) -> None:
    machine.ask("migrate")
    made = list((tmp_path / "data").iterdir())
    assert made
    for path in (tmp_path / "data", *made):
        assert path.stat().st_mode & 0o077 == 0


def test_a_revision_that_is_none_is_a_wrong_option(machine: Machine) -> None:
    error = CliRunner().invoke(app, ["migrate", "up", "nonsense"], env=machine.environment)
    assert isinstance(error.exception, CliError)
    assert error.exception.exit_code is ExitCode.USAGE


def test_a_database_that_may_forget_is_told_without_a_traceback() -> None:
    with pytest.raises(CliError, match="no write-ahead log"), database_errors("sqlite:///x"):
        raise NotDurable("there is no write-ahead log here")


def test_settings_that_make_no_sense_are_told(machine: Machine) -> None:
    wrong = {"FLASC_GRPC_PORT": "abc", "FLASC_DATABASE_URL": ""}
    words = ["migrate", "current"]
    environment = {k: v for k, v in machine.environment.items() if k != "FLASC_DATABASE_URL"}
    error = CliRunner().invoke(app, words, env={**environment, **wrong}).exception
    assert isinstance(error, CliError)
    assert "grpc_port" in error.message


def test_a_key_is_shown_once_listed_and_revoked(machine: Machine) -> None:
    machine.ask("migrate")
    created = machine.ask("keys", "create", "ci", "--days", "1")
    secret = created.pop("secret")
    assert secret.startswith("flk_")
    assert machine.ask("keys", "list") == [created]
    revoked = machine.ask("keys", "revoke", created["id"])
    assert revoked["revoked_at"] is not None
    assert secret not in json.dumps(machine.ask("keys", "list"))


def test_keys_need_a_database_with_its_schema(machine: Machine) -> None:
    with pytest.raises(CliError, match="flasc migrate") as refused:
        machine.ask("keys", "list")
    assert refused.value.exit_code is ExitCode.UNREACHABLE


def test_a_url_of_no_known_database_is_a_usage_error(machine: Machine) -> None:
    for url in ("mysql://x/y", "nonsense"):
        with pytest.raises(CliError, match="sqlite") as refused:
            machine.ask("migrate", "current", "--database-url", url)
        assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_in_one_process_answers_and_ends_in_order(
    machine: Machine, number: int
) -> None:
    machine.ask("migrate")
    key = machine.ask("keys", "create", "ci")["secret"]
    with machine.serve("--grpc-port", "0", "--http-port", "0") as process:
        addresses = ready(process)
        assert addresses.keys() == {"event", "devices", "admin"}
        answer = httpx.get(f"{addresses['admin']}/readyz", timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
        # Devices are told the port that was taken, not the 0 that was asked for.
        assert address_for_devices(addresses["admin"], key) == addresses["devices"]
        assert end(process, number) == 0


def test_enrolled_devices_are_told_the_public_address_where_there_is_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.ask("migrate")
    key = machine.ask("keys", "create", "ci")["secret"]
    monkeypatch.setenv("FLASC_PUBLIC_GRPC_ADDRESS", "flasc.example:443")
    with machine.serve("--role", "admin", "--http-port", "0") as process:
        assert address_for_devices(ready(process)["admin"], key) == "flasc.example:443"
        assert end(process, signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("role", "listens"), [("aggregator", {"devices"}), ("admin", {"admin"}), ("driver", set())]
)
def test_each_role_also_runs_alone(machine: Machine, role: str, listens: set[str]) -> None:
    machine.ask("migrate")
    with machine.serve("--role", role, "--grpc-port", "0", "--http-port", "0") as process:
        assert ready(process).keys() == {"event", *listens}
        assert end(process, signal.SIGTERM) == 0


@pytest.mark.parametrize("role", ["aggregator", "driver"])
def test_a_role_without_an_api_shows_its_metrics_on_a_port_of_their_own(
    machine: Machine, role: str
) -> None:
    machine.ask("migrate")
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    with machine.serve("--role", role, *ports) as process:
        metrics = httpx.get(ready(process)["metrics"], timeout=PATIENCE_SECONDS).text
        assert "flasc_transaction_seconds" in metrics
        assert end(process, signal.SIGTERM) == 0


def test_a_taken_port_is_told_as_such(machine: Machine) -> None:
    machine.ask("migrate")
    with machine.serve("--grpc-port", "0", "--http-port", "0") as first:
        port = ready(first)["admin"].rpartition(":")[2]
        with machine.serve("--grpc-port", "0", "--http-port", port) as second:
            assert second.wait(timeout=PATIENCE_SECONDS) == ExitCode.FAILED
        assert end(first, signal.SIGTERM) == 0
