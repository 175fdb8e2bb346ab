"""What the last bits of a run depend on beside its settings, its data and its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import torch

__all__ = ["Numerics", "device_name"]

_PACKAGES: Final = ("numpy", "peft", "torch", "transformers")


def device_name(device: str) -> str:
    """Return "cpu" for it, and for "cuda" the model of this process's GPU."""
    return torch.cuda.get_device_name() if device == "cuda" else device


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """`device` is what devices train on, "cpu" or the model of a GPU; `threads` are of one process.

    `instructions` are the vector instructions that torch chooses its kernels by, as AVX2.
    """

    device: str
    threads: int
    instructions: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, device: str) -> Numerics:
        """Return those of this process, with devices trained on `device`."""
        return cls(
            device=device,
            threads=torch.get_num_threads(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            versions={package: version(package) for package in _PACKAGES},
        )

    def check_same(self, now: Numerics) -> None:
        """Raise ValueError that names what differs `now`."""
        differing = [
            f"{name} {was}, not {found}"
            for (name, was), (_, found) in zip(self._named(), now._named(), strict=True)
            if was != found
        ]
        if differing:
            raise ValueError(
                f"the run was begun with {'; '.join(differing)}, and would not end in the same "
                "bits; go on with what it was begun with, or begin a new one in another folder"
            )

    def _named(self) -> Iterator[tuple[str, str]]:
        yield "device", self.device
        yield "threads", str(self.threads)
        yield "instructions", self.instructions
        yield from self.versions.items()
