"""Data sets by name and file, and who gets which rows of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flasc_sim.datasets import LabelledTexts, divide, held_out_examples, load_texts
from flasc_sim.datasets.newsgroups import author_of
from flasc_sim.datasets.owners import number_owners


def a_table(owners: list[int], held_out: list[bool]) -> LabelledTexts:
    rows = len(owners)
    return LabelledTexts(
        name="made",
        label_names=("even", "odd"),
        texts=[f"row {row}" for row in range(rows)],
        labels=np.arange(rows) % 2,
        owners=np.array(owners, dtype=np.int64),
        held_out=np.array(held_out),
    )


def a_file(path: Path, **changes: object) -> Path:
    columns = {
        "text": ["a", "b", "c"],
        "label": [0, 1, 0],
        "split": ["train", "train", "test"],
        "client": [7, 8, 7],
    }
    columns.update(changes)
    schema_less = pa.table({name: values for name, values in columns.items() if values})
    pq.write_table(schema_less, path)
    return path


def test_debian_sections_come_with_the_package_and_have_names_for_all_labels() -> None:
    table = load_texts("debian-sections")
    assert len(table.texts) == 49_045
    assert int(table.held_out.sum()) == 9_866
    assert len(table.label_names) == 20
    assert table.label_names[:3] == ("libs", "libdevel", "python")


@pytest.mark.parametrize("devices", [1, 2, 10])
def test_debian_maintainers_stay_together_and_nobody_is_left_out(devices: int) -> None:
    table = load_texts("debian-sections")
    shares = [
        divide(table, device, devices, held_out_limit=100_000, seed=0) for device in range(devices)
    ]
    assert sum(len(share.train.texts) for share in shares) == 39_179
    assert sum(len(share.held_out.texts) for share in shares) == 9_866


@given(
    owners=st.lists(st.integers(0, 40), min_size=30, max_size=60),
    devices=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_an_owner_is_on_one_device_and_held_out_rows_never_train(
    owners: list[int], devices: int, seed: int
) -> None:
    rows = [*range(devices), *range(devices), *owners]
    table = a_table(rows, [row % 2 == 1 or row < devices for row in range(len(rows))])
    for device in range(devices):
        try:
            share = divide(table, device, devices, held_out_limit=5, seed=seed)
        except ValueError:
            continue
        train = {int(text.split()[1]) for text in share.train.texts}
        held_out = {int(text.split()[1]) for text in share.held_out.texts}
        assert all(rows[row] % devices == device for row in train | held_out)
        assert not train & held_out
        assert all(table.held_out[row] for row in held_out)
        assert len(held_out) <= 5
        assert [table.labels[row] for row in sorted(held_out)] == list(share.held_out.labels)


def test_the_same_seed_draws_the_same_rows_and_another_seed_others() -> None:
    table = load_texts("debian-sections")
    first, again, other = (held_out_examples(table, limit=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_device_without_rows_is_told_to_be_one_of_fewer() -> None:
    table = a_table([0, 0, 2], [False, True, False])
    with pytest.raises(ValueError, match="use fewer devices"):
        divide(table, 1, 2, held_out_limit=1, seed=0)
    with pytest.raises(ValueError, match="no device 2 among 2"):
        divide(table, 2, 2, held_out_limit=1, seed=0)


def test_a_parquet_file_is_read_with_its_owners_and_splits(tmp_path: Path) -> None:
    table = load_texts("mine", data=a_file(tmp_path / "mine.parquet"))
    assert (table.name, list(table.texts)) == ("mine", ["a", "b", "c"])
    assert table.owners.tolist() == [7, 8, 7]
    assert table.held_out.tolist() == [False, False, True]
    assert table.label_names == ("0", "1")


def test_rows_without_an_owner_each_get_their_own(tmp_path: Path) -> None:
    nobody = load_texts("mine", data=a_file(tmp_path / "a.parquet", client=None))
    assert nobody.owners.tolist() == [0, 1, 2]
    partly = load_texts("mine", data=a_file(tmp_path / "b.parquet", client=[-1, 9, -1]))
    assert partly.owners.tolist() == [0, 9, 2]


def test_a_file_that_does_not_fit_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks the columns label"):
        load_texts("mine", data=a_file(tmp_path / "a.parquet", label=None))
    with pytest.raises(FileNotFoundError, match="--data"):
        load_texts("mine", data=tmp_path / "absent.parquet")


def test_names_of_labels_must_cover_the_labels(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(["only"])}), path)
    with pytest.raises(ValueError, match="a label has no name"):
        load_texts("mine", data=path)


def test_names_of_owners_become_the_same_number_in_every_process() -> None:
    numbers = number_owners(["ann", 3, None, -1, "ann"], rows=5)
    assert numbers.tolist() == [crc32(b"ann"), 3, 2, 3, crc32(b"ann")]


@pytest.mark.parametrize(
    ("post", "author"),
    [
        ("From: Ann@x.org\nSubject: a\n\nFrom: bob", "ann@x.org"),
        ("Subject: a\nfrom:  B <b@y>  \n\ntext", "b <b@y>"),
        ("Subject: a\n\nFrom: not a header", None),
        ("", None),
    ],
)
def test_a_post_belongs_to_who_its_header_names(post: str, author: str | None) -> None:
    assert author_of(post) == author


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is not None, reason="the hub's package is installed"
)
def test_a_hubs_data_set_without_its_package_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        load_texts("some/data-set")
