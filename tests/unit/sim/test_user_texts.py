"""Texts by user, from small files in the form of LEAF's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flasc_sim.datasets.user_texts import read_user_texts


def write(file: Path, **texts: list[object]) -> None:
    file.parent.mkdir(exist_ok=True)
    data = {user: {"x": written, "y": []} for user, written in texts.items()}
    file.write_text(json.dumps({"users": [*texts], "num_samples": [], "user_data": data}))


def test_texts_belong_to_those_who_wrote_them(tmp_path: Path) -> None:
    write(tmp_path / "train_clients.json", ann=["one", "two "], bob=["three"])
    write(tmp_path / "eval_clients.json", cid=["four"], ann=["five"])

    table = read_user_texts(tmp_path)

    assert table.texts == ["one", "two", "three", "four", "five"]
    assert table.owners.tolist() == [0, 0, 1, 2, 0]
    assert table.held_out.tolist() == [False, False, False, True, True]


def test_leaf_s_folders_of_words_are_read_too(tmp_path: Path) -> None:
    pieces = [["<BOS>", "hello", "there"], ["you", "<EOS>", "<PAD>"]]
    write(tmp_path / "train" / "all_data_0.json", ann=[pieces, ["<PAD>"]])
    write(tmp_path / "train" / "all_data_1.json", bob=[["fine", "words"]])
    write(tmp_path / "test" / "all_data_0.json", ann=["bye"])

    table = read_user_texts(tmp_path)

    assert table.texts == ["hello there you", "fine words", "bye"]
    assert table.owners.tolist() == [0, 1, 0]


def test_missing_and_misshapen_files_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "train_clients.json", ann=["one"])
    with pytest.raises(FileNotFoundError, match=r"eval_clients\.json"):
        read_user_texts(tmp_path)
    (tmp_path / "eval_clients.json").write_text(json.dumps({"ann": ["one"]}))
    with pytest.raises(ValueError, match="must hold"):
        read_user_texts(tmp_path)
