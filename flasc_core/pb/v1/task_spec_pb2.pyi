from flasc_core.pb.v1 import layout_pb2 as _layout_pb2
from flasc_core.pb.v1 import sparse_update_pb2 as _sparse_update_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Generator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GENERATOR_UNSPECIFIED: _ClassVar[Generator]
    GENERATOR_SPLITMIX64_UNIFORM: _ClassVar[Generator]
GENERATOR_UNSPECIFIED: Generator
GENERATOR_SPLITMIX64_UNIFORM: Generator

class BaseModel(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class TrainingPlan(_message.Message):
    __slots__ = ("local_epochs", "max_steps", "batch_size", "learning_rate", "momentum", "weight_decay")
    LOCAL_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    local_epochs: int
    max_steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    def __init__(self, local_epochs: _Optional[int] = ..., max_steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., weight_decay: _Optional[float] = ...) -> None: ...

class UpdateEncoding(_message.Message):
    __slots__ = ("index_encoding", "value_encoding", "compression", "bits")
    INDEX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    VALUE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    index_encoding: _sparse_update_pb2.IndexEncoding
    value_encoding: _sparse_update_pb2.ValueEncoding
    compression: _sparse_update_pb2.Compression
    bits: int
    def __init__(self, index_encoding: _Optional[_Union[_sparse_update_pb2.IndexEncoding, str]] = ..., value_encoding: _Optional[_Union[_sparse_update_pb2.ValueEncoding, str]] = ..., compression: _Optional[_Union[_sparse_update_pb2.Compression, str]] = ..., bits: _Optional[int] = ...) -> None: ...

class InitialAdapter(_message.Message):
    __slots__ = ("generator", "seed")
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    generator: Generator
    seed: int
    def __init__(self, generator: _Optional[_Union[Generator, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("task_name", "layout", "base_model", "training_plan", "peft_config_json", "accepted_encodings", "max_abs_value", "max_weight", "max_unary_payload_bytes", "initial_adapter")
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_PLAN_FIELD_NUMBER: _ClassVar[int]
    PEFT_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_ABS_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_UNARY_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    INITIAL_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    task_name: str
    layout: _layout_pb2.AdapterLayout
    base_model: BaseModel
    training_plan: TrainingPlan
    peft_config_json: str
    accepted_encodings: _containers.RepeatedCompositeFieldContainer[UpdateEncoding]
    max_abs_value: float
    max_weight: int
    max_unary_payload_bytes: int
    initial_adapter: InitialAdapter
    def __init__(self, task_name: _Optional[str] = ..., layout: _Optional[_Union[_layout_pb2.AdapterLayout, _Mapping]] = ..., base_model: _Optional[_Union[BaseModel, _Mapping]] = ..., training_plan: _Optional[_Union[TrainingPlan, _Mapping]] = ..., peft_config_json: _Optional[str] = ..., accepted_encodings: _Optional[_Iterable[_Union[UpdateEncoding, _Mapping]]] = ..., max_abs_value: _Optional[float] = ..., max_weight: _Optional[int] = ..., max_unary_payload_bytes: _Optional[int] = ..., initial_adapter: _Optional[_Union[InitialAdapter, _Mapping]] = ...) -> None: ...
