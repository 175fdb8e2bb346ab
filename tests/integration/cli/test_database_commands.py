"""Commands on the database itself, and the service as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.main import app

ROOT = Path(__file__).parents[3]


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

    def serve(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flasc_cli", "serve", "--insecure-dev", "--json", *options],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


def end(process: subprocess.Popen[str], number: int) -> int:
    process.send_signal(number)
    with process:
        return process.wait(timeout=60)


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
        with pytest.raises(CliError, match="--database-url") as refused:
            machine.ask("migrate", "current", "--database-url", url)
        assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_in_one_process_answers_and_ends_in_order(
    machine: Machine, number: int
) -> None:
    machine.ask("migrate")
    key = machine.ask("keys", "create", "ci")["secret"]
    process = machine.serve("--grpc-port", "0", "--http-port", "0")
    addresses = ready(process)
    assert addresses.keys() == {"event", "devices", "admin"}
    assert httpx.get(f"{addresses['admin']}/readyz", timeout=60).status_code == 200
    enrolled = httpx.post(
        f"{addresses['admin']}/v1/devices",
        json={"name": "phone"},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    # Devices are told the port that was taken, not the 0 that was asked for.
    assert enrolled.json()["grpc_address"] == addresses["devices"]
    assert end(process, number) == 0


def test_enrolled_devices_are_told_the_public_address_where_there_is_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.ask("migrate")
    key = machine.ask("keys", "create", "ci")["secret"]
    monkeypatch.setenv("FLASC_PUBLIC_GRPC_ADDRESS", "flasc.example:443")
    process = machine.serve("--role", "admin", "--http-port", "0")
    enrolled = httpx.post(
        f"{ready(process)['admin']}/v1/devices",
        json={"name": "phone"},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert enrolled.json()["grpc_address"] == "flasc.example:443"
    assert end(process, signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("role", "listens"), [("aggregator", {"devices"}), ("admin", {"admin"}), ("driver", set())]
)
def test_each_role_also_runs_alone(machine: Machine, role: str, listens: set[str]) -> None:
    machine.ask("migrate")
    process = machine.serve("--role", role, "--grpc-port", "0", "--http-port", "0")
    assert ready(process).keys() == {"event", *listens}
    assert end(process, signal.SIGTERM) == 0


@pytest.mark.parametrize("role", ["aggregator", "driver"])
def test_a_role_without_an_api_shows_its_metrics_on_a_port_of_their_own(
    machine: Machine, role: str
) -> None:
    machine.ask("migrate")
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    process = machine.serve("--role", role, *ports)
    metrics = httpx.get(ready(process)["metrics"], timeout=60).text
    assert "flasc_transaction_seconds" in metrics
    assert end(process, signal.SIGTERM) == 0


def test_a_taken_port_is_told_as_such(machine: Machine) -> None:
    machine.ask("migrate")
    first = machine.serve("--grpc-port", "0", "--http-port", "0")
    port = ready(first)["admin"].rpartition(":")[2]
    second = machine.serve("--grpc-port", "0", "--http-port", port)
    with second:
        assert second.wait(timeout=60) == ExitCode.FAILED
    assert end(first, signal.SIGTERM) == 0
