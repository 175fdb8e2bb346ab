"""Labelled images with owners, kept as the files they came in and decoded when they are needed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["DecodedImages", "ImageShape", "LabelledImages", "collate_images"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """A whole data set; image i is `files[i]`, a JPEG or PNG, of the split called `splits[i]`.

    `labels` are class numbers, shape (rows,), or where images may be of several classes 0 and 1 for
    each, shape (rows, classes). `owners`, shape (rows,), is None where nobody owns them.
    """

    name: str
    label_names: tuple[str, ...]
    files: Sequence[bytes]
    labels: NDArray[np.int64]
    splits: Sequence[str]
    owners: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        columns = [self.labels, self.splits, *([] if self.owners is None else [self.owners])]
        if not self.files or any(len(column) != len(self.files) for column in columns):
            raise ValueError(f"data set {self.name!r}: columns must be filled and equally long")
        highest = 1 if self.labels.ndim == 2 else len(self.label_names) - 1
        if self.labels.min() < 0 or self.labels.max() > highest:
            raise ValueError(f"data set {self.name!r}: a label has no name")

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Return ascending row numbers, maybe none."""
        return np.flatnonzero(np.array([name == split for name in self.splits]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageShape:
    """How a model takes images: square, every channel (value / 255 - mean) / deviation."""

    pixels: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def decode(self, file: bytes) -> Tensor:
        """Return (3, pixels, pixels), float32; an image that is not square is squeezed."""
        with Image.open(io.BytesIO(file)) as image:
            square = image.convert("RGB").resize(
                (self.pixels, self.pixels), Image.Resampling.BILINEAR
            )
        values = torch.from_numpy(np.array(square)).permute(2, 0, 1).to(torch.float32) / 255
        mean, deviation = torch.tensor(self.mean), torch.tensor(self.deviation)
        return (values - mean[:, None, None]) / deviation[:, None, None]


class DecodedImages(Dataset[tuple[Tensor, ...]]):
    """Rows of a data set as (pixels, label), decoded each time they are asked for."""

    def __init__(self, table: LabelledImages, rows: NDArray[np.int64], shape: ImageShape) -> None:
        self._files: Final = [table.files[row] for row in rows.tolist()]
        self._labels: Final = torch.from_numpy(table.labels[rows])
        self._shape: Final = shape

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._shape.decode(self._files[index]), self._labels[index]

    def identity(self) -> Iterator[bytes]:
        """Yield what tells these rows from any others."""
        yield f"{self._shape} {self._labels.tolist()}".encode()
        yield from self._files


def collate_images(examples: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return pixel_values (batch, 3, pixels, pixels), and labels (batch,) or (batch, classes)."""
    return {
        "pixel_values": torch.stack([pixels for pixels, _ in examples]),
        "labels": torch.stack([label for _, label in examples]),
    }
