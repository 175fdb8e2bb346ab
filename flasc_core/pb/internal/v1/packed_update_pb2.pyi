from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PackedSegment(_message.Message):
    __slots__ = ("start", "length", "nnz", "index_encoding", "value_encoding", "gaps", "values", "index_compression", "gap_shift", "gap_high", "gap_low", "value_compression", "value_data", "block_size", "block_exponents")
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    NNZ_FIELD_NUMBER: _ClassVar[int]
    INDEX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    VALUE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INDEX_COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    GAP_SHIFT_FIELD_NUMBER: _ClassVar[int]
    GAP_HIGH_FIELD_NUMBER: _ClassVar[int]
    GAP_LOW_FIELD_NUMBER: _ClassVar[int]
    VALUE_COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_DATA_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_EXPONENTS_FIELD_NUMBER: _ClassVar[int]
    start: int
    length: int
    nnz: int
    index_encoding: int
    value_encoding: int
    gaps: _containers.RepeatedScalarFieldContainer[bytes]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    index_compression: int
    gap_shift: int
    gap_high: bytes
    gap_low: bytes
    value_compression: int
    value_data: bytes
    block_size: int
    block_exponents: bytes
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ..., nnz: _Optional[int] = ..., index_encoding: _Optional[int] = ..., value_encoding: _Optional[int] = ..., gaps: _Optional[_Iterable[bytes]] = ..., values: _Optional[_Iterable[bytes]] = ..., index_compression: _Optional[int] = ..., gap_shift: _Optional[int] = ..., gap_high: _Optional[bytes] = ..., gap_low: _Optional[bytes] = ..., value_compression: _Optional[int] = ..., value_data: _Optional[bytes] = ..., block_size: _Optional[int] = ..., block_exponents: _Optional[bytes] = ...) -> None: ...

class PackedUpdate(_message.Message):
    __slots__ = ("dim", "segments", "crc32")
    DIM_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    dim: int
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    crc32: int
    def __init__(self, dim: _Optional[int] = ..., segments: _Optional[_Iterable[bytes]] = ..., crc32: _Optional[int] = ...) -> None: ...
