"""Whole rounds of a 30M-parameter adapter, and the memory that uploads take while they are checked.

The aggregator is a process of its own, new for every wave of uploads, so that what malloc keeps of
one wave never hides what the next one takes; it has seen one update of a single value, so that what
it loads at its first is not counted. The driver's steps run here, so that each is timed.
The published adapters are compared with sums that nothing of the service has a part in.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final, TypeVar
from uuid import uuid4

import grpc
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from aggregator_service.app.adapter_files import load_masters, load_state, load_weights
from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.export_adapter import Export, WeightsKind, peft_name
from aggregator_service.app.fold_updates import FoldUpdates
from aggregator_service.clock import utc_now
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.downloads import device_weights
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Encodings, Ending, Task, TaskConfig
from aggregator_service.rpc.device_service import DOWNLOAD_CHUNK_BYTES
from aggregator_service.settings import ServiceSettings
from aggregator_service.store import schema
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.open import open_blobs, open_store
from benchmarks._report import Goal, write_report
from benchmarks._shares import draw_shares
from flasc_core.base import InitialBase
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc, apply_upload_rule
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.wire import DecodeLimits, Encoding, decode, decode_segments, encode, profile_for
from tests.builders import a_config, a_policy
from tests.support.device import SyntheticDevice, encoded_vector, header_for, stream_parts
from tests.support.service_process import ServiceProcess

T = TypeVar("T")

DENSITY: Final = 1 / 16
ENCODING: Final = Encoding.parse("int6")
# Uploads at once, wave by wave; each round takes all of them.
WAVES: Final = (1, 8, 32)
# How uploads are sent, round by round, and how dense: one message holds no more than about 1/18.
KINDS: Final = MappingProxyType({"unary": 1 / 18, "streamed": DENSITY})
# Devices take turns with so many updates, each of which takes seconds to make.
UPDATES: Final = 4
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    folder: Path
    url: str
    store: Store
    blobs: BlobStore
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, phase: str, body: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = body()
        self.seconds[phase] = time.perf_counter() - started
        return result

    @contextmanager
    def service(self) -> Iterator[ServiceProcess]:
        with ServiceProcess(
            "aggregator",
            database_url=self.url,
            blobs=self.folder / "blobs",
            log=self.folder / "log",
            log_level="WARNING",
        ) as running:
            yield running

    def latest(self, task: Task) -> tuple[Round, Adapter]:
        """The latest round, and the version that it starts from."""
        current = self.store.read("look", lambda tx: tx.rounds.latest(task.id))
        assert current is not None
        adapter = self.store.read("look", lambda tx: tx.adapters.get(task.id, current.base_version))
        assert adapter is not None
        return current, adapter

    def advance(self, task: Task, until: RoundState) -> Round:
        advance = AdvanceTask(store=self.store, blobs=self.blobs, now=utc_now)
        while (current := self.latest(task)[0]).state is not until:
            advance(task.id)
        return current


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """What one process took for some uploads at once."""

    kind: str
    in_flight: int
    payload_bytes: int
    before_bytes: int
    peak_bytes: int
    seconds: float

    @property
    def bound_bytes(self) -> int:
        workers = min(self.in_flight, ServiceSettings().worker_threads)
        return 3 * self.in_flight * self.payload_bytes + 2 * MIB * workers

    @property
    def share_of_bound(self) -> float:
        return (self.peak_bytes - self.before_bytes) / self.bound_bytes

    def row(self) -> dict[str, str | float]:
        return {
            "uploads": self.kind,
            "in_flight": self.in_flight,
            "payload_bytes": self.payload_bytes,
            "seconds_per_update": self.seconds / self.in_flight,
            "resident_mib_before": self.before_bytes / MIB,
            "resident_mib_at_most": self.peak_bytes / MIB,
            "mib_per_update": (self.peak_bytes - self.before_bytes) / self.in_flight / MIB,
            "bound_mib_per_update": self.bound_bytes / self.in_flight / MIB,
        }


def main() -> None:
    waves: list[Wave] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        url = f"sqlite:///{folder}/flasc.db"
        schema.upgrade(url)
        store = open_store(url)
        stack.callback(store.close)
        scene = Scene(folder=folder, url=url, store=store, blobs=open_blobs(str(folder / "blobs")))
        config = a_large_config()
        create = CreateTask(store=store, blobs=scene.blobs, now=utc_now)
        task = scene.timed("create the task", lambda: create("large", config, initial(config)))
        reading = 0.0
        for kind, density in KINDS.items():
            payloads = [make_update(scene, config, density, seed) for seed in range(UPDATES)]
            waves += run_round(scene, task, kind, payloads)
            reading = max(reading, chunk_reads(scene, task) / scene.seconds["download, per device"])
        check_export(scene, task)
    phases: list[Mapping[str, str | float]] = [
        {"phase": phase, "seconds": seconds, "parameters": config.layout.dim}
        for phase, seconds in scene.seconds.items()
    ]
    goals = [
        *(
            Goal(
                name=f"{wave.in_flight} {wave.kind} at once, memory / 3 x bytes + 2 MiB per worker",
                at_most=1.0,
                worst=wave.share_of_bound,
            )
            for wave in waves
        ),
        Goal(
            name="reading a download's chunks from its file, as a share of sending it",
            at_most=0.1,
            worst=reading,
        ),
    ]
    rows = [*phases, *(wave.row() for wave in waves)]
    draw_shares(goals, write_report("large_adapter", [], rows, goals).with_suffix(".svg"))


def a_large_config() -> TaskConfig:
    """LoRA of rank 64 on two matrices of each of 28 layers, and a head: 30.0M coordinates."""
    width, rank = 4_096, 64
    tensors = [
        TensorSpec(name=f"layers.{layer}.{matrix}.{factor}.default.weight", shape=shape, role=role)
        for layer in range(28)
        for matrix in ("q_proj", "v_proj")
        for factor, shape, role in (
            ("lora_A", (rank, width), Role.LORA_A),
            ("lora_B", (width, rank), Role.LORA_B),
        )
    ]
    head = TensorSpec(name="classifier.weight", shape=(156, width), role=Role.HEAD)
    return a_config(
        layout=AdapterLayout(tensors=(*tensors, head)),
        method=Flasc(download_density=DENSITY, upload_density=DENSITY),
        encodings=Encodings(download=ENCODING, updates=(ENCODING,)),
        base=InitialBase(seed=7),
        policy=a_policy(
            goal=sum(WAVES) + len(WAVES), quorum=1, over_selection=1.0, window=timedelta(hours=1)
        ),
        ending=Ending(rounds=len(KINDS) + 1),
    )


def initial(config: TaskConfig) -> NDArray[np.float32]:
    return config.base.initialise(config.layout, np.zeros(config.layout.dim, dtype=np.float32))


def make_update(scene: Scene, config: TaskConfig, density: float, seed: int) -> bytes:
    method = Flasc(download_density=DENSITY, upload_density=density)
    rule = method.plan(config.layout, 0).upload
    rng = np.random.default_rng(seed)
    update = 1e-3 * rng.standard_normal(config.layout.dim, dtype=np.float32)
    selected = scene.timed(
        "select an update", lambda: apply_upload_rule(config.layout, update, rule)
    )
    return scene.timed("encode an update", lambda: encode(selected, profile_for(ENCODING)))


def run_round(scene: Scene, task: Task, kind: str, payloads: Sequence[bytes]) -> list[Wave]:
    """One round from its opening to the next version, which is checked."""
    current = scene.timed("open a round", lambda: scene.advance(task, RoundState.COLLECTING))
    base = scene.latest(task)[1]
    first = encoded_vector(task.config.layout.dim, {0: 1.0})
    sent: Counter[bytes] = Counter()
    waves = []
    for in_flight in WAVES:
        chosen = [payloads[number % UPDATES] for number in range(in_flight)]
        with scene.service() as service, a_channel(service) as channel:
            device = enrolled(scene, channel)
            device.submit(device.assignment(task.name), first)
            waves.append(run_wave(scene, task, service, kind, chosen))
        sent.update([first, *chosen])
    fold = FoldUpdates(store=scene.store, blobs=scene.blobs, now=utc_now)
    folded = scene.timed("fold an update", lambda: fold(task, current))
    scene.seconds["fold an update"] /= folded
    scene.timed("close and publish", lambda: publish(scene, task, current))
    expected = exact_next(scene, task, base, sent)
    published = load_weights(scene.blobs, scene.latest(task)[1])
    assert published.tobytes() == expected.tobytes()
    return waves


def publish(scene: Scene, task: Task, current: Round) -> None:
    advance = AdvanceTask(store=scene.store, blobs=scene.blobs, now=utc_now)
    while scene.latest(task)[0].id == current.id:
        advance(task.id)


def run_wave(
    scene: Scene, task: Task, service: ServiceProcess, kind: str, payloads: Sequence[bytes]
) -> Wave:
    """Every device checks in and downloads; then all of them upload at once."""
    with ExitStack() as stack:
        channels = [stack.enter_context(a_channel(service)) for _ in payloads]
        devices = [enrolled(scene, channel) for channel in channels]
        given = scene.timed(
            "check in, per device", lambda: [device.assignment(task.name) for device in devices]
        )
        downloads = scene.timed(
            "download, per device",
            lambda: [device.download(one) for device, one in zip(devices, given, strict=True)],
        )
        for phase in ("check in, per device", "download, per device"):
            scene.seconds[phase] /= len(devices)
        check_start(scene, task, downloads)
        uploads = [
            an_upload(kind, *of_device) for of_device in zip(devices, given, payloads, strict=True)
        ]
        before = reset_peak(service.pid)
        started = time.perf_counter()
        with ThreadPoolExecutor(len(uploads)) as pool:
            list(pool.map(lambda upload: upload(), uploads))
        return Wave(
            kind=kind,
            in_flight=len(uploads),
            payload_bytes=max(map(len, payloads)),
            before_bytes=before,
            peak_bytes=memory_of(service.pid)["VmHWM"],
            seconds=time.perf_counter() - started,
        )


def a_channel(service: ServiceProcess) -> grpc.Channel:
    # A connection of its own, as every device has one.
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.insecure_channel(f"127.0.0.1:{service.port}", options=options)


def enrolled(scene: Scene, channel: grpc.Channel) -> SyntheticDevice:
    name = f"device-{uuid4().hex}"
    return SyntheticDevice(channel, EnrollDevice(store=scene.store, now=utc_now)(name)[1])


def an_upload(
    kind: str, device: SyntheticDevice, given: pb.Assignment, payload: bytes
) -> Callable[[], bytes]:
    header = header_for(given, payload)
    if kind == "unary":
        request = pb.SubmitUpdateRequest(header=header, payload=payload).SerializeToString()
        return lambda: device.call_bytes("SubmitUpdate", request)
    parts = list(stream_parts(header, payload, DOWNLOAD_CHUNK_BYTES))
    return lambda: device.stream_bytes("StreamUpdate", parts)


def check_start(scene: Scene, task: Task, downloads: Sequence[bytes]) -> None:
    """Devices start from what the service says that they do."""
    config = task.config
    _, adapter = scene.latest(task)
    limits = DecodeLimits(dim=config.layout.dim, max_nnz=config.layout.dim, max_abs_value=1e30)
    assert len(set(downloads)) == 1
    start = scene.timed(
        "start from a download",
        lambda: config.base.start_from(config.layout, decode_segments(downloads[0], limits)),
    )
    expected = device_weights(config, load_masters(scene.store, scene.blobs, task, adapter.version))
    assert start.tobytes() == expected.tobytes()


def exact_next(
    scene: Scene, task: Task, base: Adapter, sent: Mapping[bytes, int]
) -> NDArray[np.float32]:
    """The next version from sums in steps of 2**-40, where each payload was sent so many times."""
    config = task.config
    dim = config.layout.dim
    sums = np.zeros(dim, dtype=np.int64)
    for payload, times in sent.items():
        vector = decode(payload, DecodeLimits(dim=dim, max_nnz=dim, max_abs_value=64.0))
        steps = np.rint(np.ldexp(vector.values.astype(np.float64), 40))
        sums[vector.indices] += times * steps.astype(np.int64)
    mean = sums / (2.0**40 * sum(sent.values()))
    weights = load_weights(scene.blobs, base)
    return config.optimizer.apply(weights, mean, load_state(scene.blobs, base))[0]


def check_export(scene: Scene, task: Task) -> None:
    _, adapter = scene.latest(task)
    masters = load_masters(scene.store, scene.blobs, task, adapter.version)
    export = Export(task=task, adapter=adapter, masters=masters)
    archive = scene.timed("export", lambda: export.peft_zip(WeightsKind.MASKED))
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        tensors = load(files.read("adapter_model.safetensors"))
    expected = task.config.layout.split(device_weights(task.config, masters))
    for name, tensor in expected.items():
        assert np.array_equal(tensors.pop(peft_name(name)), tensor)
    assert not tensors


def chunk_reads(scene: Scene, task: Task, repeats: int = 20) -> float:
    """The seconds in which the store reads the last download, chunk by chunk."""
    rounds = scene.store.read(
        "look", lambda tx: tx.rounds.page(task.id, limit=2, before_number=None)
    )
    download = rounds[-1].downloads[""]
    assert download is not None
    started = time.perf_counter()
    for _ in range(repeats):
        for offset in range(0, download.size_bytes, DOWNLOAD_CHUNK_BYTES):
            scene.blobs.read(download.key, offset, DOWNLOAD_CHUNK_BYTES)
    return (time.perf_counter() - started) / repeats


def reset_peak(pid: int) -> int:
    """Bytes that are resident now, and from which the largest number is counted anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return memory_of(pid)["VmRSS"]


def memory_of(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) << 10 for name, _, value in fields}


if __name__ == "__main__":
    main()
