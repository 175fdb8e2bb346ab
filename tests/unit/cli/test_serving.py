"""How the parts of one process end."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from flasc_cli.serving import stopped_together


def test_no_part_waits_for_another_to_have_stopped() -> None:
    async def serve() -> list[str]:
        meeting = asyncio.Barrier(3)
        stopped = []

        async def stop(name: str) -> None:
            async with asyncio.timeout(60):
                await meeting.wait()
            stopped.append(name)

        async with stopped_together() as stops:
            stops.extend(partial(stop, name) for name in ("aggregator", "admin", "driver"))
            assert stopped == []
        return stopped

    stopped = asyncio.run(serve())

    assert sorted(stopped) == ["admin", "aggregator", "driver"]


def test_a_part_that_fails_to_stop_cuts_no_other_short() -> None:
    finished = []

    async def serve() -> None:
        failed = asyncio.Event()

        async def fail() -> None:
            failed.set()
            raise RuntimeError("it does not stop")

        async def drain() -> None:
            async with asyncio.timeout(60):
                await failed.wait()
            await asyncio.sleep(0)
            finished.append("drain")

        async with stopped_together() as stops:
            stops.extend([fail, drain])

    with pytest.raises(RuntimeError, match="does not stop"):
        asyncio.run(serve())
    assert finished == ["drain"]
