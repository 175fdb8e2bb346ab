"""How long a test waits for what must come: on a busy machine, long; and for ever never.

It ends before pytest ends the test, so that what was waited for in vain is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

__all__ = ["PATIENCE", "PATIENCE_SECONDS", "until"]

PATIENCE_SECONDS: Final = 120.0
PATIENCE: Final = timedelta(seconds=PATIENCE_SECONDS)


def until(holds: Callable[[], bool], what: str) -> None:
    """Asks again and again: for what another process or thread does and tells nobody."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
