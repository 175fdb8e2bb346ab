"""The process around the rpcs: TLS, health, reflection, draining, logs and metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from aggregator_service.clock import utc_now
from aggregator_service.driver import Driver
from aggregator_service.rpc.device_service import SERVICE_NAME
from aggregator_service.server import Aggregator, InsecureRefused, drive, serve
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.memory import MemoryBlobs, MemoryStore
from aggregator_service.store.open import open_store
from flasc_core.errors import Reason
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.builders import a_policy
from tests.support.certificates import Certificates, issue_certificates
from tests.support.device import SERVICE, SyntheticDevice, encoded_vector
from tests.support.live import LiveService, live_service
from tests.support.logged import Logged, logged
from tests.support.patience import PATIENCE_SECONDS
from tests.support.refused import call, refused
from tests.support.seen import device_id_of, figures_of, rounds_of

CODE = grpc.StatusCode
PAYLOAD = encoded_vector(24, {3: 1.0})
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def memory() -> Iterator[LiveService]:
    """These tests stop the service, or look at nothing that it stores."""
    with live_service(MemoryStore(), MemoryBlobs(), drain_seconds=30) as running:
        yield running


def settings(**changes: Any) -> ServiceSettings:
    return ServiceSettings(_env_file=None, grpc_port=0, **changes)  # type: ignore[call-arg]


class TestHealth:
    @pytest.mark.parametrize("name", ["", SERVICE_NAME])
    def test_a_running_service_is_serving_and_asks_for_no_credential(
        self, memory: LiveService, name: str
    ) -> None:
        stub = health_pb2_grpc.HealthStub(memory.channel())
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_SECONDS)
        assert answer.status == SERVING

    def test_a_service_that_stops_says_so_first(self, memory: LiveService) -> None:
        stub = health_pb2_grpc.HealthStub(memory.channel())
        watch = stub.Watch(
            health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=PATIENCE_SECONDS
        )
        assert next(watch).status == SERVING
        stopping = threading.Thread(target=memory.stop)
        stopping.start()
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        stopping.join(PATIENCE_SECONDS)
        assert not stopping.is_alive()


class TestReflection:
    def services(self, live: LiveService) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(live.channel())
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = stub.ServerReflectionInfo(iter([asked]), timeout=PATIENCE_SECONDS)
        return {service.name for service in answer.list_services_response.service}

    def test_by_default_nobody_learns_the_schema(self, memory: LiveService) -> None:
        assert refused(self.services, memory).code() is CODE.UNIMPLEMENTED

    def test_an_operator_can_switch_it_on(self) -> None:
        with live_service(MemoryStore(), MemoryBlobs(), reflection=True) as live:
            assert SERVICE_NAME in self.services(live)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue_certificates(tmp_path_factory.mktemp("tls"))


class TestTls:
    @pytest.fixture
    def secured(self, certificates: Certificates) -> Iterator[LiveService]:
        with live_service(
            MemoryStore(),
            MemoryBlobs(),
            insecure_dev=False,
            tls_certificate=certificates.certificate,
            tls_key=certificates.key,
        ) as running:
            running.create_task()
            yield running

    def test_a_device_that_trusts_the_authority_takes_part(
        self, secured: LiveService, certificates: Certificates
    ) -> None:
        credential = secured.device().credential
        trust = grpc.ssl_channel_credentials(certificates.roots)
        with grpc.secure_channel(f"localhost:{secured.port}", trust) as channel:
            device = SyntheticDevice(channel, credential)
            given = device.assignment("a-task")
            assert sha256(device.download(given)).digest() == given.download.sha256
            assert not device.stream(given, PAYLOAD).duplicate

    def test_a_device_that_trusts_others_does_not(self, secured: LiveService) -> None:
        trust = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
        with grpc.secure_channel(f"localhost:{secured.port}", trust) as channel:
            device = SyntheticDevice(channel, secured.device().credential)
            assert refused(device.check_in, "a-task").code() is CODE.UNAVAILABLE

    def test_nobody_is_answered_in_the_clear(self, secured: LiveService) -> None:
        assert refused(secured.device().check_in, "a-task").code() is CODE.UNAVAILABLE

    def test_the_service_does_not_start_in_the_clear_by_itself(self) -> None:
        with pytest.raises(InsecureRefused, match="insecure-dev"):
            start(settings())

    @pytest.mark.parametrize("missing", ["tls_certificate", "tls_key"])
    def test_half_a_pair_is_no_tls(self, certificates: Certificates, missing: str) -> None:
        given = {"tls_certificate": certificates.certificate, "tls_key": certificates.key}
        del given[missing]
        with pytest.raises(InsecureRefused, match="both"):
            start(settings(insecure_dev=True, **given))


def start(options: ServiceSettings) -> None:
    async def body() -> None:
        aggregator = Aggregator(options, MemoryStore(), MemoryBlobs())
        try:
            await aggregator.start()
        finally:
            await aggregator.stop()

    asyncio.run(body())


def test_a_port_that_is_taken_is_said_so(memory: LiveService) -> None:
    options = settings(insecure_dev=True).model_copy(update={"grpc_port": memory.port})
    with pytest.raises(OSError, match=f"can not listen on 127.0.0.1:{memory.port}"):
        start(options)


class TestDraining:
    def test_a_call_in_progress_ends_well_after_the_service_began_to_stop(
        self, memory: LiveService
    ) -> None:
        # Larger than the transport's windows, so that the service waits for its reader.
        layout = AdapterLayout(
            tensors=(TensorSpec(name="a", shape=(2_000_000,), role=Role.LORA_A),)
        )
        memory.create_task(layout=layout, method=Flasc(download_density=1.0, upload_density=0.01))
        device, late = memory.device(), memory.device()
        late.check_in("a-task")
        given = device.assignment("a-task")
        request = pb.DownloadAdapterRequest(assignment_id=given.assignment_id)
        channel: Any = device.channel
        receiving = channel.unary_stream(SERVICE + "DownloadAdapter")(
            request.SerializeToString(), metadata=device.metadata, timeout=PATIENCE_SECONDS
        )
        received = [next(receiving)]

        watch = health_pb2_grpc.HealthStub(memory.channel()).Watch(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS
        )
        assert next(watch).status == SERVING
        stopping = threading.Thread(target=memory.stop)
        stopping.start()
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        while refused_at_last(late) is None:
            pass

        received.extend(receiving)
        payload = b"".join(pb.DownloadAdapterResponse.FromString(part).data for part in received)
        assert len(payload) == given.download.size_bytes
        assert sha256(payload).digest() == given.download.sha256
        stopping.join(PATIENCE_SECONDS)
        assert not stopping.is_alive()

    def test_stopping_waits_for_the_books(self, memory: LiveService) -> None:
        task = memory.create_task()
        device = memory.device()
        payload = device.download(device.assignment("a-task"))
        memory.stop()
        current = rounds_of(memory.store, task)[0]
        assert figures_of(memory.store, current).tiers[""].bytes.down == len(payload)


def refused_at_last(device: SyntheticDevice) -> grpc.StatusCode | None:
    """None while the service still answers; between stopping and refusing there is a moment."""
    try:
        device.check_in("a-task")
    except grpc.RpcError as error:
        assert error.code() in (CODE.UNAVAILABLE, CODE.CANCELLED)  # noqa: PT017
        return error.code()
    return None


class TestLogs:
    @pytest.fixture
    def log(self) -> Iterator[Logged]:
        with logged() as log:
            yield log

    @pytest.fixture
    def watched(self, log: Logged) -> Iterator[LiveService]:
        with live_service(MemoryStore(), MemoryBlobs()) as running:
            running.create_task(policy=a_policy(goal=9, quorum=1))
            yield running

    def test_every_call_has_one_line_that_says_what_happened(
        self, log: Logged, watched: LiveService
    ) -> None:
        device = watched.device()
        given = device.assignment("a-task")
        payload = device.download(given)
        device.submit(given, PAYLOAD)
        device.stream(given, PAYLOAD)
        device.report(given, pb.OUTCOME_GAVE_UP)
        refused(device.check_in, "no-such-task")
        lines = [log.take("rpc") for _ in range(6)]
        watched.stop()
        assert [entry for entry in log.rest() if entry["event"] == "rpc"] == []

        told = [(line["method"], line["code"]) for line in lines]
        assert told == [
            ("CheckIn", "OK"),
            ("DownloadAdapter", "OK"),
            ("SubmitUpdate", "OK"),
            ("StreamUpdate", "OK"),
            ("ReportOutcome", "OK"),
            ("CheckIn", "NOT_FOUND"),
        ]
        checked_in, downloaded, submitted, streamed, _, unknown = lines
        assert checked_in["result"] == "Assigned"
        assert downloaded["payload_bytes_down"] == len(payload)
        assert (submitted["payload_bytes_up"], submitted["duplicate"]) == (len(PAYLOAD), False)
        assert (streamed["payload_bytes_up"], streamed["duplicate"]) == (len(PAYLOAD), True)
        assert unknown["reason"] == "TASK_UNKNOWN"
        assert len({line["call"] for line in lines}) == 6
        assert all(line["seconds"] >= 0 and line["level"] == "info" for line in lines)

    def test_lines_hold_no_secrets_and_no_payloads(self, log: Logged, watched: LiveService) -> None:
        device = watched.device()
        given = device.assignment("a-task")
        device.download(given)
        device.submit(given, PAYLOAD, training_metrics={"loss_mean": 0.123456})
        for method in ("CheckIn", "SubmitUpdate", "ReportOutcome"):
            refused(call, device, method, b"\xff")
        refused(call, SyntheticDevice(watched.channel(), "x" * 50), "CheckIn", b"")
        lines = [log.take("rpc") for _ in range(7)]
        text = repr(lines)
        identity = device_id_of(device)
        for secret in (
            device.credential,
            device.credential.rsplit("_", 1)[-1],
            str(identity),
            identity.hex,
            "x" * 50,
            repr(PAYLOAD)[2:-1],
            PAYLOAD.hex(),
            "0.123456",
        ):
            assert secret not in text
        # Operators can still tell devices apart.
        pseudonym = sha256(identity.bytes).hexdigest()[:12]
        assert [line["device"] for line in lines] == [pseudonym] * 6 + [""]

    def test_a_bug_is_logged_once_with_the_id_that_the_device_was_told(
        self, log: Logged, watched: LiveService
    ) -> None:
        device = watched.device()
        given = device.assignment("a-task")
        for key in list(watched.blobs.keys("tasks/")):
            watched.blobs.delete(key)
        error = refused(device.download, given)
        assert error.code() is CODE.INTERNAL
        failed = log.take("rpc_failed")
        assert failed["call"] in (error.details() or "")
        assert failed["exc_info"]
        line = log.take("rpc")
        assert (line["call"], line["code"]) == (failed["call"], "INTERNAL")

    def test_a_driver_without_a_database_waits_and_says_so(self, log: Logged) -> None:
        # Nobody listens there.
        store = open_store("postgresql://127.0.0.1:1/none", check_durability=False)
        moment = timedelta(milliseconds=1)
        driver = Driver(store=store, blobs=MemoryBlobs(), now=utc_now, interval=moment)
        stop = threading.Event()
        running = threading.Thread(target=driver.run, args=(stop,))
        running.start()
        # It tries again, and again.
        for _ in range(2):
            assert log.take("driver_waits_for_storage")["level"] == "warning"
        stop.set()
        running.join(PATIENCE_SECONDS)
        assert not running.is_alive()
        store.close()


class TestMetrics:
    def value(self, name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def test_refusals_are_counted_by_reason(self, memory: LiveService) -> None:
        device = memory.device()
        before = self.value("flasc_refusals_total", reason=Reason.TASK_UNKNOWN)
        refused(device.check_in, "no-such-task")
        assert self.value("flasc_refusals_total", reason=Reason.TASK_UNKNOWN) == before + 1

    def test_a_repeated_update_is_counted_once_and_its_bytes_twice(
        self, memory: LiveService
    ) -> None:
        memory.create_task()
        device = memory.device()
        given = device.assignment("a-task")
        accepted = self.value("flasc_updates_accepted_total")
        sent = self.value("flasc_payload_bytes_total", direction="up")
        device.submit(given, PAYLOAD)
        device.submit(given, PAYLOAD)
        assert self.value("flasc_updates_accepted_total") == accepted + 1
        up = self.value("flasc_payload_bytes_total", direction="up")
        assert up == sent + 2 * len(PAYLOAD)

    def test_calls_are_timed_by_method_and_status(self, memory: LiveService) -> None:
        memory.create_task()
        labels = {"method": "CheckIn", "code": "OK"}
        before = self.value("flasc_rpc_seconds_count", **labels)
        memory.device().check_in("a-task")
        assert self.value("flasc_rpc_seconds_count", **labels) == before + 1


def test_serving_and_driving_end_with_their_event() -> None:
    async def body() -> None:
        until = asyncio.Event()
        store, blobs = MemoryStore(), MemoryBlobs()
        options = settings(insecure_dev=True, driver_interval_seconds=0.01)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(serve(options, store, blobs, until=until))
            group.create_task(drive(options, store, blobs, until=until))
            until.set()

    asyncio.run(body())
