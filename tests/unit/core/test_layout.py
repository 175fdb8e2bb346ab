"""Layouts: the order of tensors, and what makes two layouts the same."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import MAX_DIM, AdapterLayout, Role, TensorSpec
from flasc_core.pb.v1 import layout_pb2
from tests.unit.core.builders import a_layout


def a_message(**changes: object) -> layout_pb2.AdapterLayout:
    message = a_layout().to_message()
    for field, value in changes.items():
        setattr(message.tensors[0], field, value)
    return message


def refused(message: layout_pb2.AdapterLayout) -> Reason:
    with pytest.raises(Refusal) as refusal:
        AdapterLayout.from_message(message)
    return refusal.value.reason


def test_the_dimension_is_the_number_of_all_coordinates() -> None:
    layout = AdapterLayout(
        tensors=(
            TensorSpec(name="a", shape=(2, 3), role=Role.LORA_A),
            TensorSpec(name="scale", shape=(), role=Role.HEAD),
        )
    )
    assert (layout.dim, layout.offsets) == (7, (0, 6, 7))


def test_the_fingerprint_is_the_sha256_of_one_line_per_tensor() -> None:
    layout = AdapterLayout(
        tensors=(
            TensorSpec(name="q.lora_A", shape=(2, 3), role=Role.LORA_A),
            TensorSpec(name="größe", shape=(4,), role=Role.HEAD),
        )
    )
    text = "LORA_A 2x3 q.lora_A\nHEAD 4 größe\n"
    assert layout.fingerprint == hashlib.sha256(text.encode()).digest()


def test_the_fingerprint_of_the_protocols_three_tensors_is_the_one_that_it_tells() -> None:
    layout = AdapterLayout(
        tensors=(
            TensorSpec(name="layer.lora_A.weight", shape=(2, 4), role=Role.LORA_A),
            TensorSpec(name="layer.lora_B.weight", shape=(3, 2), role=Role.LORA_B),
            TensorSpec(name="head.bias", shape=(3,), role=Role.HEAD),
        )
    )
    # docs/protocol.md.
    assert layout.fingerprint.hex() == (
        "bce95b59132115aaba07e1fb4fe40c61d53943a2cfaeff1d8036c4a8c79da54c"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another", "shape": (2, 3), "role": Role.LORA_A},
        {"name": "a", "shape": (3, 2), "role": Role.LORA_A},
        {"name": "a", "shape": (2, 3), "role": Role.LORA_B},
    ],
)
def test_name_shape_and_role_each_change_the_fingerprint(other: dict[str, object]) -> None:
    one = AdapterLayout(tensors=(TensorSpec(name="a", shape=(2, 3), role=Role.LORA_A),))
    another = AdapterLayout(tensors=(TensorSpec(**other),))  # type: ignore[arg-type]
    assert one.fingerprint != another.fingerprint


def test_the_order_of_tensors_changes_the_fingerprint() -> None:
    layout = a_layout()
    assert AdapterLayout(tensors=layout.tensors[::-1]).fingerprint != layout.fingerprint


def test_joined_tensors_split_into_the_same_tensors() -> None:
    layout = a_layout()
    tensors = {
        tensor.name: np.arange(tensor.size, dtype=np.float32) + start
        for start, tensor in zip(layout.offsets, layout.tensors, strict=False)
    }
    vector = layout.join(dict(reversed(tensors.items())))
    assert vector.tolist() == list(range(10))
    for name, part in layout.split(vector).items():
        assert np.array_equal(part, tensors[name])


def test_split_gives_views_of_the_vector() -> None:
    layout = a_layout()
    vector = np.zeros(10, dtype=np.float32)
    layout.split(vector)["lora_B"][0] = 7
    assert vector[4] == 7


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_A": np.zeros(4), "lora_B": np.zeros(4)}, "missing .'head'"),
        (
            {n: np.zeros(4) for n in ("lora_A", "lora_B", "head", "bias")},
            "extra .'bias'",
        ),
        (
            {"lora_A": np.zeros((2, 2)), "lora_B": np.zeros(4), "head": np.zeros(2)},
            "'lora_A' has shape",
        ),
    ],
)
def test_joining_says_which_tensor_does_not_fit(
    tensors: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        a_layout().join(tensors)


def test_splitting_a_vector_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        a_layout().split(np.zeros(11, dtype=np.float32))


def test_the_coordinates_of_roles_ascend_and_match_their_size() -> None:
    layout = a_layout(a=4, b=3, head=2)
    assert layout.indices_of([Role.HEAD, Role.LORA_A]).tolist() == [0, 1, 2, 3, 7, 8]
    assert layout.size_of([Role.HEAD, Role.LORA_A]) == 6
    assert layout.indices_of([]).size == layout.size_of([]) == 0


@pytest.mark.parametrize(
    ("name", "shape"), [("", (1,)), ("a\nb", (1,)), ("a", (0,)), ("a", (-1,)), ("a", (1,) * 9)]
)
def test_a_tensor_without_name_or_coordinates_is_an_error(
    name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="tensor"):
        TensorSpec(name=name, shape=shape, role=Role.HEAD)


def test_the_dimension_may_reach_its_bound_and_not_pass_it() -> None:
    at = AdapterLayout(tensors=(TensorSpec(name="a", shape=(MAX_DIM,), role=Role.HEAD),))
    assert at.dim == MAX_DIM
    with pytest.raises(ValueError, match="more than"):
        AdapterLayout(tensors=(*at.tensors, TensorSpec(name="b", shape=(1,), role=Role.HEAD)))


def test_a_layout_travels_as_a_message_and_as_json() -> None:
    layout = a_layout()
    message = layout_pb2.AdapterLayout.FromString(layout.to_message().SerializeToString())
    assert AdapterLayout.from_message(message) == layout
    assert AdapterLayout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, Reason.FIELD_REQUIRED),
        ({"role": layout_pb2.TENSOR_ROLE_UNSPECIFIED}, Reason.FIELD_REQUIRED),
        ({"role": 99}, Reason.UNKNOWN_ENUM),
        ({"name": "lora_B"}, Reason.FIELD_RANGE),
        ({"name": "other"}, Reason.LAYOUT_MISMATCH),
    ],
)
def test_a_bad_tensor_in_a_message_is_refused(changes: dict[str, object], reason: Reason) -> None:
    assert refused(a_message(**changes)) is reason


@pytest.mark.parametrize("shape", [[0], [2**31], [2**63, 2**63], [1] * 9])
def test_a_bad_shape_in_a_message_is_refused(shape: list[int]) -> None:
    message = a_layout().to_message()
    message.tensors[0].shape[:] = shape
    assert refused(message) is Reason.FIELD_RANGE


def test_a_message_without_tensors_or_fingerprint_is_refused() -> None:
    assert refused(layout_pb2.AdapterLayout()) is Reason.FIELD_REQUIRED
    message = a_layout().to_message()
    message.ClearField("fingerprint")
    assert refused(message) is Reason.FIELD_REQUIRED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("lora_A", Reason.FIELD_RANGE),
        (7, Reason.FIELD_RANGE),
        ([], Reason.FIELD_REQUIRED),
        (["lora_A"], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": [1]}], Reason.FIELD_REQUIRED),
        ([{"name": "", "shape": [1], "role": "HEAD"}], Reason.FIELD_REQUIRED),
        ([{"name": 3, "shape": [1], "role": "HEAD"}], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": "1", "role": "HEAD"}], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": [1.5], "role": "HEAD"}], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": [True], "role": "HEAD"}], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": [0], "role": "HEAD"}], Reason.FIELD_RANGE),
        ([{"name": "a", "shape": [1], "role": "TAIL"}], Reason.UNKNOWN_ENUM),
        ([{"name": "a", "shape": [1], "role": ["HEAD"]}], Reason.UNKNOWN_ENUM),
    ],
)
def test_bad_json_is_refused(data: JsonValue, reason: Reason) -> None:
    with pytest.raises(Refusal) as refusal:
        AdapterLayout.from_json(data)
    assert refusal.value.reason is reason
