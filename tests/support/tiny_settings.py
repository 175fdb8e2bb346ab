"""A settings file as operators write it, for an untrained model and a corpus of a few rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.tiny_encoders import GPT2, save_encoder

__all__ = ["a_settings_file"]

_SHARED = """
[workload]
name = "newsgroups"
model = "{model}"
dtype = "float32"
tokens = 4
frozen_layers = {frozen_layers}

[partition]
name = "uniform"
clients = 3

[training]
learning_rate = 0.1

[optimizer]
name = "adamw"
learning_rate = 0.01

[policy]
goal = 2

[ending]
rounds = {rounds}
"""


def a_settings_file(file: Path, tables: str, *, rounds: int, frozen_layers: int = 2) -> Path:
    """Write what all runs need and the other `tables`; beside it a model and `corpus.parquet`.

    The model has three layers.
    """
    model, corpus = file.with_name("gpt2"), file.with_name("corpus.parquet")
    if not corpus.exists():
        save_encoder(GPT2, model)
        columns = {
            "text": ["1 2 3", "4 5 6 7 8", "9", "2 4 6"] * 8,
            "label": [row % 2 for row in range(32)],
            "split": ["train"] * 24 + ["test"] * 8,
        }
        pq.write_table(pa.table(columns), corpus)
    shared = _SHARED.format(model=model, frozen_layers=frozen_layers, rounds=rounds)
    file.write_text(tables + shared)
    return file
