"""The demo's byte counter: what goes through, what is counted, what happens without a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from flasc_cli.demo.forwarder import CountingForwarder, SocketBytes
from tests.support.patience import PATIENCE_SECONDS


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends everything back twice, until the client stops sending."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data + data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _exchange(port: int, data: bytes, answer_bytes: int) -> bytes:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(data)
        while len(answer) < answer_bytes:
            answer += connection.recv(65_536)
    return answer


def test_bytes_go_through_unchanged_and_are_counted_per_device_and_way(echo_port: int) -> None:
    data = bytes(range(256)) * 1000
    with CountingForwarder(("127.0.0.1", echo_port), ["first", "second"]) as forwarder:
        answer = _exchange(forwarder.ports["first"], data, 2 * len(data))
        _exchange(forwarder.ports["second"], b"abc", 6)
    assert len(answer) == 2 * len(data)
    assert forwarder.count("first") == SocketBytes(sent=len(data), received=2 * len(data))
    assert forwarder.count("second") == SocketBytes(sent=3, received=6)


def test_a_device_that_connects_again_goes_on_counting(echo_port: int) -> None:
    with CountingForwarder(("127.0.0.1", echo_port), ["device"]) as forwarder:
        for _ in range(3):
            _exchange(forwarder.ports["device"], b"abcd", 8)
    assert forwarder.count("device") == SocketBytes(sent=12, received=24)
    assert forwarder.connections("device") == 3


def test_without_a_server_the_connection_ends_at_once_and_nothing_is_counted() -> None:
    with socket.socket() as deaf:
        # Taken, so that nobody else gets it, and never listened on.
        deaf.bind(("127.0.0.1", 0))
        with CountingForwarder(deaf.getsockname(), ["device"]) as forwarder:
            address = ("127.0.0.1", forwarder.ports["device"])
            with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
                assert connection.recv(1) == b""
    assert forwarder.count("device") == SocketBytes()
    assert forwarder.connections("device") == 0


def test_closing_ends_open_connections(echo_port: int) -> None:
    with CountingForwarder(("127.0.0.1", echo_port), ["device"]) as forwarder:
        connection = socket.create_connection(
            ("127.0.0.1", forwarder.ports["device"]), timeout=PATIENCE_SECONDS
        )
        connection.sendall(b"ab")
        assert connection.recv(4)
    with connection:
        assert connection.recv(1_000) in {b"", b"abab"[2:], b"bab"}
