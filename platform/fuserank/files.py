"""A folder of a shop's files: on disk, or by URL on any pyarrow or fsspec filesystem (`s3://`, `gs://`, `memory://` …).

Reads only. Paths are relative to the folder, with forward slashes; nothing outside it is ever opened.
"""

import fnmatch
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fuserank.errors import InputError


@dataclass(frozen=True)
class Folder:
    """Picklable: a process opens the filesystem when it first needs it.

    Args:
        root: an absolute path, or a URL.
    """

    root: str

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disk; None for one behind a URL."""
        if self.root.startswith("file://"):
            return Path(self.root.removeprefix("file://"))
        return None if "://" in self.root else Path(self.root)

    def join(self, name: str) -> "Folder":
        """The folder of that name inside this one."""
        return Folder(f"{self.root.rstrip('/')}/{_inside(name)}")

    def glob(self, pattern: str) -> list[str]:
        """Files whose path matches (`*` within a name, `**` across folders), sorted; none for a path that leads out."""
        try:
            pattern = _inside(pattern)
        except InputError:
            return []
        if self.local is not None:
            return sorted(p.relative_to(self.local).as_posix() for p in self.local.glob(pattern) if p.is_file())
        if not any(mark in pattern for mark in "*?["):
            return [pattern] if self.is_file(pattern) else []
        return sorted(name for name in self._names() if _matches(name, pattern))

    def is_file(self, name: str) -> bool:
        if self.local is not None:
            return (self.local / _inside(name)).is_file()
        return self._info(_inside(name)).is_file

    def is_folder(self, name: str = "") -> bool:
        if self.local is not None:
            return (self.local / _inside(name)).is_dir()
        from pyarrow.fs import FileType

        return self._info(_inside(name)).type == FileType.Directory

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream of the file's bytes.

        Raises:
            FileNotFoundError, OSError: there is no such file, or it cannot be reached.
        """
        if self.local is not None:
            return (self.local / _inside(name)).open("rb")
        files, base = _filesystem(self.root)
        return cast(IO[bytes], files.open_input_file(f"{base}/{_inside(name)}"))

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and modification time in nanoseconds: what tells that a file has changed."""
        if self.local is not None:
            return _stamp(self.local / _inside(name))
        info = self._info(_inside(name))
        if not info.is_file:
            raise FileNotFoundError(name)
        return info.size or 0, info.mtime_ns or 0

    def contents(self, name: str) -> str:
        """Hash of the names, sizes and times of all files below a folder of this one: what tells that any has changed.

        Costs one look at each file.
        """
        inside, digest = self.join(name), hashlib.sha256()
        local = inside.local
        if local is not None:
            found = [(p.relative_to(local).as_posix(), *_stamp(p)) for p in local.rglob("*") if p.is_file()]
        else:
            found = inside._stamps()
        for entry in sorted(found):
            digest.update(repr(entry).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def listing(self) -> list[str]:
        """Names directly inside, sorted, for messages."""
        if self.local is not None:
            return sorted(path.name for path in self.local.iterdir())
        return sorted({name.split("/")[0] for name in self._names()})

    def _info(self, name: str) -> Any:
        files, base = _filesystem(self.root)
        return files.get_file_info(f"{base}/{name}".rstrip("/"))

    def _names(self) -> list[str]:
        return [name for name, _, _ in self._stamps()]

    def _stamps(self) -> list[tuple[str, int, int]]:
        from pyarrow.fs import FileSelector

        files, base = _filesystem(self.root)
        found = files.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        return [
            (entry.path.removeprefix(base).lstrip("/"), entry.size or 0, entry.mtime_ns or 0)
            for entry in found
            if entry.is_file
        ]

    def __str__(self) -> str:
        return self.root


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def folder_of(root: Folder | Path) -> Folder:
    """A path as a Folder; a Folder as it is."""
    return root if isinstance(root, Folder) else Folder(str(root))


@lru_cache(maxsize=16)
def _filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL and the path in it.

    Raises:
        InputError: no filesystem for it, or it cannot be reached.
    """
    from pyarrow import fs

    try:
        try:
            files, base = fs.FileSystem.from_uri(url)
        except ValueError:  # pyarrow does not know the scheme; fsspec knows many more
            import fsspec

            found, base = fsspec.core.url_to_fs(url)
            files = fs.PyFileSystem(fs.FSSpecHandler(found))
    except Exception as error:  # each scheme's client has errors of its own
        raise InputError(
            f"{url} cannot be opened: {type(error).__name__} {str(error).splitlines()[0]:.200}",
            "Check the URL, install what its scheme needs (e.g. pip install gcsfs), and give access by the "
            "environment, as its client documents.",
        ) from None
    return files, base.rstrip("/")


def _inside(name: str) -> str:
    """The path without a leading slash; refuses one that leads out of its folder."""
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts or "\\" in name or "\0" in name:
        raise InputError(
            f"{name!r} leads out of the shop's folder.", "Move it below records.root, or correct the path."
        )
    return "/".join(parts)


def _matches(name: str, pattern: str) -> bool:
    """As Path.glob: a `*` stays inside one name, `**` spans any number of folders."""
    return _match_parts(name.split("/"), pattern.split("/"))


def _match_parts(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match_parts(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _match_parts(parts[1:], patterns[1:])
