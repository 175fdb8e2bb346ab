"""The device SDK: take part in federated fine-tuning with a few lines and a trainer.

`from client_sdk.peft_trainer import PeftTrainer` brings the trainer for PEFT models; nothing else
here imports torch.
"""

from client_sdk import events
from client_sdk._errors import (
    AssignmentOver,
    BaseModelMismatch,
    ConnectionFailed,
    LayoutMismatch,
    ModelMismatch,
    NotAuthorized,
    ParticipantError,
    ProtocolError,
    ServiceBusy,
    ServiceError,
    StateDamaged,
    StateFolderError,
    StateFolderInUse,
    TaskUnknown,
    TrainingFailed,
    TransferDamaged,
    UpdateRejected,
)
from client_sdk._retry import CALL_RETRIES, SESSION_RETRIES, RetryPolicy
from client_sdk._rpc import CALL_LIMITS, CallLimits
from client_sdk.events import Event
from client_sdk.participant import Participant
from client_sdk.results import StepOutcome, StepResult, Summary
from client_sdk.trainer import Evaluation, Trainer, TrainingPlan, TrainingResult

__all__ = [
    "CALL_LIMITS",
    "CALL_RETRIES",
    "SESSION_RETRIES",
    "AssignmentOver",
    "BaseModelMismatch",
    "CallLimits",
    "ConnectionFailed",
    "Evaluation",
    "Event",
    "LayoutMismatch",
    "ModelMismatch",
    "NotAuthorized",
    "Participant",
    "ParticipantError",
    "ProtocolError",
    "RetryPolicy",
    "ServiceBusy",
    "ServiceError",
    "StateDamaged",
    "StateFolderError",
    "StateFolderInUse",
    "StepOutcome",
    "StepResult",
    "Summary",
    "TaskUnknown",
    "Trainer",
    "TrainingFailed",
    "TrainingPlan",
    "TrainingResult",
    "TransferDamaged",
    "UpdateRejected",
    "events",
]
