"""Imports point down, and none of them is heavy where it must not be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT
from tests.support.patience import PATIENCE_SECONDS

LINT = """
import sys
from importlinter.cli import lint_imports
sys.path.insert(0, ".")
sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))
"""
# What devices install, and what grpcio itself wants.
ON_DEVICES = {"grpc", "google", "numpy", "typing_extensions"}
LOADED = """
import sys
# Servers have these beside grpc, which loads them where it finds them.
sys.modules.update(dict.fromkeys(["grpc_health", "grpc_reflection", "grpc_tools"]))
before = set(sys.modules)
import client_sdk
installed = {
    name.split(".")[0]
    for name, module in sys.modules.items()
    if name not in before and "-packages" in (getattr(module, "__file__", None) or "")
}
print(*sorted(installed))
"""
# None in the place of a module makes every import of it fail.
ALL_WITHOUT = """
import importlib, pkgutil, sys
package, *blocked = sys.argv[1:]
sys.modules.update(dict.fromkeys(blocked))
root = importlib.import_module(package)
names = [module.name for module in pkgutil.walk_packages(root.__path__, package + ".")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
print(len(names))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


def test_every_contract_on_imports_is_kept() -> None:
    linted = python(LINT, "pyproject.toml")
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert " 0 broken" in linted.stdout


def test_a_contract_that_is_broken_is_noticed(tmp_path: Path) -> None:
    contract = """
        [importlinter]
        root_package = flasc_core
        include_external_packages = True
        [importlinter:contract:one]
        name = The maths do without numpy
        type = forbidden
        source_modules = flasc_core
        forbidden_modules = numpy
    """
    path = tmp_path / "broken.ini"
    path.write_text("\n".join(line.strip() for line in contract.splitlines()))
    linted = python(LINT, str(path))
    assert linted.returncode == 1, linted.stdout + linted.stderr


def test_a_device_loads_three_packages_and_no_more() -> None:
    loaded = python(LOADED)
    assert loaded.returncode == 0, loaded.stderr
    roots = {name for name in loaded.stdout.split() if not name.startswith("_")}
    assert {"grpc", "numpy"} <= roots
    assert roots - {"client_sdk", "flasc_core"} <= ON_DEVICES


@pytest.mark.parametrize("package", ["aggregator_service", "admin_api", "flasc_core"])
def test_servers_run_on_machines_without_torch(package: str) -> None:
    blocked = ("torch", "peft", "transformers", "datasets", "sklearn", "pyarrow")
    imported = python(ALL_WITHOUT, package, *blocked)
    assert imported.returncode == 0, imported.stderr
    assert int(imported.stdout) > 5


def test_the_command_starts_without_torch() -> None:
    blocked = ("torch", "peft", "transformers")
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:])); import flasc_cli.main"
    imported = python(code, *blocked)
    assert imported.returncode == 0, imported.stderr


def test_an_import_that_is_blocked_does_fail() -> None:
    imported = python(ALL_WITHOUT, "flasc_core", "numpy")
    assert "import of numpy halted" in imported.stderr
