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


def test_values_keep_their_types_and_whole_numbers_stand_for_real_ones() -> None:
    kettle = read_fields(Kettle, {"litres": 2, "watts": 900, "uses": ["tea", "soup"]}, "kettle")
    assert kettle == Kettle(litres=2.0, watts=900, uses=("tea", "soup"))
    assert isinstance(kettle.litres, float)


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
    ],
)
def test_what_does_not_fit_is_named(table: dict[str, JsonValue], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_fields(Kettle, table, "kettle")
