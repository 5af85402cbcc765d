"""Media are read from folder and zip alike, never from outside them, and stored under their content's hash."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest

from fuserank.errors import InputError, MediaError
from fuserank.records import media
from fuserank.records.media import MediaSource, extension, media_path, store

DATA = b"\x89PNG\r\n\x1a\n" + b"x" * 50


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> MediaSource:
    (tmp_path / "secret.png").write_bytes(b"secret")
    if request.param == "folder":
        (tmp_path / "shop" / "a").mkdir(parents=True)
        (tmp_path / "shop" / "a" / "1.png").write_bytes(DATA)
        (tmp_path / "shop" / "link.png").symlink_to(tmp_path / "secret.png")
        return MediaSource(tmp_path, "shop")
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("a/1.png", DATA)
        archive.writestr("../secret.png", b"secret")
    return MediaSource(tmp_path, "shop.zip")


def test_reads_also_after_travelling(source: MediaSource) -> None:
    assert source.read("a/1.png") == DATA
    assert pickle.loads(pickle.dumps(source)).read("a/1.png") == DATA
    assert source.read("/a/1.png") == DATA  # a shop's web root


@pytest.mark.parametrize("name", ["../secret.png", "/../secret.png", "a/../../secret.png", "..\\secret.png", "a\0b"])
def test_never_leaves_the_source(source: MediaSource, name: str) -> None:
    with pytest.raises(MediaError, match="forbidden path"):
        source.read(name)


@pytest.mark.parametrize("name", ["a/2.png", "a", "", "a/1.png/b", "link.png", "/etc/hostname"])
def test_unusable_names(source: MediaSource, name: str) -> None:
    with pytest.raises(MediaError, match=r"missing file|forbidden path|unreadable file"):
        source.read(name)


def test_large_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(100_000))
    with pytest.raises(MediaError, match="file too large"):
        MediaSource(tmp_path, "bomb.zip").read("zeros.png")


def test_damaged_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", b"abcdefgh" * 10)
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(whole.replace(b"abcdefgh", b"abcdefgX", 1))
    with pytest.raises(MediaError, match="unreadable file"):
        MediaSource(tmp_path, "x.zip").read("1.png")


def test_missing_source_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"records\.images\.source"):
        MediaSource(tmp_path, "none.zip")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        MediaSource(tmp_path, "no.zip")


def test_store_is_content_addressed(tmp_path: Path) -> None:
    name = store(tmp_path, DATA)
    assert name == hashlib.sha256(DATA).hexdigest() + ".png"
    assert store(tmp_path, DATA) == name
    assert media_path(tmp_path, name).read_bytes() == DATA
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / name[:2] / name]
    assert extension(b"RIFF\0\0\0\0WAVE") == "wav"
    assert extension(b"<html>") == "bin"
