"""What the documentation tells developers to copy runs as it stands."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from aggregator_service.domain.tasks import BaseModel, Ending
from aggregator_service.store.base import Store
from aggregator_service.store.folder_blobs import FolderBlobs
from client_sdk.peft_trainer import adapter_layout, base_model_sha256
from flasc_sim.blueprint import draw_blueprint
from tests.builders import a_policy
from tests.support.live import LiveService, live_service
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tiny_model import Examples, a_base_model, a_peft_model

EXAMPLES = Path(__file__).parents[3] / "examples"
AT_ONCE = a_policy(goal=1, quorum=1, retry_min=timedelta(0), retry_max=timedelta(milliseconds=10))


@contextmanager
def driven(service: LiveService) -> Iterator[None]:
    """Rounds advance by themselves, as in production."""
    stop = threading.Event()
    driver = threading.Thread(target=service.driver.run, args=(stop,))
    driver.start()
    try:
        yield
    finally:
        stop.set()
        driver.join(PATIENCE_SECONDS)


def test_the_ten_lines_take_part_in_a_task(
    memory_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    model = a_peft_model()
    with live_service(memory_store, FolderBlobs(tmp_path / "blobs")) as service:
        service.create_task(
            "mail",
            layout=adapter_layout(model),
            base_model=BaseModel(name="tiny", sha256=base_model_sha256(model)),
            policy=AT_ONCE,
            ending=Ending(rounds=2),
        )
        # What names the service, and TLS, are all that a test must change.
        known = code.replace("flasc.example.com:443", f"localhost:{service.port}")
        local = known.replace("fld_...", service.device().credential)
        insecure = local.replace("trainer=trainer", "trainer=trainer, insecure=True")
        given: dict[str, Any] = {
            "base_model": a_base_model(),
            "own_examples": Examples(),
            "own_held_out_examples": Examples(seed=9),
        }
        with driven(service):
            exec(compile(insecure, "README.md", "exec"), given)

    summary = given["summary"]
    assert summary.finished
    assert summary.updates_accepted == 2
    assert summary.evaluations_reported == 1


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny BERT with a vocabulary of a few words, as a folder that transformers load."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "meeting", "dinner", "sale", "at", "now"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    torch.manual_seed(1)
    transformers.BertModel(config).save_pretrained(folder)
    fast = transformers.BertTokenizerFast  # type: ignore[attr-defined]
    fast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    path = tmp_path / "mail.csv"
    kinds = [("meeting at now", "work"), ("dinner now", "family"), ("sale at", "ads")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(kinds * 10)
    return path


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "train_text_classifier", EXAMPLES / "train_text_classifier.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_script_trains_in_a_task_made_by_the_operators_command(
    memory_store: Store,
    tmp_path: Path,
    encoder: Path,
    mail: Path,
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blueprint = draw_blueprint(str(encoder), 3, rank=4, alpha=4, dtype="float32")
    with live_service(memory_store, FolderBlobs(tmp_path / "blobs")) as service:
        service.create_task(
            "mail-folders",
            layout=blueprint.layout,
            base_model=BaseModel(
                name=blueprint.base_model_name, sha256=blueprint.base_model_sha256
            ),
            policy=AT_ONCE,
            ending=Ending(rounds=1),
        )
        monkeypatch.setenv("FLASC_CREDENTIAL", service.device().credential)
        options = ["--server", f"localhost:{service.port}", "--insecure"]
        options += ["--task", "mail-folders", "--model", str(encoder), "--rank", "4"]
        options += ["--labels", "work,family,ads", "--data", str(mail)]
        options += ["--state", str(tmp_path / "state"), "--device", "cpu"]
        with driven(service):
            assert script.main(options) == 0
            assert script.main([*options, "--rank", "2", "--state", str(tmp_path / "b")]) == 1

    told = capsys.readouterr()
    assert "the task is finished" in told.out
    assert "1 updates" in told.out
    assert "LayoutMismatch" in told.err
