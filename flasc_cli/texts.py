"""Data sets for commands: what can go wrong with them is told as commands tell it."""

from __future__ import annotations

from pathlib import Path

from flasc_cli.errors import CliError
from flasc_sim import datasets

__all__ = ["load_texts"]


def load_texts(name: str, data: Path | None = None) -> datasets.LabelledTexts:
    """Load a data set by name, or from the parquet file `data`. Raises CliError."""
    try:
        return datasets.load_texts(name, data=data)
    except ModuleNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise CliError(f"data set {name or data}: {error}") from error
