"""Many devices in one process, each waiting for its receipt before it sends again.

Reads a plan as JSON from stdin; prints the seconds of every upload and of all of them together.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import grpc

__all__ = ["Plan", "Timings", "run"]

_SUBMIT: Final = "/flasc.v1.DeviceService/SubmitUpdate"
_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`requests` holds serialized SubmitUpdateRequests by credential."""

    port: int
    requests: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    seconds: float
    uploads: list[float]


def run(plan: Plan) -> Timings:
    """Runs the plan in a process of its own."""
    encoded = {
        credential: [b64encode(request).decode() for request in requests]
        for credential, requests in plan.requests.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._devices"],
        input=json.dumps({"port": plan.port, "requests": encoded}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_ROOT,
    )
    return Timings(**json.loads(done.stdout))


async def _upload(port: int, credential: str, requests: Sequence[bytes]) -> list[float]:
    # A connection of its own, as every device has one.
    options = (("grpc.use_local_subchannel_pool", 1),)
    seconds = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        submit: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SUBMIT)
        for request in requests:
            started = time.perf_counter()
            await submit(request, metadata=(("authorization", f"Bearer {credential}"),))
            seconds.append(time.perf_counter() - started)
    return seconds


async def _run(plan: Plan) -> Timings:
    started = time.perf_counter()
    of_devices = await asyncio.gather(
        *(
            _upload(plan.port, credential, requests)
            for credential, requests in plan.requests.items()
        )
    )
    seconds = time.perf_counter() - started
    return Timings(seconds=seconds, uploads=[one for device in of_devices for one in device])


def main() -> None:
    given = json.load(sys.stdin)
    requests = {
        credential: [b64decode(request) for request in requests]
        for credential, requests in given["requests"].items()
    }
    plan = Plan(port=given["port"], requests=requests)
    print(json.dumps(asdict(asyncio.run(_run(plan)))))


if __name__ == "__main__":
    main()
