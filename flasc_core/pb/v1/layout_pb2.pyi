from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENSOR_ROLE_UNSPECIFIED: _ClassVar[TensorRole]
    TENSOR_ROLE_LORA_A: _ClassVar[TensorRole]
    TENSOR_ROLE_LORA_B: _ClassVar[TensorRole]
    TENSOR_ROLE_HEAD: _ClassVar[TensorRole]
TENSOR_ROLE_UNSPECIFIED: TensorRole
TENSOR_ROLE_LORA_A: TensorRole
TENSOR_ROLE_LORA_B: TensorRole
TENSOR_ROLE_HEAD: TensorRole

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "role")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    role: TensorRole
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., role: _Optional[_Union[TensorRole, str]] = ...) -> None: ...

class AdapterLayout(_message.Message):
    __slots__ = ("tensors", "fingerprint")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    fingerprint: bytes
    def __init__(self, tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...
