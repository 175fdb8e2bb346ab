"""Adapter versions over REST, as lists and as files."""

from __future__ import annotations

import io
import zipfile
from hashlib import sha256

import numpy as np
import pytest
from safetensors.numpy import load

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.domain.downloads import Masters, select_download
from flasc_core.methods import Flasc
from tests.builders import a_config
from tests.support.history import History, a_history
from tests.support.operator import Operator

TENSORS = "/v1/tasks/debian-sections/adapters/{}/adapter.safetensors"
FOLDER = "/v1/tasks/debian-sections/adapters/{}/peft.zip"


@pytest.fixture
def history(operator: Operator) -> History:
    """Of a task whose densities fall, so that it matters which round's mask a version gets."""
    method = Flasc(download_density=0.9, upload_density=0.25, decay=0.8)
    return a_history(operator.store, operator.blobs, config=a_config(method=method))


def test_versions_come_in_pages_newest_first(operator: Operator, history: History) -> None:
    path = f"/v1/tasks/{history.task.id}/adapters"

    first = operator.get(f"{path}?limit=2").json()
    second = operator.get(f"{path}?limit=2&cursor={first['next_cursor']}").json()

    assert [one["version"] for one in first["items"] + second["items"]] == [3, 2, 1, 0]
    assert second["next_cursor"] is None
    initial = second["items"][1]
    assert (initial["round_id"], initial["updates_averaged"]) == (None, 0)
    assert (initial["dimension"], initial["mask_nnz"]) == (24, 21)
    # The third round was aborted, so the fourth published version 3.
    assert first["items"][0]["round_id"] == str(history.rounds[3].id)


@pytest.mark.parametrize(("version", "number"), [("0", 0), ("2", 2), ("latest", 3)])
def test_a_version_is_downloaded_as_devices_run_it_and_as_the_server_keeps_it(
    operator: Operator, history: History, version: str, number: int
) -> None:
    config = history.task.config
    adapter = operator.store.read("get", lambda tx: tx.adapters.get(history.task.id, number))
    assert adapter is not None
    master = load_weights(operator.blobs, adapter)
    masked = select_download(config, Masters(weights=master, plan=config.plan(number))).to_dense()

    by_default = operator.get(TENSORS.format(version))
    kept = operator.get(TENSORS.format(version) + "?weights=master")

    assert np.array_equal(config.layout.join(load(by_default.content)), masked)
    assert np.array_equal(config.layout.join(load(kept.content)), master)
    assert np.count_nonzero(masked) == adapter.mask_nnz < np.count_nonzero(master)
    explicit = operator.get(TENSORS.format(version) + "?weights=masked")
    assert explicit.content == by_default.content


def test_a_folder_holds_the_same_tensors_as_the_single_file(
    operator: Operator, history: History
) -> None:
    answer = operator.get(FOLDER.format("latest"))

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert files["adapter_model.safetensors"] == operator.get(TENSORS.format("latest")).content
    assert files["adapter_config.json"].decode() == history.task.config.peft_config_json
    disposition = answer.headers["Content-Disposition"]
    assert disposition == 'attachment; filename="debian-sections-v3-masked.zip"'


@pytest.mark.parametrize("path", [TENSORS, FOLDER])
def test_a_file_that_is_known_already_is_not_sent_again(
    operator: Operator, history: History, path: str
) -> None:
    answer = operator.get(path.format("latest"))
    etag = answer.headers["ETag"]

    assert etag == f'"{sha256(answer.content).hexdigest()}"'
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = operator.get(path.format("latest"), headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == etag
    for unknown in ('"other"', etag.strip('"')):
        again = operator.get(path.format("latest"), headers={"If-None-Match": unknown})
        assert again.status_code == 200
    other = operator.get(path.format("latest") + "?weights=master").headers["ETag"]
    assert other != etag


@pytest.mark.parametrize("path", [TENSORS, FOLDER])
def test_an_unknown_version_is_not_found(operator: Operator, history: History, path: str) -> None:
    answer = operator.get(path.format(4))

    assert (answer.status_code, answer.json()["reason"]) == (404, "ADAPTER_UNKNOWN")


@pytest.mark.parametrize("version", ["-1", "newest", "1.5", str(2**31)])
def test_a_version_that_is_no_version_is_refused(
    operator: Operator, history: History, version: str
) -> None:
    answer = operator.get(TENSORS.format(version))

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")


def test_weights_of_another_kind_are_refused(operator: Operator, history: History) -> None:
    answer = operator.get(TENSORS.format(0) + "?weights=all")

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")
