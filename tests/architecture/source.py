"""The project's own Python files, as trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = (
    "admin_api",
    "aggregator_service",
    "client_sdk",
    "flasc_cli",
    "flasc_core",
    "flasc_sim",
)
FOLDERS: Final = (*PACKAGES, "benchmarks", "deploy", "examples", "migrations", "proto", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    # Relative to the project, with slashes.
    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.split("/")[0]

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def place(self, node: ast.expr | ast.stmt) -> str:
        return f"{self.path}:{node.lineno}"


def sources(*folders: str) -> list[Source]:
    """Every file of these folders that was written by hand."""
    return [_read(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def written(source: Source) -> bool:
    return not source.path.startswith("flasc_core/pb/")


def _read(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path=path.relative_to(ROOT).as_posix(), text=text, tree=ast.parse(text))
