"""The space of a search: what is in it, what is refused, and what a choice changes of settings."""

from __future__ import annotations

import pytest

from flasc_sim.search.space import SearchSpace
from tests.support.search_table import a_candidate


def test_every_combination_is_a_candidate_once() -> None:
    space = SearchSpace(head_densities=(1.0, 0.25))
    assert len(space.candidates) == len(set(space.candidates)) == 3 * 4 * 2 * 3 * 2
    assert len({candidate.name for candidate in space.candidates}) == len(space.candidates)


def test_candidates_that_differ_have_names_that_differ() -> None:
    space = SearchSpace(densities=(1 / 1024, 0.3333333, 1 / 3))
    assert len({one.name for one in space.candidates}) == len(space.candidates)


def test_a_dense_adapter_has_its_head_ranked_in_one_way_only() -> None:
    space = SearchSpace(
        ranks=(4,),
        densities=(0.5, 1.0),
        head_densities=(0.0, 1.0),
        encodings=("int8",),
        bases=("zero",),
    )
    heads = [(one.density, one.head_density) for one in space.candidates]
    assert heads == [(0.5, 0.0), (0.5, 1.0), (1.0, 1.0)]


def test_growth_starts_with_the_smallest_rank_and_density_and_what_is_named_first() -> None:
    smallest = SearchSpace(encodings=("int6", "int8"), bases=("zero", "initial")).smallest
    assert smallest == a_candidate(1, 1 / 64, encoding="int6", base="zero")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ranks": ()}, "ranks must be a list that rises"),
        ({"ranks": (4, 1)}, "ranks must be a list that rises"),
        ({"ranks": (4, 4)}, "ranks must be a list that rises"),
        ({"ranks": (0, 4)}, "ranks are at least 1"),
        ({"densities": (0.0, 1.0)}, r"densities are in \(0, 1\]"),
        ({"densities": (0.5, 1.1)}, r"densities are in \(0, 1\]"),
        ({"head_densities": (-0.1,)}, r"head_densities are in \[0, 1\]"),
        ({"head_densities": ()}, "head_densities must name at least one"),
        ({"encodings": ("int9",)}, "encodings has 'int9'; there are"),
        ({"encodings": ("int8", "int8")}, "each once"),
        ({"bases": ("one",)}, "bases has 'one'; there are initial, zero"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SearchSpace(**changes)  # type: ignore[arg-type]


def test_a_choice_sets_what_it_is_about_and_leaves_the_rest() -> None:
    table = {
        "adapter": {"rank": 16, "alpha": 16},
        "method": {"name": "hetlora", "rank": 4},
        "base": {"name": "initial", "seed": 9},
        "training": {"learning_rate": 0.3},
    }
    changed = a_candidate(4, 0.25, head_density=0.5, base="zero").apply_to(table)
    assert changed == {
        "adapter": {"rank": 4, "alpha": 16},
        "method": {
            "name": "flasc",
            "download_density": 0.25,
            "upload_density": 0.25,
            "head_density": 0.5,
        },
        "encodings": {"download": "int6", "updates": ["int6"]},
        "base": {"name": "zero"},
        "training": {"learning_rate": 0.3},
    }
    assert table["method"] == {"name": "hetlora", "rank": 4}


def test_a_head_density_of_zero_ranks_the_head_with_the_rest() -> None:
    assert "head_density" not in a_candidate(head_density=0.0).apply_to({})["method"]
