"""What holds for every command: help, exit codes, errors in words or JSON, no torch by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flasc_cli.errors import ExitCode
from flasc_cli.main import app
from tests.support.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]


def flasc(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run as operators do, in a process of its own, with no settings but those given."""
    return subprocess.run(
        [sys.executable, "-m", "flasc_cli", *words],
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def all_commands(command: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command that does something, by the words that call it."""
    found = {}
    for name, sub in getattr(command, "commands", {}).items():
        found.update(all_commands(sub, (*words, name)))
    return found or {words: command}


COMMANDS = all_commands(get_command(app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_speaks_json_and_says_what_it_is_for(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert "--json" in {option for p in command.params for option in p.opts}
    assert command.help
    unexplained = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not unexplained


def test_help_and_every_commands_module_load_neither_torch_nor_a_server() -> None:
    program = (
        "import sys, flasc_cli.main; heavy = {'torch', 'transformers', 'peft', 'sqlalchemy', "
        "'fastapi', 'grpc', 'httpx', 'numpy'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_service_loads_no_torch() -> None:
    program = (
        "import sys, flasc_cli.serving, flasc_cli.database, admin_api.server; "
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_wrong_option_is_a_usage_error() -> None:
    done = flasc("task", "list", "--no-such-option")
    assert done.returncode == ExitCode.USAGE


def test_without_a_key_a_command_says_how_to_get_one() -> None:
    done = flasc("task", "list")
    assert done.returncode == ExitCode.NOT_ALLOWED
    assert "flasc keys create" in done.stderr
    assert done.stdout == ""


def test_without_a_service_a_command_says_where_it_looked() -> None:
    # Port 9 is nobody's on loopback.
    done = flasc("task", "list", "--json", FLASC_API="http://127.0.0.1:9", FLASC_API_KEY="flk_x")
    assert done.returncode == ExitCode.UNREACHABLE
    error = json.loads(done.stderr)
    assert error["exit_code"] == ExitCode.UNREACHABLE
    assert "http://127.0.0.1:9" in error["error"]
    assert "flasc serve" in error["error"]


def test_a_database_that_is_away_leaves_stdout_to_results() -> None:
    url = "postgresql://127.0.0.1:9/flasc"
    done = flasc("keys", "list", "--json", "--database-url", url)
    assert done.returncode == ExitCode.UNREACHABLE
    assert done.stdout == ""
    *warnings, error = done.stderr.splitlines()
    assert "failed" in warnings[0]
    assert url in json.loads(error)["error"]


def test_the_service_does_not_start_without_tls_unless_told_to(tmp_path: Path) -> None:
    done = flasc("serve", FLASC_DATABASE_URL=f"sqlite:///{tmp_path}/flasc.db")
    assert done.returncode == ExitCode.USAGE
    assert "--insecure-dev" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_service_does_not_start_on_a_database_without_its_schema(tmp_path: Path) -> None:
    done = flasc(
        *("serve", "--insecure-dev", "--grpc-port", "0", "--http-port", "0"),
        FLASC_DATABASE_URL=f"sqlite:///{tmp_path}/flasc.db",
        FLASC_BLOBS=str(tmp_path / "blobs"),
    )
    assert done.returncode == ExitCode.UNREACHABLE
    assert "flasc migrate" in done.stderr


def test_a_setting_that_does_not_fit_is_named(tmp_path: Path) -> None:
    done = flasc("serve", "--insecure-dev", FLASC_WORKER_THREADS="0")
    assert done.returncode == ExitCode.USAGE
    assert "worker_threads" in done.stderr


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    done = flasc("demo", "--data-folder", str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert mine.read_text() == "years of work"
