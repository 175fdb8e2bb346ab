"""What users wrote, in JSON files by user: the form of LEAF's Reddit and of its descendants.

    FOLDER/train_clients.json and FOLDER/eval_clients.json, or FOLDER/train/*.json and .../test/*

Each file is an object `{"users": [NAME, ...], "user_data": {NAME: {"x": [TEXT, ...]}}}`. A text is
a string, or as LEAF has it a list of words or of lists of words, whose markers are left out. What
is in the first files trains, in the second is scored; users may be in one of them or in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["UserTexts", "read_user_texts"]

_MARKERS: Final = frozenset({"<PAD>", "<BOS>", "<EOS>"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTexts:
    """Row i is `texts[i]`, written by the user with number `owners[i]`."""

    texts: Sequence[str]
    owners: NDArray[np.int64]
    held_out: NDArray[np.bool_]


def read_user_texts(folder: Path) -> UserTexts:
    """Raises OSError for missing files and ValueError for files of another form."""
    texts: list[str] = []
    users: list[str] = []
    held_out: list[bool] = []
    parts = (("train_clients.json", "train/*.json"), ("eval_clients.json", "test/*.json"))
    for scored, names in enumerate(parts):
        for file in _files(folder, names):
            for user, text in _read(file):
                texts.append(text)
                users.append(user)
                held_out.append(bool(scored))
    return UserTexts(
        texts=texts,
        owners=np.unique(users, return_inverse=True)[1].astype(np.int64),
        held_out=np.array(held_out),
    )


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    found = sorted(file for name in names for file in folder.glob(name))
    if not found:
        raise FileNotFoundError(f"{folder} has no {' or '.join(names)}; give a folder with --data")
    return found


def _read(file: Path) -> Iterator[tuple[str, str]]:
    content = json.loads(file.read_text())
    try:
        for user in content["users"]:
            for written in content["user_data"][user]["x"]:
                text = _text(written)
                if text:
                    yield str(user), text
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{file} must hold {{"users": [...], "user_data": {{user: {{"x": [...]}}}}}}: {error!r}'
        ) from error


def _text(written: Any) -> str:
    if isinstance(written, str):
        return "" if written in _MARKERS else written.strip()
    return " ".join(filter(None, map(_text, written)))
