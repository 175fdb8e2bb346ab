"""Trains a round's devices on Ray workers: other processes, machines and GPUs.

Ray is a cluster that there is, or one of this machine alone in a process of its own, since Ray now
and then does not start in the half minute that it gives itself: that process ends with all that it
started, and another is tried.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from flasc_sim.engine import MakeEngine

__all__ = ["ray_engines", "workers_that_fit"]

_STARTS: Final = 3
_ON_THIS_MACHINE: Final = {
    # Ray's name for "more than this machine": without it all listens on loopback alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A token of this process and what it starts, instead of one in the user's home.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def ray_engines(
    *, workers: int, gpus_per_worker: float = 0.0, address: str | None = None
) -> Iterator[MakeEngine]:
    """Give engines of so many workers on the cluster at `address`, by default on this machine.

    With a share of a GPU, workers train on it, and results are the same only among equal GPUs.
    Raises ConnectionError where there is no cluster at the address or it has no room for so many
    workers, or Ray does not start here; RuntimeError where whoever calls has imported Ray, which
    reads its environment only then.
    """
    # Without it Ray warns of what it will do in another version.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with nullcontext(address) if address else _local_cluster(workers) as found:
        # Not before its environment is set.
        import ray  # noqa: PLC0415

        from flasc_sim.ray_workers import RayEngine  # noqa: PLC0415

        with ray.init(address=found, log_to_driver=False):
            nodes: Any = ray.nodes  # Ray gives it no types.
            fitting = workers_that_fit(nodes(), gpus_per_worker)
            if fitting < workers:
                raise ConnectionError(
                    f"the cluster has room for {fitting} workers of a CPU and {gpus_per_worker:g} "
                    f"GPUs each, not for {workers}: ask for fewer, or add machines to it first"
                )
            yield partial(RayEngine, workers=workers, gpus_per_worker=gpus_per_worker)


def workers_that_fit(nodes: Sequence[Mapping[str, Any]], gpus_per_worker: float) -> int:
    """Return how many workers machines as `ray.nodes()` tells them have room for, if idle."""
    fitting = 0
    for node in nodes:
        has = node["Resources"] if node["Alive"] else {}
        places = int(has.get("CPU", 0))
        if gpus_per_worker:
            gpus = int(has.get("GPU", 0))
            # A share of a GPU is of one; whole GPUs are taken together.
            shares = int(1 / gpus_per_worker) * gpus
            places = min(places, shares if gpus_per_worker <= 1 else int(gpus / gpus_per_worker))
        fitting += places
    return fitting


@contextmanager
def _local_cluster(workers: int) -> Iterator[str]:
    """Give the address of a cluster that ends with the block, or with this process."""
    if "ray" in sys.modules and not _ON_THIS_MACHINE.items() <= os.environ.items():
        raise RuntimeError("Ray is imported, and can not be kept on this machine any more")
    os.environ.update(_ON_THIS_MACHINE)
    command = [sys.executable, "-m", "flasc_sim.ray_head", str(workers)]
    for _ in range(_STARTS):
        with (
            tempfile.TemporaryFile("w+") as errors,
            # In a session of its own, so that Ctrl-C reaches it only through this process.
            subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours and a number
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as head,
        ):
            if head.stdout is None:
                raise AssertionError("its output is a pipe")
            address = head.stdout.readline().strip()
            if address:
                yield address
                return
            head.wait()
            errors.seek(0)
            reason = errors.read().strip().rpartition("\n")[2]
    raise ConnectionError(f"it did not start here in {_STARTS} tries: {reason}")
