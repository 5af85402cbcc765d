"""A shop's pictures and sounds: read from a folder or a zip, kept as content-addressed files `<2 hex>/<sha256>.<ext>`.

Reads a folder or a zip; `store` writes one file.
"""

import hashlib
import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from fuserank.errors import InputError, MediaError

MAX_BYTES = 64 * 1024 * 1024  # of one picture or sound, unpacked
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
)


class MediaSource:
    """Pictures or sounds by path, from a folder or a zip file. Picklable: a zip is opened once in each process."""

    def __init__(self, path: Path, key: str = "records.images.source"):
        """Takes the folder or zip and the config key that named it.

        Raises:
            InputError: there is no such folder or zip.
        """
        self._path, self._zip = path, path.is_file()
        if self._zip and not zipfile.is_zipfile(path):
            raise InputError(f"{key}: {path} is not a zip file.", "Give a folder or a zip file below records.root.")
        if not self._zip and not path.is_dir():
            raise InputError(
                f"{key}: {path} does not exist.",
                "Give a folder or a zip file below records.root, or correct records.root.",
            )

    def read(self, name: str) -> bytes:
        """The bytes of one medium.

        Args:
            name: its path inside the folder or zip, with forward slashes.

        Raises:
            MediaError: "missing file: …", "forbidden path: …", "file too large: …" or "unreadable file: …".
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise MediaError(f"forbidden path: {name!r} leaves the media folder")
        try:
            return self._from_zip(name) if self._zip else self._from_folder(name)
        except (KeyError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MediaError(f"missing file: {name}") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted
            raise MediaError(f"unreadable file: {name}: {error}") from None

    def _from_zip(self, name: str) -> bytes:
        status = self._path.stat()
        archive = _archive(str(self._path), status.st_size, status.st_mtime_ns)
        info = archive.getinfo(name)
        if info.is_dir():
            raise KeyError(name)
        _limit(name, info.file_size)
        with archive.open(info) as stream:
            return _limited(name, stream.read(MAX_BYTES + 1))  # the size in a zip's directory may be a lie

    def _from_folder(self, name: str) -> bytes:
        file, root = (self._path / name).resolve(), self._path.resolve()
        if not file.is_relative_to(root):
            raise MediaError(f"forbidden path: {name!r} leaves the media folder")
        _limit(name, file.stat().st_size)
        return _limited(name, file.read_bytes())


@lru_cache(maxsize=4)
def _archive(path: str, _size: int, _modified: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _limit(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise MediaError(f"file too large: {name} has {size} bytes, limit {MAX_BYTES}")


def _limited(name: str, data: bytes) -> bytes:
    _limit(name, len(data))
    return data


def extension(data: bytes) -> str:
    """File extension by the content's first bytes, `bin` if unknown; a shop's own file name is not trusted."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] in (b"WAVE", b"WEBP"):
        return "wav" if data[8:12] == b"WAVE" else "webp"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "mp3"
    return "bin"


def media_name(data: bytes) -> str:
    """`<sha256>.<ext>`: what a record holds."""
    return f"{hashlib.sha256(data).hexdigest()}.{extension(data)}"


def media_path(folder: Path, name: str) -> Path:
    """Where the medium of that name lies below the media folder."""
    return folder / name[:2] / name


def store(folder: Path, data: bytes) -> str:
    """Write a medium below the media folder unless it is there already; returns its name. Safe from many processes."""
    name = media_name(data)
    path = media_path(folder, name)
    if not (path.is_file() and path.stat().st_size == len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    return name
