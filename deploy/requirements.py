"""Prints the requirements of one extra, so that an image's libraries are a layer of their own."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# How one extra of this project takes in others: "flasc-service[admin,sim]".
_OWN: Final = re.compile(r"flasc-service\[([\w,-]+)\]")


def requirements(project: Path, extra: str) -> list[str]:
    """The base requirements and those of the extra, extras within extras resolved."""
    table = tomllib.loads(project.read_text())["project"]
    optional: dict[str, list[str]] = table["optional-dependencies"]
    return sorted({*table["dependencies"], *_of_extra(optional, extra)})


def _of_extra(optional: dict[str, list[str]], extra: str) -> Iterator[str]:
    for requirement in optional[extra]:
        own = _OWN.fullmatch(requirement)
        if own is None:
            yield requirement
        else:
            for inner in own.group(1).split(","):
                yield from _of_extra(optional, inner)


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1])))
