"""Pieces of one payload make it up again; those of others are never among them."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID

import pytest

from aggregator_service.app.upload_pieces import UploadPieces
from aggregator_service.store.blobs import BlobMissing
from aggregator_service.store.memory import MemoryBlobs
from tests.builders import digest

PAYLOAD, OTHER = digest("a payload"), digest("another")
DATA = b"0123456789"
CUTS = [(0, b"0123"), (4, b"4567"), (8, b"89")]


def some_pieces(blobs: MemoryBlobs | None = None, *, assignment: int = 7) -> UploadPieces:
    return UploadPieces(
        blobs=MemoryBlobs() if blobs is None else blobs,
        round_id=UUID(int=1),
        assignment_id=UUID(int=assignment),
    )


def keys(pieces: UploadPieces) -> list[str]:
    return sorted(pieces.blobs.keys("rounds/"))


@pytest.mark.parametrize("order", list(permutations(CUTS)))
def test_pieces_make_up_the_payload_in_whatever_order_they_came(
    order: list[tuple[int, bytes]],
) -> None:
    pieces = some_pieces()
    for start, data in order:
        with pytest.raises(BlobMissing):
            pieces.read(PAYLOAD, len(DATA))
        pieces.put(PAYLOAD, len(DATA), start, data)
    assert pieces.durable_bytes(PAYLOAD) == len(DATA)
    assert pieces.read(PAYLOAD, len(DATA)) == DATA


def test_what_comes_after_a_gap_is_not_leading() -> None:
    pieces = some_pieces()
    assert pieces.durable_bytes(PAYLOAD) == 0
    pieces.put(PAYLOAD, len(DATA), *CUTS[0])
    pieces.put(PAYLOAD, len(DATA), *CUTS[2])
    assert pieces.durable_bytes(PAYLOAD) == pieces.durable_bytes(PAYLOAD, len(DATA)) == 4
    with pytest.raises(BlobMissing):
        pieces.read(PAYLOAD, len(DATA))


def test_a_repeated_piece_takes_up_nothing_more() -> None:
    pieces = some_pieces()
    for _ in range(2):
        pieces.put(PAYLOAD, len(DATA), *CUTS[0])
    assert len(keys(pieces)) == 1


def test_of_two_contents_for_one_place_the_same_one_stays_whichever_came_first() -> None:
    rivals = [b"abcd", b"efgh"]
    left = []
    for order in (rivals, rivals[::-1]):
        pieces = some_pieces()
        for data in order:
            pieces.put(PAYLOAD, len(DATA), 0, data)
        left.append(keys(pieces))
        assert pieces.durable_bytes(PAYLOAD) == 4
    assert left[0] == left[1]
    assert len(left[0]) == 1


@pytest.mark.parametrize(("payload", "size"), [(OTHER, len(DATA)), (PAYLOAD, len(DATA) + 1)])
def test_a_piece_of_another_payload_drops_what_there_was(payload: bytes, size: int) -> None:
    pieces = some_pieces()
    pieces.put(PAYLOAD, len(DATA), *CUTS[0])
    assert pieces.durable_bytes(payload, size) == 0
    pieces.put(payload, size, 4, b"efgh")
    assert pieces.durable_bytes(PAYLOAD, len(DATA)) == 0
    assert len(keys(pieces)) == 1


def test_dropping_leaves_other_payloads_and_other_assignments_alone() -> None:
    blobs = MemoryBlobs()
    # The second one shares the folder.
    ours, theirs = some_pieces(blobs), some_pieces(blobs, assignment=0x107)
    for pieces in (ours, theirs):
        pieces.put(PAYLOAD, len(DATA), *CUTS[0])
    ours.drop(OTHER)
    assert ours.durable_bytes(PAYLOAD) == 4
    ours.put(OTHER, len(DATA), *CUTS[0])
    ours.drop(OTHER)
    ours.drop(OTHER)
    assert ours.durable_bytes(OTHER) == 0
    assert theirs.durable_bytes(PAYLOAD) == 4


def test_nothing_is_whole_where_nothing_is_to_come() -> None:
    assert some_pieces().read(PAYLOAD, 0) == b""
