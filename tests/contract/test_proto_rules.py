"""The wire contract keeps what the last release promised: names, numbers, types, comments."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import (
    device_service_pb2,
    layout_pb2,
    sparse_update_pb2,
    status_pb2,
    task_spec_pb2,
)
from tests.support.patience import PATIENCE_SECONDS

ROOT: Final = Path(__file__).resolve().parents[2]
BASELINE: Final = ROOT / "proto" / "baseline.binpb"
STUBS: Final = (
    device_service_pb2,
    layout_pb2,
    sparse_update_pb2,
    status_pb2,
    task_spec_pb2,
    packed_update_pb2,
)
OURS: Final = "flasc/"

type_name = descriptor_pb2.FieldDescriptorProto.Type.Name


def numbers_of(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, set[str]]:
    """Every message with its fields, every enum with its values and every service with its rpcs."""
    found: dict[str, set[str]] = {}
    for file in files:
        for enum in file.enum_type:
            found[f"{file.package}.{enum.name}"] = {f"{v.number} {v.name}" for v in enum.value}
        for service in file.service:
            found[f"{file.package}.{service.name}"] = {
                f"{m.name} {m.input_type} {m.output_type} {m.client_streaming} {m.server_streaming}"
                for m in service.method
            }
        for message in file.message_type:
            found |= dict(fields_of(f".{file.package}", message))
    return found


def fields_of(
    scope: str, message: descriptor_pb2.DescriptorProto
) -> Iterator[tuple[str, set[str]]]:
    name = f"{scope}.{message.name}"
    yield (
        name.removeprefix("."),
        {
            f"{f.number} {f.name} {type_name(f.type)} {f.type_name} {f.label} {f.proto3_optional}"
            for f in message.field
        },
    )
    for nested in message.nested_type:
        yield from fields_of(name, nested)


def current() -> dict[str, set[str]]:
    files = []
    for stub in STUBS:
        file = descriptor_pb2.FileDescriptorProto()
        stub.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return numbers_of(files)


def promised() -> dict[str, set[str]]:
    # A buf image is a FileDescriptorSet with fields of its own, which are skipped.
    image = descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes())
    return numbers_of([file for file in image.file if file.name.startswith(OURS)])


def test_every_name_number_and_type_of_the_last_release_is_still_there() -> None:
    now = current()

    missing = {
        name: parts - now.get(name, set())
        for name, parts in promised().items()
        if name not in now or parts - now[name]
    }

    assert missing == {}


def test_the_baseline_holds_the_whole_contract_of_a_release() -> None:
    names = promised()

    assert "flasc.v1.DeviceService" in names
    assert len(names) >= 25


def test_every_enum_starts_with_a_value_that_means_nothing() -> None:
    pool = descriptor_pool.Default()
    for stub in STUBS:
        for name in pool.FindFileByName(stub.DESCRIPTOR.name).enum_types_by_name.values():
            first = name.values_by_number[0]
            assert first.name.endswith("_UNSPECIFIED"), name.full_name


@pytest.fixture(scope="module")
def buf() -> str:
    tools = ROOT / ".venv-tools" / "node_modules" / ".bin"
    found = shutil.which("buf", path=os.pathsep.join([str(tools), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("buf is not installed; deploy/install-test-tools.sh brings it")
    return found


def run_buf(buf: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [buf, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.buf
def test_buf_finds_nothing_to_say_about_style(buf: str) -> None:
    found = run_buf(buf, "lint")

    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@pytest.mark.buf
def test_buf_finds_nothing_that_breaks_the_last_release(buf: str) -> None:
    found = run_buf(buf, "breaking", "--against", str(BASELINE))

    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@pytest.mark.buf
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("double max_abs_value = 7;", "float max_abs_value = 7;"),
        ("uint32 max_weight = 8;", "uint32 max_weight = 80;"),
        ("uint32 max_weight = 8;", "uint32 heaviest = 8;"),
        ("uint32 max_weight = 8;", ""),
    ],
    ids=["retyped", "renumbered", "renamed", "removed"],
)
def test_buf_refuses_a_field_that_was(buf: str, tmp_path: Path, old: str, new: str) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    spec = tmp_path / "proto" / "flasc" / "v1" / "task_spec.proto"
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new))

    found = run_buf(buf, "breaking", "--against", str(BASELINE), cwd=tmp_path)

    assert found.returncode == 100
    assert "task_spec.proto" in found.stdout
