"""Names, messages and encodings are three ways of saying the same."""

from __future__ import annotations

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.wire import PLAIN, Compression, Encoding, ValueEncoding, profile_for


def a_message(**changes: int) -> task_spec_pb2.UpdateEncoding:
    message = Encoding.parse("int6").to_proto()
    for field, number in changes.items():
        setattr(message, field, number)
    return message


def test_there_are_nine_names_from_the_most_bytes_to_the_fewest() -> None:
    assert Encoding.names() == (
        "plain", "float32", "bfloat16", "int8", "int7", "int6", "int5", "int4", "int3",
    )  # fmt: skip


@pytest.mark.parametrize("name", Encoding.names())
def test_a_name_survives_parsing_and_the_protocol(name: str) -> None:
    encoding = Encoding.parse(name)
    assert encoding.name == name
    assert Encoding.from_proto(encoding.to_proto()) == encoding
    assert profile_for(encoding).name == name


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"'int9'.*plain, float32, .*int3"):
        Encoding.parse("int9")


def test_the_plain_profile_is_the_one_without_compression() -> None:
    plain = Encoding.parse("plain")
    assert (plain.value, plain.compression) == (ValueEncoding.FLOAT32, Compression.NONE)
    assert profile_for(plain) is PLAIN


def test_only_integers_name_their_bits_in_the_protocol() -> None:
    bits = {name: Encoding.parse(name).to_proto().bits for name in Encoding.names()}
    assert bits == {
        "plain": 0, "float32": 0, "bfloat16": 0,
        "int8": 8, "int7": 7, "int6": 6, "int5": 5, "int4": 4, "int3": 3,
    }  # fmt: skip


def test_integers_without_bits_have_eight() -> None:
    assert Encoding.from_proto(a_message(bits=0)).name == "int8"


def test_a_device_writes_the_first_that_it_knows() -> None:
    unknown = a_message(value_encoding=99)
    assert Encoding.choose([unknown, Encoding.parse("int4").to_proto(), a_message()]).name == "int4"
    assert Encoding.choose([unknown]).name == Encoding.choose([]).name == "plain"


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (ValueEncoding.INT8_POW2, 2),
        (ValueEncoding.INT8_POW2, 9),
        (ValueEncoding.FLOAT32, 7),
        (ValueEncoding.BFLOAT16, 9),
    ],
)
def test_bits_that_nothing_has_are_an_error(value: ValueEncoding, bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        Encoding(value=value, bits=bits)


def test_only_float32_is_written_without_compression() -> None:
    with pytest.raises(ValueError, match="DEFLATE"):
        Encoding(value=ValueEncoding.BFLOAT16, compression=Compression.NONE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"index_encoding": 0}, Reason.FIELD_REQUIRED),
        ({"value_encoding": 0}, Reason.FIELD_REQUIRED),
        ({"compression": 0}, Reason.FIELD_REQUIRED),
        ({"index_encoding": 99}, Reason.UNKNOWN_ENUM),
        ({"value_encoding": 99}, Reason.UNKNOWN_ENUM),
        ({"compression": 99}, Reason.UNKNOWN_ENUM),
        ({"index_encoding": pb.INDEX_ENCODING_DENSE}, Reason.VALUE_FORMAT),
        ({"compression": pb.COMPRESSION_ZSTD}, Reason.VALUE_FORMAT),
        ({"compression": pb.COMPRESSION_NONE}, Reason.VALUE_FORMAT),
        ({"bits": 2}, Reason.VALUE_FORMAT),
        ({"bits": 9}, Reason.VALUE_FORMAT),
        ({"value_encoding": pb.VALUE_ENCODING_FLOAT32}, Reason.VALUE_FORMAT),
    ],
)
def test_a_message_that_names_no_encoding_is_refused(
    changes: dict[str, int], reason: Reason
) -> None:
    with pytest.raises(Refusal) as refusal:
        Encoding.from_proto(a_message(**changes))
    assert refusal.value.reason is reason
