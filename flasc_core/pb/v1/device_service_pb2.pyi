from flasc_core.pb.v1 import layout_pb2 as _layout_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_TRAIN: _ClassVar[Purpose]
    PURPOSE_EVALUATE: _ClassVar[Purpose]

class WeightKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_KIND_UNSPECIFIED: _ClassVar[WeightKind]
    WEIGHT_KIND_EXAMPLES: _ClassVar[WeightKind]
    WEIGHT_KIND_PRODUCT_NORM: _ClassVar[WeightKind]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_GAVE_UP: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_EVALUATED: _ClassVar[Outcome]
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_TRAIN: Purpose
PURPOSE_EVALUATE: Purpose
WEIGHT_KIND_UNSPECIFIED: WeightKind
WEIGHT_KIND_EXAMPLES: WeightKind
WEIGHT_KIND_PRODUCT_NORM: WeightKind
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_GAVE_UP: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_EVALUATED: Outcome

class CheckInRequest(_message.Message):
    __slots__ = ("task_name", "known_task_sha256", "layout_fingerprint", "base_model_sha256", "client_version")
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    KNOWN_TASK_SHA256_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    task_name: str
    known_task_sha256: bytes
    layout_fingerprint: bytes
    base_model_sha256: bytes
    client_version: str
    def __init__(self, task_name: _Optional[str] = ..., known_task_sha256: _Optional[bytes] = ..., layout_fingerprint: _Optional[bytes] = ..., base_model_sha256: _Optional[bytes] = ..., client_version: _Optional[str] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("assignment", "retry_window", "finished")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    RETRY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    retry_window: RetryWindow
    finished: Finished
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., retry_window: _Optional[_Union[RetryWindow, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class RetryWindow(_message.Message):
    __slots__ = ("delay_min", "delay_max")
    DELAY_MIN_FIELD_NUMBER: _ClassVar[int]
    DELAY_MAX_FIELD_NUMBER: _ClassVar[int]
    delay_min: _duration_pb2.Duration
    delay_max: _duration_pb2.Duration
    def __init__(self, delay_min: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., delay_max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("final_version",)
    FINAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    final_version: int
    def __init__(self, final_version: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("assignment_id", "round_id", "round_number", "task_sha256", "task_spec", "download", "upload_rule", "training_seed", "expires_at", "purpose", "train_rule", "weight_rule")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    TASK_SHA256_FIELD_NUMBER: _ClassVar[int]
    TASK_SPEC_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_RULE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SEED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_RULE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_RULE_FIELD_NUMBER: _ClassVar[int]
    assignment_id: bytes
    round_id: bytes
    round_number: int
    task_sha256: bytes
    task_spec: bytes
    download: Download
    upload_rule: UploadRule
    training_seed: int
    expires_at: _timestamp_pb2.Timestamp
    purpose: Purpose
    train_rule: TrainRule
    weight_rule: WeightRule
    def __init__(self, assignment_id: _Optional[bytes] = ..., round_id: _Optional[bytes] = ..., round_number: _Optional[int] = ..., task_sha256: _Optional[bytes] = ..., task_spec: _Optional[bytes] = ..., download: _Optional[_Union[Download, _Mapping]] = ..., upload_rule: _Optional[_Union[UploadRule, _Mapping]] = ..., training_seed: _Optional[int] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., train_rule: _Optional[_Union[TrainRule, _Mapping]] = ..., weight_rule: _Optional[_Union[WeightRule, _Mapping]] = ...) -> None: ...

class TrainRule(_message.Message):
    __slots__ = ("frozen_roles", "downloaded_only", "rank_penalty")
    FROZEN_ROLES_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADED_ONLY_FIELD_NUMBER: _ClassVar[int]
    RANK_PENALTY_FIELD_NUMBER: _ClassVar[int]
    frozen_roles: _containers.RepeatedScalarFieldContainer[_layout_pb2.TensorRole]
    downloaded_only: bool
    rank_penalty: RankPenalty
    def __init__(self, frozen_roles: _Optional[_Iterable[_Union[_layout_pb2.TensorRole, str]]] = ..., downloaded_only: bool = ..., rank_penalty: _Optional[_Union[RankPenalty, _Mapping]] = ...) -> None: ...

class RankPenalty(_message.Message):
    __slots__ = ("from_rank", "factor")
    FROM_RANK_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    from_rank: int
    factor: float
    def __init__(self, from_rank: _Optional[int] = ..., factor: _Optional[float] = ...) -> None: ...

class WeightRule(_message.Message):
    __slots__ = ("kind", "unit")
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    kind: WeightKind
    unit: float
    def __init__(self, kind: _Optional[_Union[WeightKind, str]] = ..., unit: _Optional[float] = ...) -> None: ...

class Download(_message.Message):
    __slots__ = ("adapter_version", "sha256", "size_bytes")
    ADAPTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    adapter_version: int
    sha256: bytes
    size_bytes: int
    def __init__(self, adapter_version: _Optional[int] = ..., sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class UploadRule(_message.Message):
    __slots__ = ("groups", "clip_norm")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[KeepLargest]
    clip_norm: float
    def __init__(self, groups: _Optional[_Iterable[_Union[KeepLargest, _Mapping]]] = ..., clip_norm: _Optional[float] = ...) -> None: ...

class KeepLargest(_message.Message):
    __slots__ = ("roles", "count")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedScalarFieldContainer[_layout_pb2.TensorRole]
    count: int
    def __init__(self, roles: _Optional[_Iterable[_Union[_layout_pb2.TensorRole, str]]] = ..., count: _Optional[int] = ...) -> None: ...

class DownloadAdapterRequest(_message.Message):
    __slots__ = ("assignment_id", "offset")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    assignment_id: bytes
    offset: int
    def __init__(self, assignment_id: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadAdapterResponse(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class TrainingMetrics(_message.Message):
    __slots__ = ("examples", "steps", "loss_mean", "seconds")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_MEAN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    examples: int
    steps: int
    loss_mean: float
    seconds: float
    def __init__(self, examples: _Optional[int] = ..., steps: _Optional[int] = ..., loss_mean: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("correct", "total", "loss_sum")
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUM_FIELD_NUMBER: _ClassVar[int]
    correct: int
    total: int
    loss_sum: float
    def __init__(self, correct: _Optional[int] = ..., total: _Optional[int] = ..., loss_sum: _Optional[float] = ...) -> None: ...

class UpdateHeader(_message.Message):
    __slots__ = ("assignment_id", "payload_sha256", "payload_size_bytes", "download_sha256", "weight", "training_metrics", "evaluation", "steps_down")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_METRICS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_DOWN_FIELD_NUMBER: _ClassVar[int]
    assignment_id: bytes
    payload_sha256: bytes
    payload_size_bytes: int
    download_sha256: bytes
    weight: int
    training_metrics: TrainingMetrics
    evaluation: Evaluation
    steps_down: bool
    def __init__(self, assignment_id: _Optional[bytes] = ..., payload_sha256: _Optional[bytes] = ..., payload_size_bytes: _Optional[int] = ..., download_sha256: _Optional[bytes] = ..., weight: _Optional[int] = ..., training_metrics: _Optional[_Union[TrainingMetrics, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., steps_down: bool = ...) -> None: ...

class SubmitUpdateRequest(_message.Message):
    __slots__ = ("header", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: UpdateHeader
    payload: bytes
    def __init__(self, header: _Optional[_Union[UpdateHeader, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class SubmitUpdateResponse(_message.Message):
    __slots__ = ("receipt", "retry_window")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RETRY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    retry_window: RetryWindow
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ..., retry_window: _Optional[_Union[RetryWindow, _Mapping]] = ...) -> None: ...

class StreamUpdateRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UpdateHeader
    chunk: UpdateChunk
    def __init__(self, header: _Optional[_Union[UpdateHeader, _Mapping]] = ..., chunk: _Optional[_Union[UpdateChunk, _Mapping]] = ...) -> None: ...

class UpdateChunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class StreamUpdateResponse(_message.Message):
    __slots__ = ("receipt", "retry_window")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RETRY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    retry_window: RetryWindow
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ..., retry_window: _Optional[_Union[RetryWindow, _Mapping]] = ...) -> None: ...

class QueryUploadRequest(_message.Message):
    __slots__ = ("assignment_id", "payload_sha256")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    assignment_id: bytes
    payload_sha256: bytes
    def __init__(self, assignment_id: _Optional[bytes] = ..., payload_sha256: _Optional[bytes] = ...) -> None: ...

class QueryUploadResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("update_id", "payload_sha256", "ledger_sequence", "accepted_at", "duplicate")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    update_id: bytes
    payload_sha256: bytes
    ledger_sequence: int
    accepted_at: _timestamp_pb2.Timestamp
    duplicate: bool
    def __init__(self, update_id: _Optional[bytes] = ..., payload_sha256: _Optional[bytes] = ..., ledger_sequence: _Optional[int] = ..., accepted_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., duplicate: bool = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("assignment_id", "outcome", "detail", "evaluation")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    assignment_id: bytes
    outcome: Outcome
    detail: str
    evaluation: Evaluation
    def __init__(self, assignment_id: _Optional[bytes] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., detail: _Optional[str] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("retry_window",)
    RETRY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    retry_window: RetryWindow
    def __init__(self, retry_window: _Optional[_Union[RetryWindow, _Mapping]] = ...) -> None: ...
