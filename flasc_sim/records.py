"""What a simulation tells of itself: one record per round and per evaluation, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from flasc_core.layout import Role
from flasc_sim.federation import TierReport

__all__ = ["EvaluationRecord", "RoundRecord", "read_records", "write_records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """A round's devices of one tier, "" for none, together; rounds count from 1.

    Bytes are of payloads, values what was sent of LoRA's A and B and of the head; `loss` is per
    example.
    """

    round: int
    tier: str
    devices: int
    examples: int
    loss: float
    payload_bytes_down: int
    payload_bytes_up: int
    values_down_lora_a: int
    values_down_lora_b: int
    values_down_head: int
    values_up_lora_a: int
    values_up_lora_b: int
    values_up_head: int

    @classmethod
    def of(cls, number: int, tier: str, report: TierReport) -> RoundRecord:
        down, up = report.values_down, report.values_up
        return cls(
            round=number,
            tier=tier,
            devices=report.devices,
            examples=report.examples,
            loss=report.loss_sum / report.examples,
            payload_bytes_down=report.payload_bytes_down,
            payload_bytes_up=report.payload_bytes_up,
            values_down_lora_a=down[Role.LORA_A],
            values_down_lora_b=down[Role.LORA_B],
            values_down_head=down[Role.HEAD],
            values_up_lora_a=up[Role.LORA_A],
            values_up_lora_b=up[Role.LORA_B],
            values_up_head=up[Role.HEAD],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """The adapter after `round`, as a tier's devices get it; `loss` is per example."""

    round: int
    tier: str
    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


_Record = TypeVar("_Record", RoundRecord, EvaluationRecord)
_COLUMNS: Final = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}


def write_records(file: Path, kind: type[_Record], records: Sequence[_Record]) -> None:
    """Write a parquet file with a column per field; equal records give equal bytes."""
    schema = pa.schema([(field.name, _COLUMNS[str(field.type)]) for field in fields(kind)])
    pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema), file)


def read_records(file: Path, kind: type[_Record]) -> list[_Record]:
    return [kind(**row) for row in pq.read_table(file).to_pylist()]
