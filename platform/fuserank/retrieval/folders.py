"""What immutable folders are made with: a digest of what is in one, links in place of copies, and flushes to disk."""

import hashlib
import os
import shutil
from pathlib import Path

from fuserank.artifacts import flush


def digest_of(folder: Path) -> str:
    """Of the names and bytes of all files in it, 16 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def link(source: str, target: str) -> None:
    """The same file under another name; a copy on a disk without links. For shutil.copytree."""
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copy2(source, target)


def sync(folder: Path) -> None:
    """Flush a folder and all in it."""
    for path in [folder, *folder.rglob("*")]:
        flush(path)
