"""The ways of writing an update that tasks and devices agree on, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2, task_spec_pb2

__all__ = ["Compression", "Encoding", "IndexEncoding", "ValueEncoding"]

_FULL_BITS: Final = 8
_FEWEST_BITS: Final = 3


@unique
class IndexEncoding(IntEnum):
    """What a writer asks for; a segment without holes is written as DENSE by itself."""

    GAPS = sparse_update_pb2.INDEX_ENCODING_GAPS


@unique
class ValueEncoding(IntEnum):
    """Numbers as in the protocol."""

    FLOAT32 = sparse_update_pb2.VALUE_ENCODING_FLOAT32
    BFLOAT16 = sparse_update_pb2.VALUE_ENCODING_BFLOAT16
    INT8_POW2 = sparse_update_pb2.VALUE_ENCODING_INT8_POW2


@unique
class Compression(IntEnum):
    """Numbers as in the protocol; ZSTD is reserved there and not written."""

    NONE = sparse_update_pb2.COMPRESSION_NONE
    DEFLATE = sparse_update_pb2.COMPRESSION_DEFLATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One way of writing a vector: "plain", "float32", "bfloat16", or "int8" down to "int3".

    `bits` is how finely INT8_POW2 resolves a typical value, and 8 for every other. ValueError for
    a combination that has no name.
    """

    value: ValueEncoding
    bits: int = _FULL_BITS
    index: IndexEncoding = IndexEncoding.GAPS
    compression: Compression = Compression.DEFLATE

    def __post_init__(self) -> None:
        plain = self.compression is Compression.NONE
        if plain and self.value is not ValueEncoding.FLOAT32:
            raise ValueError(f"{self.value.name} is written with DEFLATE only")
        fewest = _FEWEST_BITS if self.value is ValueEncoding.INT8_POW2 else _FULL_BITS
        if not fewest <= self.bits <= _FULL_BITS:
            raise ValueError(f"{self.value.name} has {fewest} to 8 bits, not {self.bits}")

    @property
    def name(self) -> str:
        if self.compression is Compression.NONE:
            return "plain"
        if self.value is ValueEncoding.INT8_POW2:
            return f"int{self.bits}"
        return self.value.name.lower()

    @classmethod
    def parse(cls, name: str) -> Encoding:
        """Return the encoding of this name; ValueError lists the names there are."""
        found = _BY_NAME.get(name)
        if found is None:
            raise ValueError(f"no encoding is called {name!r}; there are {', '.join(_BY_NAME)}")
        return found

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name, from the most bytes to the fewest."""
        return tuple(_BY_NAME)

    @classmethod
    def choose(cls, accepted: Iterable[task_spec_pb2.UpdateEncoding]) -> Encoding:
        """Return the first that this version writes; the plain profile is always accepted."""
        for message in accepted:
            try:
                return cls.from_proto(message)
            except Refusal:
                # One from a later version; the next may do.
                continue
        return _BY_NAME["plain"]

    def to_proto(self) -> task_spec_pb2.UpdateEncoding:
        message = task_spec_pb2.UpdateEncoding(
            bits=self.bits if self.value is ValueEncoding.INT8_POW2 else 0
        )
        message.index_encoding = self.index.value
        message.value_encoding = self.value.value
        message.compression = self.compression.value
        return message

    @classmethod
    def from_proto(cls, message: task_spec_pb2.UpdateEncoding) -> Encoding:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM, and VALUE_FORMAT for what cannot be written."""
        for field, number, known in (
            ("index_encoding", message.index_encoding, sparse_update_pb2.IndexEncoding.values()),
            ("value_encoding", message.value_encoding, sparse_update_pb2.ValueEncoding.values()),
            ("compression", message.compression, sparse_update_pb2.Compression.values()),
        ):
            if number == 0:
                raise Refusal(Reason.FIELD_REQUIRED, f"set the encoding's {field}", field=field)
            if number not in known:
                raise Refusal(Reason.UNKNOWN_ENUM, f"{field} {number} is unknown", field=field)
        try:
            return cls(
                index=IndexEncoding(message.index_encoding),
                value=ValueEncoding(message.value_encoding),
                bits=message.bits or _FULL_BITS,
                compression=Compression(message.compression),
            )
        except ValueError as error:
            raise Refusal(
                Reason.VALUE_FORMAT, f"an encoding is not written here: {error}"
            ) from error


_BY_NAME: Final[Mapping[str, Encoding]] = MappingProxyType(
    {
        encoding.name: encoding
        for encoding in (
            Encoding(value=ValueEncoding.FLOAT32, compression=Compression.NONE),
            Encoding(value=ValueEncoding.FLOAT32),
            Encoding(value=ValueEncoding.BFLOAT16),
            *(
                Encoding(value=ValueEncoding.INT8_POW2, bits=bits)
                for bits in range(_FULL_BITS, _FEWEST_BITS - 1, -1)
            ),
        )
    }
)
