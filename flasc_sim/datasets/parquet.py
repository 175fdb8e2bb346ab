"""Data sets in parquet files: columns text, label, split, and client or author for the owner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flasc_sim.datasets.examples import LabelledTexts
from flasc_sim.datasets.owners import number_owners

__all__ = ["read_parquet"]

_OWNER_COLUMNS: Final = ("client", "author")


def read_parquet(path: Path, *, name: str) -> LabelledTexts:
    """Read a file whose `split` is "train" or something else, which is held out.

    Label names come from the schema's `labels` metadata where there are any. ValueError names a
    missing column; FileNotFoundError a missing file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no data file {path}; give the right one with --data")
    table: pa.Table = pq.read_table(path)
    missing = {"text", "label", "split"} - set(table.column_names)
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    labels = np.asarray(table["label"].to_numpy(), dtype=np.int64)
    texts: list[str] = table["text"].to_pylist()
    return LabelledTexts(
        name=name,
        label_names=_label_names(table.schema.metadata or {}, int(labels.max()) + 1),
        texts=texts,
        labels=labels,
        owners=number_owners(_owners(table), rows=len(texts)),
        held_out=np.array([split != "train" for split in table["split"].to_pylist()], dtype=bool),
    )


def _owners(table: pa.Table) -> Sequence[int | str | None]:
    for column in _OWNER_COLUMNS:
        if column in table.column_names:
            owners: list[int | str | None] = table[column].to_pylist()
            return owners
    return [None] * int(table.num_rows)


def _label_names(metadata: dict[bytes, bytes], count: int) -> tuple[str, ...]:
    stored = metadata.get(b"labels")
    return tuple(json.loads(stored)) if stored else tuple(map(str, range(count)))
