"""A shop's pictures and sounds: read from a folder or a zip, kept as content-addressed files `<2 hex>/<sha256>.<ext>`.

Reads a folder or a zip; `store` writes one file.
"""

import hashlib
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from fuserank.artifacts import flush
from fuserank.errors import InputError, MediaError
from fuserank.files import Folder, folder_of

_T = TypeVar("_T")
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

    def __init__(
        self, root: Folder | Path, name: str = "", key: str = "records.images.source", addressed: bool = False
    ):
        """Takes the shop's folder, the name of the folder or zip in it, and the config key that named it.

        Args:
            addressed: the paths themselves say the content, as those of `store` do.

        Raises:
            InputError: there is no such folder or zip.
        """
        self._root, self._name, self._addressed = folder_of(root), name, addressed
        self._zip = bool(name) and self._root.is_file(name)
        hint = "Give a folder or a zip file below records.root, or correct records.root."
        if self._zip:
            with self._root.open(name) as stream:
                if not zipfile.is_zipfile(stream):
                    raise InputError(f"{key}: {root}/{name} is not a zip file.", hint)
        elif not self._root.is_folder(name):
            raise InputError(f"{key}: {root}/{name} does not exist.", hint)
        self._folder = self._root if self._zip or not name else self._root.join(name)

    def read(self, name: str) -> bytes:
        """The bytes of one medium.

        Args:
            name: its path inside the folder or zip, with forward slashes; a leading one is a shop's web root.

        Raises:
            MediaError: "missing file: …", "forbidden path: …", "file too large: …" or "unreadable file: …".
        """
        return self._guarded(name, self._from_zip if self._zip else self._from_folder)

    def stamp(self, name: str) -> tuple[int, int]:
        """Two numbers that change with the medium: size and checksum in a zip, size and time elsewhere.

        Raises:
            MediaError: as `read`.
        """
        if self._addressed:
            return 0, 0
        return self._guarded(name, self._zip_stamp if self._zip else self._folder_stamp)

    def _guarded(self, name: str, find: Callable[[str], _T]) -> _T:
        inside = name.lstrip("/")
        if ".." in PurePosixPath(inside).parts or "\\" in name or "\0" in name:
            raise MediaError(f"forbidden path: {name!r} leaves the media folder")
        try:
            return find(inside)
        except (KeyError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MediaError(f"missing file: {name}") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted
            raise MediaError(f"unreadable file: {name}: {error}") from None

    def _archive(self) -> zipfile.ZipFile:
        return _archive(self._root, self._name, *self._root.stamp(self._name))

    def _from_zip(self, name: str) -> bytes:
        archive = self._archive()
        info = archive.getinfo(name)
        if info.is_dir():
            raise KeyError(name)
        _limit(name, info.file_size)
        with archive.open(info) as stream:
            return _limited(name, stream.read(MAX_BYTES + 1))  # the size in a zip's directory may be a lie

    def _from_folder(self, name: str) -> bytes:
        self._contained(name)
        _limit(name, self._folder.stamp(name)[0])
        with self._folder.open(name) as stream:
            return _limited(name, stream.read(MAX_BYTES + 1))

    def _zip_stamp(self, name: str) -> tuple[int, int]:
        info = self._archive().getinfo(name)
        return info.file_size, info.CRC

    def _folder_stamp(self, name: str) -> tuple[int, int]:
        self._contained(name)
        return self._folder.stamp(name)

    def _contained(self, name: str) -> None:
        local = self._folder.local
        if local is not None and not (local / name).resolve().is_relative_to(local.resolve()):
            raise MediaError(f"forbidden path: {name!r} leaves the media folder")


@lru_cache(maxsize=4)
def _archive(root: Folder, name: str, _size: int, _modified: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(root.open(name))


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


def store(folder: Path, data: bytes, durable: bool = False) -> str:
    """Write a medium below the media folder unless it is there already; returns its name. Safe from many processes and
    threads.

    Args:
        durable: it is on disk on return, its entry in the folder too.
    """
    name = media_name(data)
    path = media_path(folder, name)
    if not (path.is_file() and path.stat().st_size == len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        temporary.replace(path)
    if durable:  # also where another one has just put it there
        for part in (path.parent, folder):
            flush(part)
    return name


def paths_for(
    mapped: Mapping[str, Any], names: Sequence[str], keep: Callable[[bytes], str] | None
) -> Mapping[str, Any]:
    """A mapped row with paths in place of the media that stand in it as bytes, one or a list of them.

    Args:
        names: the fields that may hold media. keep: puts bytes somewhere and says where; None where none stand in rows.
    """
    if keep is None:
        return mapped

    def path(value: Any) -> Any:
        if isinstance(value, list):
            return [path(part) for part in value]
        return keep(value) if isinstance(value, bytes) and value else value

    return {**mapped, **{name: path(mapped[name]) for name in names if name in mapped}}
