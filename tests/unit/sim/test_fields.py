"""Tables become dataclasses, and what does not fit is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from flasc_core.json_value import JsonValue
from flasc_sim.fields import read_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Kettle:
    litres: float
    name: str = "plain"
    watts: int | None = None
    whistles: bool = False
    uses: tuple[str, ...] = ()
    marks: tuple[int, ...] = ()
    spouts: tuple[float, ...] = ()


def test_values_keep_their_types_and_whole_numbers_stand_for_real_ones() -> None:
    kettle = read_fields(Kettle, {"litres": 2, "watts": 900, "uses": ["tea", "soup"]}, "kettle")
    assert kettle == Kettle(litres=2.0, watts=900, uses=("tea", "soup"))
    assert isinstance(kettle.litres, float)
    lists = read_fields(Kettle, {"litres": 2, "marks": [1, 2], "spouts": [1, 0.5]}, "kettle")
    assert (lists.marks, lists.spouts) == ((1, 2), (1.0, 0.5))
    assert all(isinstance(spout, float) for spout in lists.spouts)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"litres": 1.0, "colour": "red"}, r"kettle has no setting 'colour'"),
        ({}, r"kettle\.litres is missing"),
        ({"litres": "two"}, r"kettle\.litres must be a number"),
        ({"litres": True}, r"kettle\.litres must be a number"),
        ({"litres": 1.0, "watts": 1.5}, r"kettle\.watts must be a whole number"),
        ({"litres": 1.0, "watts": True}, r"kettle\.watts must be a whole number"),
        ({"litres": 1.0, "whistles": 1}, r"kettle\.whistles must be true or false"),
        ({"litres": 1.0, "uses": "tea"}, r"kettle\.uses must be a list of texts"),
        ({"litres": 1.0, "uses": [1]}, r"kettle\.uses must be a list of texts"),
        ({"litres": 1.0, "marks": [1, 1.5]}, r"kettle\.marks must be a list of whole numbers"),
        ({"litres": 1.0, "spouts": [0.5, "a"]}, r"kettle\.spouts must be a list of numbers"),
    ],
)
def test_what_does_not_fit_is_named(table: dict[str, JsonValue], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_fields(Kettle, table, "kettle")
