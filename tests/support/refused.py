"""Calls that are meant to fail, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.support.device import SERVICE, SyntheticDevice


def call(device: SyntheticDevice, method: str, data: bytes) -> object:
    """One message on any rpc, unary or not."""
    if method == "DownloadAdapter":
        return device.receive_bytes(method, data)
    if method == "StreamUpdate":
        return device.stream_bytes(method, [data])
    return device.call_bytes(method, data)


def refused(send: Callable[..., object], *arguments: object, **named: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        send(*arguments, **named)
    return error.value


def multicallable(channel: grpc.Channel, method: str) -> Any:
    # Its stubs know no callable without serializers.
    return channel.unary_unary(SERVICE + method)


def trailers_of(error: grpc.RpcError) -> dict[str, str | bytes]:
    trailers: Any = error.trailing_metadata() or ()
    return dict(trailers)
