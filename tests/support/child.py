"""Processes that do not outlive the test that starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["ROOT", "child"]

ROOT: Final = Path(__file__).parents[2]


@contextmanager
def child(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Kills it at the end of the block, however that ends; one that has ended by then is left so.

    Popen's own end of a block waits, and a test that has failed waits for what never comes.
    """
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()
