"""CIFAR-10 and FLAIR, from a hub's parquet files or from copies of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flasc_sim.datasets.hub import data_files
from flasc_sim.datasets.images import LabelledImages

__all__ = ["CIFAR10_LABELS", "load_cifar10", "load_flair"]

CIFAR10_LABELS: Final = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SPLITS: Final[Mapping[str, str]] = MappingProxyType({"val": "validation"})


def load_cifar10(data: Path | None = None) -> LabelledImages:
    """Load 50,000 training images and 10,000 test images that nobody owns.

    From the hub's uoft-cs/cifar10 (PNG), from a folder of its files, or from one file of columns
    split, label and jpg, which is told apart by its name. Raises OSError and ValueError.
    """
    if data is not None and not data.is_dir():
        table = _read(data, ("split", "label", "jpg"))
        splits = [str(split) for split in table["split"].to_pylist()]
        files = table["jpg"].to_pylist()
        return _cifar10("CIFAR-10 (JPEG copy)", files, _whole_numbers(table["label"]), splits)
    files, labels, splits = [], [], []
    for path in data_files("uoft-cs/cifar10", "plain_text/*.parquet", data):
        table = _read(path, ("img", "label"))
        files += _image_bytes(table["img"])
        labels.append(_whole_numbers(table["label"]))
        splits += [_split_of(path)] * table.num_rows
    return _cifar10("CIFAR-10", files, np.concatenate(labels), splits)


def load_flair(data: Path | None = None) -> LabelledImages:
    """Load photographs that natural users took, each of any of 17 coarse classes.

    From the hub's apple/flair or a folder of its files: about 6 GB, which are held in memory.
    Splits are train, validation and test, of different users. Raises OSError and ValueError.
    """
    files: list[bytes] = []
    users: list[str] = []
    splits: list[str] = []
    named: list[list[str]] = []
    for path in data_files("apple/flair", "data/*.parquet", data):
        table = _read(path, ("image", "user_id", "labels"))
        files += _image_bytes(table["image"])
        users += [str(user) for user in table["user_id"].to_pylist()]
        named += table["labels"].to_pylist()
        splits += [_split_of(path)] * table.num_rows
    names = tuple(sorted({name for labels in named for name in labels}))
    marks = [[int(name in labels) for name in names] for labels in map(set, named)]
    return LabelledImages(
        name="FLAIR",
        label_names=names,
        files=files,
        labels=np.array(marks, dtype=np.int64),
        splits=splits,
        owners=np.unique(users, return_inverse=True)[1].astype(np.int64),
    )


def _cifar10(
    name: str, files: Sequence[bytes], labels: NDArray[np.int64], splits: list[str]
) -> LabelledImages:
    return LabelledImages(
        name=name, label_names=CIFAR10_LABELS, files=files, labels=labels, splits=splits
    )


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(f"there is no data file {path}; give the right one with --data")
    missing = set(columns) - set(pq.read_schema(path).names)
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return pq.read_table(path, columns=list(columns))


def _image_bytes(column: Any) -> list[bytes]:
    return [image["bytes"] for image in column.to_pylist()]


def _whole_numbers(column: Any) -> NDArray[np.int64]:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _split_of(path: Path) -> str:
    """Files of a hub are named SPLIT-NUMBER-of-COUNT.parquet."""
    name = path.name.partition("-")[0]
    return _SPLITS.get(name, name)
