"""Data sets of a hub: files as they are, and tables through `datasets` where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np

from flasc_sim.datasets.examples import LabelledTexts
from flasc_sim.datasets.owners import number_owners

__all__ = ["data_files", "fetch_from_hub"]

_TEXT_COLUMNS: Final = ("text", "sentence", "content")
_LABEL_COLUMNS: Final = ("label", "labels", "coarse_label")


def data_files(repository: str, pattern: str, data: Path | None = None) -> list[Path]:
    """Return a data set's files in the order of their names: downloaded, or those of a folder.

    A folder has them where the hub does, or directly in it. OSError where there are none.
    """
    folder = data if data is not None else _download(repository, pattern)
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(pattern.rpartition("/")[2]))
    if not found:
        raise FileNotFoundError(f"{folder} has no {pattern}; give the right folder with --data")
    return found


def _download(repository: str, pattern: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=[pattern]))
    except OSError as error:
        raise OSError(
            f"{repository} can not be had from the hub ({error}); give a copy with --data"
        ) from error


def fetch_from_hub(name: str) -> LabelledTexts:
    """Fetch `name`'s train and test (or validation) splits; rows have no owners and are dealt out.

    ModuleNotFoundError says what to install; ValueError which split or column is missing.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ModuleNotFoundError(
            f"{name!r} is no data set that comes with this package; to take it from a hub, "
            "pip install datasets, or give a parquet file with --data"
        )
    import datasets

    splits: Any = datasets.load_dataset(name)
    held_out_split = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or held_out_split is None:
        raise ValueError(f"{name!r} has no train split, or neither a test nor a validation split")
    train, held_out = splits["train"], splits[held_out_split]
    text = _column(name, train.column_names, _TEXT_COLUMNS)
    label = _column(name, train.column_names, _LABEL_COLUMNS)
    texts = [*train[text], *held_out[text]]
    labels = np.array([*train[label], *held_out[label]], dtype=np.int64)
    return LabelledTexts(
        name=name,
        label_names=tuple(
            getattr(train.features[label], "names", None) or map(str, range(int(labels.max()) + 1))
        ),
        texts=texts,
        labels=labels,
        owners=number_owners([None] * len(texts), rows=len(texts)),
        held_out=np.arange(len(texts)) >= len(train),
    )


def _column(name: str, present: list[str], wanted: tuple[str, ...]) -> str:
    for column in wanted:
        if column in present:
            return column
    raise ValueError(f"{name!r} has none of the columns {', '.join(wanted)}")
