"""What every blob store promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregator_service.store.blobs import BlobMissing, BlobStore
from aggregator_service.store.folder_blobs import FolderBlobs
from aggregator_service.store.memory import MemoryBlobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FolderBlobs(tmp_path / "blobs") if request.param == "folder" else MemoryBlobs()


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096])
def test_what_was_put_is_got(blobs: BlobStore, data: bytes) -> None:
    blobs.put("adapters/0a-1", data)

    assert blobs.get("adapters/0a-1") == data


def test_putting_the_same_again_is_harmless(blobs: BlobStore) -> None:
    blobs.put("a/b", b"content")
    blobs.put("a/b", b"content")

    assert blobs.get("a/b") == b"content"
    assert list(blobs.keys("")) == ["a/b"]


def test_a_key_never_changes_its_content(blobs: BlobStore) -> None:
    blobs.put("a/b", b"first")
    blobs.put("a/b", b"second")

    assert blobs.get("a/b") == b"first"


def test_a_blob_nobody_put_is_missing(blobs: BlobStore) -> None:
    blobs.put("a/b", b"content")

    for key in ("a/c", "a", "a/b/c", "c"):
        with pytest.raises(BlobMissing):
            blobs.get(key)
        with pytest.raises(BlobMissing):
            blobs.read(key, 0, 1)


def test_a_part_is_read_from_an_offset(blobs: BlobStore) -> None:
    blobs.put("a", b"0123456789")

    assert blobs.read("a", 0, 4) == b"0123"
    assert blobs.read("a", 8, 4) == b"89"
    assert blobs.read("a", 9, 1) == b"9"
    assert blobs.read("a", 10, 1) == b""
    assert blobs.read("a", 99, 1) == b""
    assert blobs.read("a", 3, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_there_is_nothing_before_the_beginning(blobs: BlobStore, offset: int, length: int) -> None:
    blobs.put("a", b"0123456789")

    with pytest.raises(ValueError, match="negative"):
        blobs.read("a", offset, length)


def test_a_deleted_blob_is_missing_and_deleting_again_is_harmless(blobs: BlobStore) -> None:
    blobs.put("a/b", b"content")
    blobs.put("a/c", b"content")

    blobs.delete("a/b")
    blobs.delete("a/b")
    blobs.delete("never/there")

    with pytest.raises(BlobMissing):
        blobs.get("a/b")
    assert blobs.get("a/c") == b"content"


def test_a_deleted_key_can_be_put_again(blobs: BlobStore) -> None:
    blobs.put("a/b", b"content")
    blobs.delete("a/b")
    blobs.put("a/b", b"content")

    assert blobs.get("a/b") == b"content"


def test_keys_are_found_by_how_they_begin(blobs: BlobStore) -> None:
    for key in ("rounds/1/a", "rounds/1/b", "rounds/12/a", "rounds-old/a", "adapters/a"):
        blobs.put(key, b"")

    assert sorted(blobs.keys("rounds/1/")) == ["rounds/1/a", "rounds/1/b"]
    assert sorted(blobs.keys("rounds/1")) == ["rounds/1/a", "rounds/1/b", "rounds/12/a"]
    assert sorted(blobs.keys("ro")) == ["rounds-old/a", "rounds/1/a", "rounds/1/b", "rounds/12/a"]
    assert len(list(blobs.keys(""))) == 5
    assert list(blobs.keys("nothing/here")) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        ".incoming/a",
        "A",
        "a b",
        "a\\b",
        "a\n",
        "a\0",
        "ä",
    ],
)
def test_what_is_no_key_is_refused_everywhere(blobs: BlobStore, key: str) -> None:
    for use in (
        lambda: blobs.put(key, b""),
        lambda: blobs.get(key),
        lambda: blobs.read(key, 0, 1),
        lambda: blobs.delete(key),
    ):
        with pytest.raises(ValueError, match="blob key"):
            use()


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", ".incoming", "A"])
def test_what_no_key_begins_with_is_refused(blobs: BlobStore, prefix: str) -> None:
    with pytest.raises(ValueError, match="blob key"):
        list(blobs.keys(prefix))


def test_a_new_store_is_ready_and_empty(blobs: BlobStore) -> None:
    blobs.check_ready()

    assert list(blobs.keys("")) == []


def test_what_is_forgotten_leaves_no_folder_and_can_be_put_again(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    blobs = FolderBlobs(folder)
    for key in ("rounds/a/uploads/0f/one", "rounds/a/updates/two", "rounds/b/three"):
        blobs.put(key, b"content")
    for key in list(blobs.keys("rounds/a/")):
        blobs.delete(key)
    for _ in range(2):
        blobs.forget("rounds/a")

    assert [path.name for path in (folder / "rounds").iterdir()] == ["b"]
    blobs.put("rounds/a/updates/two", b"content")
    assert blobs.get("rounds/a/updates/two") == b"content"


def test_what_still_has_blobs_is_not_forgotten(blobs: BlobStore) -> None:
    blobs.put("rounds/a/one", b"content")
    blobs.forget("rounds/a")
    assert blobs.get("rounds/a/one") == b"content"
