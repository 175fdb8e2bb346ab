"""The images and the compose file, built and run for real behind TLS and with PostgreSQL."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest
import trustme

from flasc_core.errors import Reason
from tests.support.containers import DEPLOY, Compose, Engine, NoEngine, container_engine, wait_until
from tests.support.device import SyntheticDevice, reason_of
from tests.support.patience import PATIENCE_SECONDS

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

IMAGES: Final = {"aggregator": "flasc-aggregator:test", "admin": "flasc-admin:test"}
UID: Final = 10001


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        with container_engine() as engine:
            engine.run(str(DEPLOY / "local_base_image.sh"), "python", "postgres")
            for target, tag in IMAGES.items():
                engine.build(target, tag)
            yield engine
    except NoEngine as reason:
        pytest.skip(str(reason))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Deployment:
    compose: Compose
    certificates: bytes
    grpc_port: int
    http_port: int

    def admin(self, key: str = "") -> httpx.Client:
        return httpx.Client(
            base_url=f"https://localhost:{self.http_port}",
            verify=ssl.create_default_context(cadata=self.certificates.decode()),
            headers={"authorization": f"Bearer {key}"} if key else {},
        )

    def refusal_of_a_stranger(self) -> tuple[grpc.StatusCode, Reason]:
        credentials = grpc.ssl_channel_credentials(self.certificates)
        options = (("grpc.use_local_subchannel_pool", 1),)
        address = f"localhost:{self.grpc_port}"
        with grpc.secure_channel(address, credentials, options=options) as channel:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE_SECONDS)
            with pytest.raises(grpc.RpcError) as refused:
                SyntheticDevice(channel, "nobody").check_in("a-task")
        return refused.value.code(), reason_of(refused.value)

    def answers(self, key: str) -> bool:
        try:
            with self.admin(key) as admin:
                return admin.get("/v1/tasks").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def deployment(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    authority = trustme.CA()
    ports = (free_port(), free_port())
    env_file = write_settings(folder, authority, ports)
    compose = Compose(
        engine,
        f"flasc-test-{os.getpid()}",
        env_file,
        AGGREGATOR_IMAGE=IMAGES["aggregator"],
        ADMIN_IMAGE=IMAGES["admin"],
    )
    try:
        compose("up", "--detach", "--no-build")
        for service in ("aggregator", "admin"):
            compose.wait_healthy(service)
        yield Deployment(compose, authority.cert_pem.bytes(), *ports)
    finally:
        compose("down", "--volumes", "--timeout", "20")


def write_settings(folder: Path, authority: trustme.CA, ports: tuple[int, int]) -> Path:
    """deploy/env.example, filled in as its comments say."""
    tls = folder / "tls"
    tls.mkdir()
    server = authority.issue_cert("localhost")
    (tls / "server.key").write_bytes(server.private_key_pem.bytes())
    (tls / "server.pem").write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
    # Readable by the container's user, whatever this machine's default is.
    tls.chmod(tls.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)
    for file in tls.iterdir():
        file.chmod(0o644)
    password = secrets.token_hex(24)
    text = (DEPLOY / "env.example").read_text()
    for old, new in {
        "POSTGRES_PASSWORD=\n": f"POSTGRES_PASSWORD={password}\n",
        ":PASSWORD@": f":{password}@",
        "TLS_FOLDER=./tls": f"TLS_FOLDER={tls}",
        "GRPC_PUBLISH=0.0.0.0:8470": f"GRPC_PUBLISH=127.0.0.1:{ports[0]}",
        "ADMIN_PUBLISH=127.0.0.1:8471": f"ADMIN_PUBLISH=127.0.0.1:{ports[1]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    env_file = folder / "env"
    env_file.write_text(text)
    return env_file


@pytest.fixture(scope="module")
def key(deployment: Deployment) -> str:
    return deployment.compose("exec", "-T", "admin", "flasc", "keys", "create", "test")


@pytest.mark.parametrize("image", IMAGES.values(), ids=list(IMAGES))
def test_a_service_image_holds_no_torch(engine: Engine, image: str) -> None:
    # Its libraries and its metadata: others have folders of its name for what they share with it.
    marks = "f.startswith(('libtorch', 'torch-'))"
    code = f"import os; print([f for _, ds, fs in os.walk('/') for f in ds + fs if {marks}])"

    assert engine.python(image, code, "--user=0") == "[]"
    finds = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('numpy').name)"
    assert engine.python(image, finds) == "None numpy"


@pytest.mark.parametrize("image", IMAGES.values(), ids=list(IMAGES))
def test_a_service_image_runs_as_an_ordinary_user(engine: Engine, image: str) -> None:
    assert engine.inspect(image)["Config"]["User"] == f"{UID}:{UID}"
    assert engine.python(image, "import os; print(os.getuid(), os.getgid())") == f"{UID} {UID}"


@pytest.mark.parametrize("image", IMAGES.values(), ids=list(IMAGES))
def test_no_package_cache_is_left_in_a_service_image(engine: Engine, image: str) -> None:
    code = (
        "import os; print([p for p in ('/root/.cache', '/build', '/wheel') if os.path.exists(p)])"
    )

    assert engine.python(image, code, "--user=0") == "[]"


def test_only_the_admin_image_holds_the_web_framework(engine: Engine) -> None:
    code = "import importlib.util as u; print(u.find_spec('fastapi') is not None)"

    assert engine.python(IMAGES["aggregator"], code) == "False"
    assert engine.python(IMAGES["admin"], code) == "True"


@pytest.mark.parametrize("image", IMAGES.values(), ids=list(IMAGES))
def test_a_service_image_refuses_to_serve_in_the_clear_unless_told(
    engine: Engine, image: str
) -> None:
    refused = engine.docker("run", "--rm", image, check=False)

    assert refused.returncode == 2
    assert "without TLS" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("service", ["aggregator", "driver", "admin", "postgres"])
def test_a_composed_service_has_no_privilege_and_nothing_to_write_to(
    deployment: Deployment, service: str
) -> None:
    container = deployment.compose.state(service)

    assert container["State"]["Running"]
    assert container["HostConfig"]["ReadonlyRootfs"]
    status = deployment.compose("exec", "-T", service, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert "0" not in fields["Uid"].split()


def test_the_migration_job_ends_before_the_services_start(deployment: Deployment) -> None:
    migrate = deployment.compose.state("migrate")["State"]

    assert (migrate["Status"], migrate["ExitCode"]) == ("exited", 0)
    assert migrate["FinishedAt"] < deployment.compose.state("aggregator")["State"]["StartedAt"]


def test_a_key_made_in_a_container_opens_the_admin_api(deployment: Deployment, key: str) -> None:
    with deployment.admin(key) as admin:
        answer = admin.get("/v1/tasks")
    with deployment.admin() as stranger:
        refused = stranger.get("/v1/tasks")

    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert refused.status_code == 401


def test_a_device_that_nobody_enrolled_is_refused(deployment: Deployment) -> None:
    found = deployment.refusal_of_a_stranger()

    assert found == (grpc.StatusCode.UNAUTHENTICATED, Reason.CREDENTIAL_INVALID)


@pytest.mark.parametrize("service", ["aggregator", "admin", "postgres"])
def test_a_service_that_is_killed_comes_back(
    deployment: Deployment, key: str, service: str
) -> None:
    deployment.compose.kill(service, IMAGES["aggregator"])

    deployment.compose.wait_healthy(service)
    wait_until(lambda: deployment.answers(key))
    code, _ = deployment.refusal_of_a_stranger()
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_the_driver_ends_at_once_when_it_is_asked_to(deployment: Deployment) -> None:
    deployment.compose("stop", "driver")

    assert deployment.compose.state("driver")["State"]["ExitCode"] == 0
