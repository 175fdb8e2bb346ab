"""TLS is the default, and nothing leaves the device unless the server proves who it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme

from client_sdk import ConnectionFailed, Participant, RetryPolicy
from flasc_core.sparse import SparseVector
from tests.integration.sdk.conftest import LAYOUT, RULE
from tests.support.scripted_service import Peer

Join = Callable[..., Participant]
ONE_ATTEMPT = RetryPolicy(
    max_attempts=1, first_delay_seconds=1.0, max_delay_seconds=1.0, total_seconds=1.0
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_with(authority: trustme.CA, start: SparseVector) -> Peer:
    issued = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())]
    )
    return Peer(LAYOUT, start, RULE, server_credentials=credentials)


def test_a_participant_talks_tls_to_a_server_it_can_verify(
    authority: trustme.CA, join: Join, start: SparseVector
) -> None:
    roots = authority.cert_pem.bytes()
    with (
        served_with(authority, start) as peer,
        join(address=peer.address, insecure=False, tls_root_certificates=roots) as participant,
    ):
        assert participant.run().finished


def test_another_authoritys_server_learns_nothing(
    authority: trustme.CA, join: Join, start: SparseVector
) -> None:
    roots = trustme.CA().cert_pem.bytes()
    with served_with(authority, start) as peer:
        with (
            join(
                address=peer.address,
                insecure=False,
                tls_root_certificates=roots,
                call_retries=ONE_ATTEMPT,
            ) as participant,
            pytest.raises(ConnectionFailed),
        ):
            participant.step()
        assert peer.calls == []


def test_without_typing_insecure_a_plain_server_is_not_talked_to(peer: Peer, join: Join) -> None:
    with (
        join(insecure=False, call_retries=ONE_ATTEMPT) as participant,
        pytest.raises(ConnectionFailed),
    ):
        participant.step()

    assert peer.calls == []


def test_certificates_with_insecure_are_a_contradiction(join: Join, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="insecure"):
        join(tls_root_certificates=b"pem", insecure=True)
    # The folder is free again.
    join().close()
