"""How long a test waits for what must come: on a busy machine, long; and for ever never.

It ends before pytest ends the test, so that what was waited for in vain is told.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

__all__ = ["PATIENCE", "PATIENCE_SECONDS"]

PATIENCE_SECONDS: Final = 60.0
PATIENCE: Final = timedelta(seconds=PATIENCE_SECONDS)
