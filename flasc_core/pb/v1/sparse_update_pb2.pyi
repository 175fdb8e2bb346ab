from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IndexEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_ENCODING_UNSPECIFIED: _ClassVar[IndexEncoding]
    INDEX_ENCODING_DENSE: _ClassVar[IndexEncoding]
    INDEX_ENCODING_GAPS: _ClassVar[IndexEncoding]

class ValueEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VALUE_ENCODING_UNSPECIFIED: _ClassVar[ValueEncoding]
    VALUE_ENCODING_FLOAT32: _ClassVar[ValueEncoding]
    VALUE_ENCODING_BFLOAT16: _ClassVar[ValueEncoding]
    VALUE_ENCODING_INT8_POW2: _ClassVar[ValueEncoding]

class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPRESSION_UNSPECIFIED: _ClassVar[Compression]
    COMPRESSION_NONE: _ClassVar[Compression]
    COMPRESSION_DEFLATE: _ClassVar[Compression]
    COMPRESSION_ZSTD: _ClassVar[Compression]
INDEX_ENCODING_UNSPECIFIED: IndexEncoding
INDEX_ENCODING_DENSE: IndexEncoding
INDEX_ENCODING_GAPS: IndexEncoding
VALUE_ENCODING_UNSPECIFIED: ValueEncoding
VALUE_ENCODING_FLOAT32: ValueEncoding
VALUE_ENCODING_BFLOAT16: ValueEncoding
VALUE_ENCODING_INT8_POW2: ValueEncoding
COMPRESSION_UNSPECIFIED: Compression
COMPRESSION_NONE: Compression
COMPRESSION_DEFLATE: Compression
COMPRESSION_ZSTD: Compression

class SparseSegment(_message.Message):
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
    index_encoding: IndexEncoding
    value_encoding: ValueEncoding
    gaps: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    index_compression: Compression
    gap_shift: int
    gap_high: bytes
    gap_low: bytes
    value_compression: Compression
    value_data: bytes
    block_size: int
    block_exponents: bytes
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ..., nnz: _Optional[int] = ..., index_encoding: _Optional[_Union[IndexEncoding, str]] = ..., value_encoding: _Optional[_Union[ValueEncoding, str]] = ..., gaps: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., index_compression: _Optional[_Union[Compression, str]] = ..., gap_shift: _Optional[int] = ..., gap_high: _Optional[bytes] = ..., gap_low: _Optional[bytes] = ..., value_compression: _Optional[_Union[Compression, str]] = ..., value_data: _Optional[bytes] = ..., block_size: _Optional[int] = ..., block_exponents: _Optional[bytes] = ...) -> None: ...

class SparseUpdate(_message.Message):
    __slots__ = ("dim", "segments", "crc32")
    DIM_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    dim: int
    segments: _containers.RepeatedCompositeFieldContainer[SparseSegment]
    crc32: int
    def __init__(self, dim: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[SparseSegment, _Mapping]]] = ..., crc32: _Optional[int] = ...) -> None: ...
