"""The protocol's files say what each call does, and number things as they should."""

from __future__ import annotations

import re

import pytest
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor

from flasc_core.pb.v1 import (
    device_service_pb2,
    layout_pb2,
    sparse_update_pb2,
    status_pb2,
    task_spec_pb2,
)
from tests.architecture.source import ROOT
from tests.support.device import METHODS

FOLDER = ROOT / "proto" / "flasc" / "v1"
FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR
    for module in (
        device_service_pb2,
        layout_pb2,
        sparse_update_pb2,
        status_pb2,
        task_spec_pb2,
    )
)
ENUMS: tuple[EnumDescriptor, ...] = tuple(
    enum for file in FILES for enum in file.enum_types_by_name.values()
)
SERVICE = (FOLDER / "device_service.proto").read_text(encoding="utf-8")


def comment_above(declaration: str) -> str:
    """The comment that ends on the line before."""
    before = SERVICE[: SERVICE.index(declaration)].rstrip(" ").splitlines()
    lines: list[str] = []
    while before and before[-1].strip().startswith("//"):
        lines.insert(0, before.pop().strip().removeprefix("//").strip())
    return " ".join(lines)


def test_every_file_of_the_protocol_is_looked_at() -> None:
    names = {f"flasc/v1/{path.name}" for path in FOLDER.glob("*.proto")}
    assert names == {file.name for file in FILES}


def test_the_tests_know_every_rpc() -> None:
    assert tuple(re.findall(r"^  rpc (\w+)\(", SERVICE, re.MULTILINE)) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_says_who_calls_it_what_it_does_and_when_it_is_refused(name: str) -> None:
    comment = comment_above(f"rpc {name}(")
    assert len(comment) > 80
    assert "ffect" in comment
    assert "efus" in comment


@pytest.mark.parametrize("name", [name for name in METHODS if name != "StreamUpdate"])
def test_every_rpc_says_whether_it_may_be_repeated(name: str) -> None:
    # StreamUpdate refers to SubmitUpdate.
    assert "Safe to repeat" in comment_above(f"rpc {name}(")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_begins_with_a_comment(file: FileDescriptor) -> None:
    text = (ROOT / "proto" / file.name).read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert 'syntax = "proto3";' in text
    assert file.package == "flasc.v1"


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_an_enum_begins_with_what_nobody_set(enum: EnumDescriptor) -> None:
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
    zero, *others = enum.values
    assert (zero.name, zero.number) == (f"{words}_UNSPECIFIED", 0)
    assert all(value.name.startswith(f"{words}_") for value in others)
    assert [value.number for value in others] == list(range(1, len(others) + 1))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_times_are_no_strings(file: FileDescriptor) -> None:
    for message in file.message_types_by_name.values():
        for field in message.fields:
            if field.name.endswith(("_at", "_delay", "delay_min", "delay_max")):
                assert field.message_type is not None
                assert field.message_type.full_name in (
                    "google.protobuf.Timestamp",
                    "google.protobuf.Duration",
                )
