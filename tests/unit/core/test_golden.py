"""Two rounds of every variant, against a reference that agrees with the method's authors.

Every step of a deployment takes part: selection, the wire, the exact sum, the server's step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flasc_core.fold import Accumulator
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc, apply_upload_rule
from flasc_core.server_update import AdamW, ServerOptimizer, Sgd
from flasc_core.sparse import SparseVector
from flasc_core.wire import decode, encode
from tests.builders import in_one_part
from tests.unit.core.builders import limits_of, selected_by

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "flasc_golden.json").read_text(encoding="utf-8")
)
ROLES = {"lora_A": Role.LORA_A, "lora_B": Role.LORA_B, "head": Role.HEAD}
# The file is rounded to seven decimals, the weights to float32.
TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    optimizer: ServerOptimizer
    clip_norm: float = 0.0


VARIANTS = {
    "sgd_lr1": Variant(optimizer=Sgd()),
    "adamw_lr0.01": Variant(optimizer=AdamW(learning_rate=0.01)),
    "dp_clip0.05_sgd1": Variant(optimizer=Sgd(), clip_norm=0.05),
}


def golden_layout() -> AdapterLayout:
    return AdapterLayout(
        tensors=tuple(
            TensorSpec(name=name, shape=tuple(shape), role=ROLES[name])
            for name, shape in GOLDEN["layout"]
        )
    )


def over_the_wire(vector: SparseVector) -> SparseVector:
    return decode(encode(vector), limits_of(vector.dim))


def test_every_variant_of_the_file_is_tested() -> None:
    assert set(GOLDEN["cases"]) == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_rounds_match_the_reference(name: str) -> None:
    variant, layout = VARIANTS[name], golden_layout()
    method = Flasc(
        download_density=GOLDEN["d_down"],
        upload_density=GOLDEN["d_up"],
        clip_norm=variant.clip_norm,
    )
    weights = np.array(GOLDEN["P0"], dtype=np.float32)
    state = variant.optimizer.init(layout.dim)
    for number, expected in enumerate(GOLDEN["cases"][name]):
        download = over_the_wire(selected_by(method, layout, weights, number))
        assert download.indices.tolist() == expected["mask_idx"]
        assert download.to_dense() == pytest.approx(expected["x0"], abs=TOLERANCE)

        rule = method.plan(layout, number).upload
        accumulator = Accumulator.zeros(layout.dim)
        devices = GOLDEN["local_deltas"][number]
        for device, delta in enumerate(devices):
            upload = apply_upload_rule(layout, np.array(delta, dtype=np.float32), rule)
            assert upload.indices.tolist() == expected["upload_idx"][device]
            check_values(upload, expected["upload_vals"][device], variant.clip_norm)
            accumulator.add_parts(in_one_part(over_the_wire(upload)), 1, bytes([device]) * 16)

        # The reference divides a clipped sum by its sensitivity as well.
        mean = accumulator.mean(len(devices)) / (variant.clip_norm or 1.0)
        assert mean == pytest.approx(expected["mean_delta"], abs=TOLERANCE)
        weights, state = variant.optimizer.apply(weights, mean, state)
        assert weights == pytest.approx(expected["P_after"], abs=TOLERANCE)


def check_values(upload: SparseVector, before_clipping: list[float], clip_norm: float) -> None:
    exact = np.array(before_clipping)
    scale = max(float(np.linalg.norm(exact)) / clip_norm, 1.0) if clip_norm else 1.0
    assert upload.values == pytest.approx(exact / scale, abs=TOLERANCE)


def test_a_coordinate_with_one_contributor_is_halved_in_a_cohort_of_two() -> None:
    expected = GOLDEN["cases"]["sgd_lr1"][0]
    accumulator = Accumulator.zeros(10)
    for device in (0, 1):
        vector = SparseVector(
            dim=10,
            indices=np.array(expected["upload_idx"][device], dtype=np.int64),
            values=np.array(expected["upload_vals"][device], dtype=np.float32),
        )
        accumulator.add_parts(in_one_part(vector), 1, bytes([device]))
    mean = accumulator.mean(2)
    assert mean[[5, 9]] == pytest.approx([0.045, 0.03], abs=TOLERANCE)
