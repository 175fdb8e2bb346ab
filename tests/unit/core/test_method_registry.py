"""Methods by their names, and as JSON."""

from __future__ import annotations

import math

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.methods import METHODS, Flasc, method_from_json, registry


def test_every_method_is_found_by_a_name_of_its_own() -> None:
    assert {"flasc", "rolora", "hetlora_published"} <= METHODS.keys()
    assert all(kind.name == name for name, kind in METHODS.items())
    assert len(set(registry._found())) == len(METHODS)


def test_a_method_travels_as_json() -> None:
    method = Flasc(
        download_density=0.25,
        upload_density=0.0625,
        head_density=1,
        upload_ranks_head=True,
        decay=0.98,
        upload_decay=0.5,
        decay_every=5,
        clip_norm=1.5,
    )
    assert method_from_json(method.to_json()) == method
    minimal = method_from_json({"name": "flasc", "download_density": 1, "upload_density": 1})
    assert minimal == Flasc(download_density=1, upload_density=1)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": 3},
        {"name": "unheard-of"},
        {"name": "flasc"},
        {"name": "flasc", "download_density": "1", "upload_density": 1},
        {"name": "flasc", "download_density": True, "upload_density": 1},
        {"name": "flasc", "download_density": 10**400, "upload_density": 1},
        {"name": "flasc", "download_density": math.nan, "upload_density": 1},
        {"name": "flasc", "download_density": 1, "upload_density": 1, "decay_every": 1.5},
        {"name": "flasc", "download_density": 1, "upload_density": 1, "head_densty": 1},
        {"name": "flasc", "download_density": 1, "upload_density": 1, "upload_ranks_head": 1},
    ],
)
def test_a_bad_method_is_refused(data: dict[str, JsonValue]) -> None:
    with pytest.raises(Refusal) as refusal:
        method_from_json(data)
    assert refusal.value.reason is Reason.CONFIGURATION
