"""A shop's table files → raw rows. Reads CSV, TSV, JSON lines or arrays, Parquet and atomic files, each plain, .gz or
inside a .zip; and, where the config says so, `sequences` (a line a user: `user item item …` in time order), `object`
(one JSON object, each of its entries a row) and `names` (each file, or each member of a zip, a row).

Every row comes back with the file it stands in and its 0-based position there, also the rows that cannot be read.
"""

import difflib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fuserank.errors import InputError
from fuserank.files import Folder, folder_of
from fuserank.records.readers import AUTO, FORMATS, Layout, format_of, open_stream
from fuserank.records.rows import RawRow, TableFile, guard


def find_files(root: Folder | Path, patterns: Iterable[str], key: str = "records.products.files") -> list[str]:
    """Files below root that match the patterns, each once, in the patterns' order and sorted within one.

    Raises:
        InputError: the root or a pattern's files do not exist; the message names records.root.
    """
    folder = folder_of(root)
    if not folder.is_folder():
        raise InputError(
            f"records.root {root} is not a folder.", "Give the shop's folder, e.g. --set records.root=/path/to/shop."
        )
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = folder.glob(pattern) if not pattern.startswith("/") else []
        matches = [name for name in matches if name == pattern or not _hidden(name)]
        if not matches:
            raise InputError(
                f"{key}: no file {pattern!r} below records.root {root}.",
                f"Correct {key} or point records.root at the folder that holds it ({_listing(folder)}).",
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _listing(folder: Folder) -> str:
    names = folder.listing()[:8]
    return f"it holds {', '.join(names)}" if names else "it is empty"


def open_tables(
    root: Folder | Path, patterns: Iterable[str], key: str = "records.products.files", layout: Layout = AUTO
) -> Iterator[TableFile]:
    """Every table file below root that matches a pattern, zip files' members included.

    Args:
        layout: how the files are written.

    Raises:
        InputError: missing files, an unknown format, a damaged file.
    """
    folder = folder_of(root)
    for source in find_files(folder, patterns, key):
        zipped = PurePosixPath(source).suffix.lower() == ".zip"
        if layout.form == "names":
            yield _names(folder, source, zipped)
            continue
        if not zipped:
            with guard(source), folder.open(source) as stream:
                yield open_stream(stream, source, layout)
            continue
        with guard(source), folder.open(source) as whole, zipfile.ZipFile(whole) as archive:
            names = _members(archive)
            members = [name for name in names if layout.form != "auto" or format_of(name) is not None]
            if not members:
                raise InputError(f"{source} holds no table file.", f"Readable are {', '.join(FORMATS)}, plain or .gz.")
            for member in members:
                with archive.open(member) as stream:
                    yield open_stream(stream, f"{source}/{member}", layout)


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in sorted(archive.namelist()) if not name.endswith("/") and not _hidden(name)]


def _hidden(name: str) -> bool:
    """What systems put beside a shop's files: `__MACOSX/`, `._products.csv`, `.DS_Store`."""
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(name).parts)


def _names(folder: Folder, source: str, zipped: bool) -> TableFile:
    """A row a file: for catalogues that are a heap of pictures or sounds whose names say what they are."""
    names = [source]
    if zipped:
        with guard(source), folder.open(source) as whole, zipfile.ZipFile(whole) as archive:
            names = _members(archive)
    rows = (
        RawRow(source, position, {"path": name, "name": PurePosixPath(name).stem})
        for position, name in enumerate(names)
    )
    return TableFile(source, ["path", "name"], rows)


def missing_column(source: str, column: str, columns: Iterable[str], key: str) -> InputError:
    """The error for a mapped column that a file lacks, naming the nearest ones it has."""
    available = sorted(columns)
    near = difflib.get_close_matches(column, available, n=3, cutoff=0.4)
    hint = f"Nearest columns: {', '.join(near)}." if near else f"Its columns: {', '.join(available[:12]) or 'none'}."
    return InputError(f"{source} has no column {column!r} (named in {key}).", hint)
