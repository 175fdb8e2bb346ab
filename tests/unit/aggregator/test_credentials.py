"""Secrets of devices and operators: who they claim to be, and whether that is so."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.domain.credentials import SecretKind, claimed_id, matches, mint
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, an_api_key

OWNER = UUID(int=0xABCDEF)


@given(kind=st.sampled_from(SecretKind), owner=st.uuids())
def test_a_secret_claims_its_owner_and_matches_its_hash(kind: SecretKind, owner: UUID) -> None:
    secret, stored = mint(kind, owner)
    assert secret.startswith(f"{kind}_{owner.hex}_")
    assert claimed_id(kind, secret) == owner
    assert stored == sha256(secret.encode()).digest()
    assert matches(secret, stored)


def test_no_two_secrets_of_one_owner_are_alike() -> None:
    secrets = {mint(SecretKind.DEVICE, OWNER)[0] for _ in range(100)}
    assert len(secrets) == 100


def test_another_secret_of_the_same_owner_does_not_match() -> None:
    _, stored = mint(SecretKind.DEVICE, OWNER)
    other, _ = mint(SecretKind.DEVICE, OWNER)
    assert not matches(other, stored)


def test_a_secret_that_differs_in_its_last_character_does_not_match() -> None:
    secret, stored = mint(SecretKind.DEVICE, OWNER)
    assert not matches(secret[:-1] + ("A" if secret[-1] != "A" else "B"), stored)


def test_the_hash_of_a_secret_is_no_secret_itself() -> None:
    secret, stored = mint(SecretKind.API_KEY, OWNER)
    assert not matches(stored.hex(), stored)
    assert secret.encode() not in stored


SOUND = f"fld_{OWNER.hex}_{'x' * 43}"


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "fld",
        SOUND[:-1],
        SOUND + "x",
        SOUND + "\n",
        " " + SOUND,
        SOUND.replace("fld_", "flk_"),
        SOUND.replace("fld_", "fld-"),
        SOUND.replace(OWNER.hex, OWNER.hex.upper()),
        SOUND.replace(OWNER.hex, OWNER.hex[:-1]),
        SOUND.replace(OWNER.hex, str(OWNER)),
        SOUND[:-1] + "é",
        SOUND[:-1] + "/",
        SOUND[:-1] + "\0",
    ],
)
def test_what_is_not_of_the_form_claims_nobody(malformed: str) -> None:
    with pytest.raises(Refusal) as refused:
        claimed_id(SecretKind.DEVICE, malformed)
    assert refused.value.reason is Reason.CREDENTIAL_INVALID


def test_a_refusal_does_not_repeat_the_secret() -> None:
    with pytest.raises(Refusal) as refused:
        claimed_id(SecretKind.API_KEY, SOUND)
    assert SOUND not in refused.value.message
    assert SOUND not in str(dict(refused.value.facts))


def test_of_the_two_kinds_each_is_refused_in_the_other_s_place() -> None:
    for kind, other in ((SecretKind.DEVICE, SecretKind.API_KEY), tuple(SecretKind)[::-1]):
        secret, _ = mint(kind, uuid4())
        with pytest.raises(Refusal):
            claimed_id(other, secret)


def test_an_api_key_is_valid_until_just_before_it_expires() -> None:
    an_api_key(expires_at=NOW).check_valid(NOW - timedelta(microseconds=1))


def test_an_api_key_is_refused_from_when_it_expires() -> None:
    with pytest.raises(Refusal) as refused:
        an_api_key(expires_at=NOW).check_valid(NOW)
    assert refused.value.reason is Reason.CREDENTIAL_INVALID


def test_a_revoked_api_key_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        an_api_key(revoked_at=NOW).check_valid(NOW)
    assert refused.value.reason is Reason.CREDENTIAL_INVALID
