"""Finds where a test sets an attribute of a module or a class that is the project's own."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final

from tests.architecture.source import FOLDERS, Source

__all__ = ["replacements_in"]

_OURS: Final = frozenset(FOLDERS)


def replacements_in(source: Source) -> Iterator[str]:
    """Their places; a patch of what is not plainly another's counts as one of ours."""
    names = _imported_names(source)
    for node in source.nodes():
        for target, is_patched in _set_by(node):
            package = _package(target, names)
            if package in _OURS or (is_patched and package is None):
                yield f"{source.path}:{target.lineno}"


def _imported_names(source: Source) -> dict[str, str]:
    """What each name was imported from, as a dotted path."""
    names: dict[str, str] = {}
    for node in source.nodes():
        if isinstance(node, ast.Import):
            names |= {one.asname or one.name.split(".")[0]: one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= dict.fromkeys((one.asname or one.name for one in node.names), node.module)
    return names


def _set_by(node: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
    """What the node sets an attribute of, and whether a patch is how."""
    if isinstance(node, ast.Call) and node.args:
        setter = ast.unparse(node.func)
        if setter.split(".")[-1] in ("setattr", "delattr"):
            yield node.args[0], "." in setter
    elif isinstance(node, ast.Assign):
        yield from ((one.value, False) for one in node.targets if isinstance(one, ast.Attribute))


def _package(target: ast.expr, names: Mapping[str, str]) -> str | None:
    """Where the target was imported from; None where it was not."""
    if isinstance(target, ast.Constant):
        return str(target.value).split(".")[0]
    while isinstance(target, ast.Attribute):
        target = target.value
    if isinstance(target, ast.Name) and target.id in names:
        return names[target.id].split(".")[0]
    return None
