"""Image data sets as hubs have them, from small files of the same form."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from flasc_sim.datasets.image_files import load_cifar10, load_flair
from flasc_sim.datasets.images import DecodedImages, ImageShape, LabelledImages, collate_images


def a_file(
    colour: tuple[int, int, int], kind: str = "PNG", size: tuple[int, int] = (4, 4)
) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, kind)
    return written.getvalue()


RED, GREY = a_file((255, 0, 0)), a_file((128, 128, 128))


def write(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def of_hub(*files: bytes) -> list[object]:
    return [{"bytes": file, "path": "any.png"} for file in files]


def test_cifar10_is_read_from_the_hub_s_files(tmp_path: Path) -> None:
    folder = tmp_path / "plain_text"
    write(folder / "train-00000-of-00001.parquet", img=of_hub(RED, GREY), label=[0, 9])
    write(folder / "test-00000-of-00001.parquet", img=of_hub(GREY), label=[3])

    for data in (tmp_path, folder):
        table = load_cifar10(data)
        assert table.name == "CIFAR-10"
        assert [table.files[row] for row in table.rows_of("train")] == [RED, GREY]
        assert table.labels[table.rows_of("test")].tolist() == [3]
        assert table.label_names[9] == "truck"
        assert table.owners is None


def test_the_jpeg_copy_of_cifar10_is_called_so(tmp_path: Path) -> None:
    file = write(
        tmp_path / "copy.parquet",
        split=["train", "test"],
        label=[1, 2],
        jpg=[a_file((0, 0, 255), "JPEG"), GREY],
    )
    table = load_cifar10(file)
    assert table.name == "CIFAR-10 (JPEG copy)"
    assert table.rows_of("test").tolist() == [1]
    with pytest.raises(ValueError, match="lacks the columns jpg"):
        load_cifar10(write(tmp_path / "other.parquet", split=["train"], label=[1]))


def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        load_cifar10(tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError, match="--data"):
        load_flair(tmp_path)


def test_flair_has_users_and_any_number_of_labels(tmp_path: Path) -> None:
    write(
        tmp_path / "data" / "train-00000-of-00002.parquet",
        image=of_hub(RED, GREY),
        user_id=["9@N00", "10@N00"],
        labels=[["plant", "outdoor"], ["food"]],
    )
    write(
        tmp_path / "data" / "train-00001-of-00002.parquet",
        image=of_hub(RED),
        user_id=["9@N00"],
        labels=[["food", "plant"]],
    )
    write(
        tmp_path / "data" / "val-00000-of-00001.parquet",
        image=of_hub(RED),
        user_id=["11@N00"],
        labels=[["food"]],
    )

    table = load_flair(tmp_path)

    assert table.label_names == ("food", "outdoor", "plant")
    assert table.labels.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert table.owners is not None
    assert table.owners[0] == table.owners[2]
    assert len(set(table.owners.tolist())) == 3
    assert table.rows_of("validation").tolist() == [3]


def test_pixels_are_resized_and_normalised_by_channel() -> None:
    table = LabelledImages(
        name="made",
        label_names=("one", "two"),
        files=[RED, a_file((0, 255, 0), size=(8, 2))],
        labels=np.array([1, 0]),
        splits=["train", "train"],
    )
    plain = DecodedImages(table, np.array([1, 0]), ImageShape(pixels=6))
    pixels, label = plain[1]
    assert pixels.shape == (3, 6, 6)
    assert pixels.dtype == torch.float32
    assert pixels[:, 2, 3].tolist() == [1.0, -1.0, -1.0]
    assert int(label) == 1

    shape = ImageShape(pixels=2, mean=(0.5, 0.25, 0.0), deviation=(0.25, 0.5, 1.0))
    batch = collate_images([DecodedImages(table, np.array([0]), shape)[0]] * 2)
    assert batch["pixel_values"][1, :, 0, 0].tolist() == [2.0, -0.5, 0.0]
    assert batch["labels"].tolist() == [1, 1]


def test_a_label_without_a_name_is_refused() -> None:
    def made(labels: list[object]) -> LabelledImages:
        return LabelledImages(
            name="made",
            label_names=("one", "two"),
            files=[RED] * len(labels),
            labels=np.array(labels),
            splits=["train"] * len(labels),
        )

    assert made([0, 1]).rows_of("test").size == 0
    assert made([[0, 1], [1, 1]]).labels.shape == (2, 2)
    wrong: list[list[object]] = [[0, 2], [-1, 0], [[0, 2]]]
    for labels in wrong:
        with pytest.raises(ValueError, match="has no name"):
            made(labels)
    with pytest.raises(ValueError, match="equally long"):
        made([])
