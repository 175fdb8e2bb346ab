"""Who is let in, what gRPC itself keeps out, and what the service says of its own troubles."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from aggregator_service.app.revoke_device import RevokeDevice
from aggregator_service.app.task_spec import MAX_UNARY_PAYLOAD_BYTES
from aggregator_service.clock import utc_now
from aggregator_service.domain.credentials import SecretKind, mint
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.memory import MemoryBlobs, MemoryStore
from aggregator_service.store.open import open_blobs, open_store
from flasc_core.errors import DOMAIN, Reason
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.pb.v1 import status_pb2
from tests.builders import a_policy
from tests.support.device import (
    METHODS,
    SERVICE,
    SyntheticDevice,
    details_of,
    encoded_vector,
    header_for,
    reason_of,
    stream_parts,
)
from tests.support.live import LiveService, live_service
from tests.support.patience import PATIENCE_SECONDS
from tests.support.refused import call, multicallable, refused, trailers_of
from tests.support.seen import (
    all_rejections,
    assignment_of,
    device_id_of,
    standing_of,
)

CODE = grpc.StatusCode
PAYLOAD = encoded_vector(24, {3: 1.0})
TASK = "a-task"


@pytest.fixture(scope="module")
def service() -> Iterator[LiveService]:
    with live_service(MemoryStore(), MemoryBlobs()) as running:
        running.create_task(TASK, policy=a_policy(goal=100, quorum=1, over_selection=10.0))
        yield running


class TestWhoAsks:
    """Strangers are refused on every rpc, before anything of their message is read."""

    @pytest.fixture
    def stranger(self, service: LiveService) -> Callable[..., SyntheticDevice]:
        return lambda credential: SyntheticDevice(service.channel(), credential)

    def refusals(self, device: SyntheticDevice) -> set[tuple[grpc.StatusCode, Reason]]:
        errors = [refused(call, device, name, b"\xff") for name in METHODS]
        return {(error.code(), reason_of(error)) for error in errors}

    @pytest.mark.parametrize(
        "metadata", [(), (("authorization", "Basic YTpi"),), (("authorization", "Bearer"),)]
    )
    def test_without_a_credential(
        self, service: LiveService, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        channel = service.channel()
        for name in METHODS:
            send = multicallable(channel, name)
            error = refused(send, b"", metadata=metadata, timeout=PATIENCE_SECONDS)
            assert error.code() is CODE.UNAUTHENTICATED
            assert reason_of(error) is Reason.CREDENTIAL_MISSING

    def test_with_a_credential_that_is_none(
        self, stranger: Callable[[str], SyntheticDevice]
    ) -> None:
        expected = {(CODE.UNAUTHENTICATED, Reason.CREDENTIAL_INVALID)}
        for credential in ("x", "fld_", "fld_" + "0" * 32 + "_" + "x" * 42):
            assert self.refusals(stranger(credential)) == expected

    def test_with_a_credential_of_nobody(self, stranger: Callable[[str], SyntheticDevice]) -> None:
        credential, _ = mint(SecretKind.DEVICE, UUID(int=1))
        expected = {(CODE.UNAUTHENTICATED, Reason.CREDENTIAL_INVALID)}
        assert self.refusals(stranger(credential)) == expected

    def test_with_somebody_s_id_and_another_secret(
        self, service: LiveService, stranger: Callable[[str], SyntheticDevice]
    ) -> None:
        credential, _ = mint(SecretKind.DEVICE, device_id_of(service.device()))
        expected = {(CODE.UNAUTHENTICATED, Reason.CREDENTIAL_INVALID)}
        assert self.refusals(stranger(credential)) == expected

    def test_unknown_and_wrong_can_not_be_told_apart(
        self, service: LiveService, stranger: Callable[[str], SyntheticDevice]
    ) -> None:
        unknown, _ = mint(SecretKind.DEVICE, UUID(int=1))
        wrong, _ = mint(SecretKind.DEVICE, device_id_of(service.device()))
        devices = [stranger(credential) for credential in (unknown, wrong)]
        answers = [refused(one.check_in, TASK) for one in devices]
        assert answers[0].details() == answers[1].details()
        assert answers[0].trailing_metadata() == answers[1].trailing_metadata()

    def test_with_an_operator_s_key(self, stranger: Callable[[str], SyntheticDevice]) -> None:
        key, _ = mint(SecretKind.API_KEY, UUID(int=1))
        expected = {(CODE.UNAUTHENTICATED, Reason.CREDENTIAL_INVALID)}
        assert self.refusals(stranger(key)) == expected

    def test_once_revoked(self, service: LiveService) -> None:
        device = service.device()
        given = device.assignment(TASK)
        RevokeDevice(store=service.store, now=utc_now)(device_id_of(device))
        assert self.refusals(device) == {(CODE.PERMISSION_DENIED, Reason.DEVICE_REVOKED)}
        assert reason_of(refused(device.submit, given, PAYLOAD)) is Reason.DEVICE_REVOKED
        assert assignment_of(service.store, given).state == "TRAINING"

    def test_strangers_write_nothing_to_the_database(
        self, service: LiveService, stranger: Callable[[str], SyntheticDevice]
    ) -> None:
        service.booked()
        before = all_rejections(service.store)
        credential, _ = mint(SecretKind.DEVICE, UUID(int=1))
        self.refusals(stranger(credential))
        service.booked()
        assert all_rejections(service.store) == before


def test_a_call_that_ends_before_its_message_is_refused(service: LiveService) -> None:
    device = service.device()
    error = refused(device.stream_bytes, "SubmitUpdate", [])
    assert error.code() is CODE.INVALID_ARGUMENT
    assert reason_of(error) is Reason.MALFORMED_MESSAGE


class TestTransport:
    """What gRPC itself refuses, before any of our code runs."""

    def test_a_message_above_the_limit(self, service: LiveService) -> None:
        device = service.device()
        given = device.assignment(TASK)
        large = bytes(MAX_UNARY_PAYLOAD_BYTES + (64 << 10))
        error = refused(device.submit, given, large)
        assert error.code() is CODE.RESOURCE_EXHAUSTED
        assert assignment_of(service.store, given).state == "TRAINING"

    @pytest.mark.parametrize("method", ["CheckIn", "SubmitUpdate", "ReportOutcome"])
    def test_a_compressed_bomb(self, service: LiveService, method: str) -> None:
        device = service.device()
        send = multicallable(device.channel, method)
        bomb, gzip = bytes(64 << 20), grpc.Compression.Gzip
        error = refused(
            send, bomb, metadata=device.metadata, timeout=PATIENCE_SECONDS, compression=gzip
        )
        assert error.code() is CODE.RESOURCE_EXHAUSTED

    def test_metadata_above_the_limit(self, service: LiveService) -> None:
        device = service.device()
        metadata = (*device.metadata, ("x-large", "x" * 20_000))
        send = multicallable(device.channel, "CheckIn")
        request = pb.CheckInRequest(task_name=TASK).SerializeToString()
        error = refused(send, request, metadata=metadata, timeout=PATIENCE_SECONDS)
        assert error.code() is CODE.RESOURCE_EXHAUSTED

    def test_an_rpc_that_does_not_exist(self, service: LiveService) -> None:
        device = service.device()
        error = refused(device.call_bytes, "DropTables", b"")
        assert error.code() is CODE.UNIMPLEMENTED

    def test_a_stream_that_its_device_cancels_leaves_nothing(self, service: LiveService) -> None:
        device = service.device()
        given = device.assignment(TASK)
        header = header_for(given, PAYLOAD)
        parts: Iterator[bytes] = stream_parts(header, PAYLOAD, 8)
        sent = [next(parts), next(parts)]
        channel: Any = device.channel
        started = channel.stream_unary(SERVICE + "StreamUpdate")

        has_started = threading.Event()

        def cancelled() -> Iterator[bytes]:
            yield from sent
            has_started.wait(PATIENCE_SECONDS)
            running.cancel()

        running = started.future(cancelled(), metadata=device.metadata, timeout=PATIENCE_SECONDS)
        has_started.set()
        with pytest.raises(grpc.FutureCancelledError):
            running.result()
        assert assignment_of(service.store, given).state == "TRAINING"
        assert not device.stream(given, PAYLOAD).duplicate


def test_every_refusal_s_details_are_google_s(service: LiveService) -> None:
    device = service.device()
    error = refused(device.check_in, "no-such-task")
    data = trailers_of(error)["grpc-status-details-bin"]
    assert isinstance(data, bytes)
    status = status_pb2.Status.FromString(data)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info = status_pb2.ErrorInfo.FromString(status.details[0].value)
    assert (info.reason, info.domain) == ("TASK_UNKNOWN", DOMAIN)
    assert info.metadata["task"] == "no-such-task"


class TestTheServiceItself:
    """Its own troubles are told apart from a device's, with a time to come back."""

    def test_a_database_that_is_away_is_unavailable(self) -> None:
        # Nobody listens there.
        store = open_store("postgresql://127.0.0.1:1/none", check_durability=False)
        credential, _ = mint(SecretKind.DEVICE, UUID(int=1))
        with live_service(store, MemoryBlobs()) as away:
            device = SyntheticDevice(away.channel(), credential)
            for name in METHODS:
                error = refused(call, device, name, b"")
                assert error.code() is CODE.UNAVAILABLE
                assert reason_of(error) is Reason.STORAGE
                assert details_of(error).retry_delay is not None
                assert "127.0.0.1" not in (error.details() or "")
        store.close()

    def test_blobs_that_can_not_be_written_are_unavailable(
        self, sqlite_store: Store, tmp_path: Path
    ) -> None:
        layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(60_000,), role=Role.LORA_A),))
        with live_service(sqlite_store, open_blobs(str(tmp_path / "blobs"))) as live:
            task = live.create_task(
                layout=layout, method=Flasc(download_density=0.1, upload_density=1.0)
            )
            device = live.device()
            given = device.assignment(TASK)
            current = live.latest_round(task)
            before = standing_of(live.store, current)
            # A file where the rounds' folder would be.
            (tmp_path / "blobs" / "rounds").write_bytes(b"")
            payload = encoded_vector(60_000, dict.fromkeys(range(60_000), 1.0))
            for send in (device.submit, device.stream):
                error = refused(send, given, payload)
                assert error.code() is CODE.UNAVAILABLE
                assert reason_of(error) is Reason.STORAGE
                assert details_of(error).retry_delay is not None
            assert standing_of(live.store, current) == before
            (tmp_path / "blobs" / "rounds").unlink()
            assert not device.stream(given, payload).duplicate

    def test_a_bug_is_answered_with_an_id_and_no_text(
        self, sqlite_store: Store, blobs: BlobStore
    ) -> None:
        with live_service(sqlite_store, blobs) as live:
            task = live.create_task()
            device = live.device()
            given = device.assignment(TASK)
            download = live.latest_round(task).downloads[""]
            assert download is not None
            blobs.delete(download.key)
            error = refused(device.download, given)
            assert error.code() is CODE.INTERNAL
            assert re.fullmatch(r"internal error [0-9a-f]{32}", error.details() or "")
            # Devices try an INTERNAL again only where no reason of ours comes with it.
            assert "grpc-status-details-bin" not in trailers_of(error)

    def test_more_uploads_than_fit_in_memory_are_told_to_come_back(self) -> None:
        layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(200_000,), role=Role.LORA_A),))
        budget = 1 << 20
        with live_service(MemoryStore(), MemoryBlobs(), upload_bytes_in_flight=budget) as live:
            live.create_task(layout=layout, method=Flasc(download_density=0.1, upload_density=1.0))
            device = live.device()
            given = device.assignment(TASK)
            for send in (device.submit, device.stream):
                error = refused(send, given, bytes(budget + 1))
                assert error.code() is CODE.RESOURCE_EXHAUSTED
                assert reason_of(error) is Reason.OVERLOADED
                assert details_of(error).retry_delay is not None
                # What it held is free again: an upload of the whole budget is read to its end.
                error = refused(send, given, bytes(budget))
                assert reason_of(error) is Reason.MALFORMED_MESSAGE

    def test_a_stream_that_stalls_is_ended(self) -> None:
        store, blobs = MemoryStore(), MemoryBlobs()
        with live_service(store, blobs, chunk_idle_seconds=0.05) as live:
            live.create_task()
            device = live.device()
            given = device.assignment(TASK)
            answered = threading.Event()

            def stalled() -> Iterator[bytes]:
                yield next(stream_parts(header_for(given, PAYLOAD), PAYLOAD))
                answered.wait(PATIENCE_SECONDS)

            error = refused(lambda: device.stream_bytes("StreamUpdate", stalled()))
            answered.set()
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            assert reason_of(error) is Reason.OVERLOADED
            assert details_of(error).retry_delay is not None
        with live_service(store, blobs) as live:
            again = SyntheticDevice(live.channel(), device.credential)
            assert not again.stream(given, PAYLOAD).duplicate


def test_text_of_devices_reaches_postgresql_as_text(postgres_store: Store) -> None:
    with live_service(postgres_store, MemoryBlobs()) as live:
        live.create_task()
        for text in ("a'; DROP TABLE tasks; --", "%s %(name)s", "\u202e", "\U0010ffff" * 100):
            device = live.device()
            assert reason_of(refused(device.check_in, text)) is Reason.TASK_UNKNOWN
            given = device.assignment(TASK)
            device.report(given, pb.OUTCOME_FAILED, detail=text)
            assert assignment_of(live.store, given).detail == text


def test_what_postgresql_can_not_keep_is_refused(postgres_store: Store) -> None:
    with live_service(postgres_store, MemoryBlobs()) as live:
        live.create_task()
        device = live.device()
        given = device.assignment(TASK)
        assert reason_of(refused(device.check_in, "a\0b")) is Reason.FIELD_RANGE
        error = refused(device.report, given, pb.OUTCOME_FAILED, detail="a\0b")
        assert reason_of(error) is Reason.FIELD_RANGE
