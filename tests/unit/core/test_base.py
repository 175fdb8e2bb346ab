"""Bases: what downloads are relative to, and the initial adapter that a seed draws."""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flasc_core.base import InitialBase, ZeroBase, base_from_json, base_from_message
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.wire import Part
from tests.builders import nonzeros_of

LAYOUT = AdapterLayout(
    tensors=(
        TensorSpec(name="layer.lora_A.weight", shape=(2, 5), role=Role.LORA_A),
        TensorSpec(name="layer.lora_B.weight", shape=(3, 2), role=Role.LORA_B),
        TensorSpec(name="head.weight", shape=(2, 2), role=Role.HEAD),
        TensorSpec(name="conv.lora_A.weight", shape=(2, 3, 2), role=Role.LORA_A),
        TensorSpec(name="scale.lora_A", shape=(), role=Role.LORA_A),
    )
)
DRAWN = LAYOUT.indices_of([Role.LORA_A])
# As docs/protocol.md lists them: the bits of the first numbers of "layer.lora_A.weight".
VECTORS = {
    0: (0x3DE98098, 0x3E426060, 0xBE1F2EEB, 0xBE4281AD, 0xBE5362B6),
    7: (0xBEE1E907, 0x3D7C0EB0, 0x3D73CD70, 0xBE9266AD, 0xBE68C608),
    2**63 - 1: (0x3ED5563B, 0xBEAFD598, 0xBD9EEE55, 0xBD944707, 0xBD291710),
}


def by_the_book(name: str, shape: tuple[int, ...], seed: int) -> list[float]:
    """The rule of docs/protocol.md with Python's integers, one number at a time."""
    start = hashlib.sha256(f"flasc initial adapter 1\n{seed}\n{name}".encode()).digest()
    key = int.from_bytes(start[:8], "little")
    bound = as_float32(1 / math.sqrt(math.prod(shape[1:])))
    numbers = []
    for position in range(math.prod(shape)):
        word = (key + (position + 1) * 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        word ^= word >> 31
        numbers.append(as_float32((2 * (word >> 40) + 1 - 2**24) / 2**24 * bound))
    return numbers


def parts_of(differences: NDArray[np.float32]) -> list[Part]:
    """What a download of them is, in two parts."""
    sent = nonzeros_of(differences)
    return [(sent.indices[:1], sent.values[:1]), (sent.indices[1:], sent.values[1:])]


def as_float32(value: float) -> float:
    number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return number


@given(seed=st.integers(0, 2**63 - 1))
def test_the_adapter_of_a_seed_is_that_of_the_rule(seed: int) -> None:
    tensors = LAYOUT.split(InitialBase(seed=seed).draw(LAYOUT))
    for tensor in LAYOUT.tensors:
        drawn = tensors[tensor.name].reshape(-1).tolist()
        if tensor.role is Role.LORA_A:
            assert drawn == by_the_book(tensor.name, tensor.shape, seed)
        else:
            assert not any(drawn)


@pytest.mark.parametrize("seed", VECTORS)
def test_the_first_numbers_are_those_of_the_test_vectors(seed: int) -> None:
    first = InitialBase(seed=seed).draw(LAYOUT)[:5]
    assert [f"{bits:#010x}" for bits in first.view("<u4").tolist()] == [
        f"{bits:#010x}" for bits in VECTORS[seed]
    ]


def test_numbers_beyond_a_chunk_go_on_as_the_rule_says() -> None:
    name, shape = "wide", (3, 65_537)
    layout = AdapterLayout(tensors=(TensorSpec(name=name, shape=shape, role=Role.LORA_A),))
    drawn = InitialBase(seed=3).draw(layout)
    assert drawn.tolist() == by_the_book(name, shape, 3)
    bound = 1 / math.sqrt(65_537)
    assert float(np.abs(drawn).max()) < bound
    # Uniform: mean 0 and deviation bound / sqrt(3), to five standard errors.
    assert abs(float(drawn.mean())) < 5 * bound / math.sqrt(3 * drawn.size)
    assert float(drawn.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_training_starts_from_the_initial_adapter_wherever_nothing_was_sent() -> None:
    base = InitialBase(seed=1)
    drawn = base.draw(LAYOUT)
    weights = drawn.copy()
    weights[[0, 12, 17]] += np.float32(0.5)
    differences = base.differences(LAYOUT, weights)
    assert np.flatnonzero(differences).tolist() == [0, 12, 17]

    start = base.start_from(LAYOUT, parts_of(differences))
    assert np.array_equal(start, weights)
    untouched = np.setdiff1d(np.arange(LAYOUT.dim), [0, 12, 17])
    assert start[untouched].tobytes() == drawn[untouched].tobytes()


def test_a_new_task_has_the_factors_that_devices_draw_and_keeps_the_rest() -> None:
    base = InitialBase(seed=1)
    weights = np.arange(1, LAYOUT.dim + 1, dtype=np.float32)
    initialised = base.initialise(LAYOUT, weights)
    others = np.setdiff1d(np.arange(LAYOUT.dim), DRAWN)
    assert np.array_equal(initialised[DRAWN], base.draw(LAYOUT)[DRAWN])
    assert np.array_equal(initialised[others], weights[others])
    assert ZeroBase().initialise(LAYOUT, weights) is weights


def test_weights_relative_to_zero_are_sent_as_they_are() -> None:
    weights = np.arange(LAYOUT.dim, dtype=np.float32)
    differences = ZeroBase().differences(LAYOUT, weights)
    assert differences is weights
    assert np.array_equal(ZeroBase().start_from(LAYOUT, parts_of(differences)), weights)


def test_an_adapter_that_starts_elsewhere_is_refused_and_a_trained_one_is_not() -> None:
    base = InitialBase(seed=1)
    drawn = base.draw(LAYOUT)
    base.check(LAYOUT, drawn)
    base.check(LAYOUT, drawn * np.float32(1.3))
    with pytest.raises(Refusal, match="draw its LoRA A factors with that seed") as refused:
        base.check(LAYOUT, -drawn)
    assert refused.value.reason is Reason.CONFIGURATION
    ZeroBase().check(LAYOUT, -drawn)


@pytest.mark.parametrize("base", [ZeroBase(), InitialBase(seed=0), InitialBase(seed=2**63 - 1)])
def test_a_base_comes_back_from_json_and_from_the_task_specification(
    base: ZeroBase | InitialBase,
) -> None:
    assert base_from_json(base.to_json()) == base
    assert base_from_message(base.to_message()) == base


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "other"},
        {"name": "zero", "seed": 1},
        {"name": "initial"},
        {"name": "initial", "seed": -1},
        {"name": "initial", "seed": 2**63},
        {"name": "initial", "seed": 1.5},
    ],
)
def test_a_base_that_is_none_is_refused(data: dict[str, str | float]) -> None:
    with pytest.raises(Refusal) as refused:
        base_from_json(data)
    assert refused.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (task_spec_pb2.InitialAdapter(seed=1), Reason.FIELD_REQUIRED),
        (
            task_spec_pb2.InitialAdapter.FromString(b"\x08\x63\x10\x01"),
            Reason.UNKNOWN_ENUM,
        ),
        (
            task_spec_pb2.InitialAdapter(
                generator=task_spec_pb2.GENERATOR_SPLITMIX64_UNIFORM, seed=2**63
            ),
            Reason.CONFIGURATION,
        ),
    ],
)
def test_a_specification_with_an_adapter_that_cannot_be_drawn_is_refused(
    message: task_spec_pb2.InitialAdapter, reason: Reason
) -> None:
    with pytest.raises(Refusal) as refused:
        base_from_message(message)
    assert refused.value.reason is reason
