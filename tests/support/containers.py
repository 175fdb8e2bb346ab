"""A container engine for tests: the one that answers, else a private one, else a reason to skip.

whatever `docker version` reaches ─▶ deploy/docker_engine.sh (root, dockerd installed) ─▶ NoEngine
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
_POLL_SECONDS: Final = 0.25


class NoEngine(Exception):
    """No engine answers, and none can be started."""


class Engine:
    """The docker command with the environment in which it reaches its engine."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment: Final = {**os.environ, **environment, "DOCKER_BUILDKIT": "1"}

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("docker", *arguments, check=check)

    def run(
        self, *command: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stderr[-4000:]}{done.stdout[-2000:]}")
        return done

    def build(self, target: str, tag: str) -> None:
        # On the host's network, where whatever reaches the package index from here does so too.
        self.docker("build", "--network=host", "--quiet", "--target", target, "--tag", tag, ".")

    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name).stdout)
        return found[0]

    def python(self, image: str, code: str, *options: str) -> str:
        command = ("run", "--rm", *options, "--entrypoint", "python", image, "-c", code)
        return self.docker(*command).stdout.strip()


class Compose:
    """One project of deploy/compose.yaml."""

    def __init__(self, engine: Engine, project: str, env_file: Path, **variables: str) -> None:
        self._engine = engine
        self._variables = {**variables, "ENV_FILE": str(env_file)}
        plugin = engine.docker("compose", "version", check=False).returncode == 0
        self._command = (
            *(("docker", "compose") if plugin else ("docker-compose",)),
            *("--file", str(DEPLOY / "compose.yaml"), "--project-name", project),
            *("--env-file", str(env_file)),
        )

    def __call__(self, *arguments: str) -> str:
        command = (*self._command, *arguments)
        return self._engine.run(*command, environment=self._variables).stdout.strip()

    def state(self, service: str) -> dict[str, Any]:
        return self._engine.inspect(self("ps", "--all", "--quiet", service))

    def wait_healthy(self, service: str) -> None:
        def healthy() -> bool:
            state = self.state(service)["State"]
            return bool(state["Running"] and state["Health"]["Status"] == "healthy")

        wait_until(healthy)

    def kill(self, service: str, image: str) -> None:
        """kill -9 from outside, as the kernel would do it; returns when another process runs.

        `docker kill` would count as the operator's wish, after which nothing is restarted.
        """
        process = self.state(service)["State"]["Pid"]
        signal = f"import os; os.kill({process}, 9)"
        self._engine.python(image, signal, "--pid=host", "--user=0")
        wait_until(lambda: self.state(service)["State"]["Pid"] not in {0, process})


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds")
        time.sleep(_POLL_SECONDS)


@contextmanager
def container_engine() -> Iterator[Engine]:
    """Raises NoEngine. A private engine that was started here ends with the block."""
    if shutil.which("docker") is not None:
        engine = Engine({})
        if engine.docker("version", check=False).returncode == 0:
            yield engine
            return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise NoEngine(
            "no container engine answers, and starting one takes root and dockerd; "
            "deploy/install-test-tools.sh installs it"
        )
    script = str(DEPLOY / "docker_engine.sh")
    running = subprocess.run([script, "status"], check=False).returncode == 0
    started = subprocess.run([script, "start"], check=True, capture_output=True, text=True)
    try:
        yield Engine(_exports(started.stdout))
    finally:
        if not running:
            subprocess.run([script, "stop"], check=True)


def _exports(line: str) -> dict[str, str]:
    """What `export A=b C=d` sets; the path goes before the one that is there."""
    pairs = dict(word.split("=", 1) for word in line.split()[1:])
    return pairs | {"PATH": pairs["PATH"].replace("$PATH", os.environ["PATH"])}
