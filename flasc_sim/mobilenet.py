"""MobileNet v1 (arXiv 1704.04861) with pretrained weights from one safetensors file.

The file names conv1, then dw.N and pw.N for N = 0 to 12, each with `conv` and batch norm `bn`, and
a head that is left out here. Images are in [-1, 1]; strides of 2 pad right and below, as the
weights' own framework does. Here conv1 is the stem, and dw.N and pw.N make layer N, so that layer
numbers begin at 0 where the paper's blocks begin at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["MobileNet", "load_mobilenet"]

_STRIDES: Final = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_EPSILON: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    hidden_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """`last_hidden_state` is (batch, 1, width): the mean over positions, as one of them."""

    last_hidden_state: Tensor


class MobileNet(nn.Module):
    """All but the head; `widths` are the channels after the stem and after every layer."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        if len(widths) != 1 + len(_STRIDES):
            raise ValueError(f"MobileNet has {1 + len(_STRIDES)} widths, not {len(widths)}")
        self.stem = _Convolution(3, widths[0], size=3, stride=2)
        self.layers = nn.ModuleList(
            _Layer(before, after, stride)
            for before, after, stride in zip(widths, widths[1:], _STRIDES, strict=False)
        )
        self.config = _Config(hidden_size=widths[-1])

    def forward(self, pixel_values: Tensor) -> Features:
        states = self.stem(pixel_values)
        for layer in self.layers:
            states = layer(states)
        return Features(last_hidden_state=states.mean(dim=(2, 3)).unsqueeze(1))


class _Convolution(nn.Module):
    def __init__(self, before: int, after: int, *, size: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            before,
            after,
            size,
            stride=stride,
            padding=size // 2 if stride == 1 else 0,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(after, eps=_EPSILON)
        self.pads = stride > 1

    def forward(self, states: Tensor) -> Tensor:
        padded = nn.functional.pad(states, (0, 1, 0, 1)) if self.pads else states
        convolved: Tensor = self.bn(self.conv(padded))
        return nn.functional.relu6(convolved)


class _Layer(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.dw = _Convolution(before, before, size=3, stride=stride, groups=before)
        self.pw = _Convolution(before, after, size=1, stride=1)

    def forward(self, states: Tensor) -> Tensor:
        narrow: Tensor = self.pw(self.dw(states))
        return narrow


def load_mobilenet(file: Path, dtype: torch.dtype = torch.float32) -> MobileNet:
    """Raises OSError for a missing file and ValueError for one that is no MobileNet."""
    tensors = {_name(name): tensor for name, tensor in load_file(file).items()}
    try:
        widths = [tensors["stem.conv.weight"].shape[0]]
        widths += [tensors[f"layers.{n}.pw.conv.weight"].shape[0] for n in range(len(_STRIDES))]
        model = MobileNet(tuple(widths))
        model.load_state_dict(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
        )
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} holds no MobileNet v1: {error}") from error
    return model.to(dtype).requires_grad_(False).eval()


def _name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "conv1":
        return f"stem.{rest}"
    if part in ("dw", "pw"):
        number, _, rest = rest.partition(".")
        return f"layers.{number}.{part}.{rest}"
    return name
