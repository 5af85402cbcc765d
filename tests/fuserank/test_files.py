"""A shop's folder on disk and behind a URL: the same files, and nothing outside."""

import io
import pickle
import uuid
import zipfile
import zlib
from pathlib import Path

import fsspec
import pytest

from fuserank.errors import InputError, MediaError
from fuserank.files import Folder
from fuserank.records.media import MediaSource
from fuserank.records.readers import Layout
from fuserank.records.sources import find_files, open_tables

FILES = {
    "a.csv": b"product_id,title\n1,lamp\n",
    "sub/b.csv": b"product_id,title\n2,vase\n",
    "pictures/1.png": b"picture",
}


@pytest.fixture(params=["disk", "url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("in.png", b"zipped picture")
    files = FILES | {"p.zip": archive.getvalue()}
    (tmp_path / "secret").write_bytes(b"no")
    root = tmp_path / "shop" if request.param == "disk" else f"memory://{uuid.uuid4().hex}/shop"
    for name, data in files.items():
        if isinstance(root, Path):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        else:
            with fsspec.open(f"{root}/{name}", "wb") as out:
                out.write(data)  # type: ignore[union-attr]
    return Folder(str(root))


def test_globs(folder: Folder) -> None:
    assert folder.glob("*.csv") == ["a.csv"]
    assert folder.glob("**/*.csv") == ["a.csv", "sub/b.csv"]
    assert folder.glob("a.csv") == ["a.csv"]
    assert folder.glob("../secret") == folder.glob("none.csv") == []
    assert folder.is_folder()
    assert folder.is_folder("sub")
    assert not folder.is_folder("none")
    assert folder.listing() == ["a.csv", "p.zip", "pictures", "sub"]


def test_reads_and_stamps(folder: Folder) -> None:
    travelled = pickle.loads(pickle.dumps(folder))
    with travelled.open("sub/b.csv") as stream:
        assert stream.read() == FILES["sub/b.csv"]
    assert folder.stamp("a.csv")[0] == len(FILES["a.csv"])
    with pytest.raises(FileNotFoundError):
        folder.stamp("none.csv")
    with pytest.raises(InputError, match="leads out"):
        folder.open("../secret")


def test_tables_and_media_come_from_it(folder: Folder) -> None:
    rows = [(r.source, r.values) for f in open_tables(folder, ["**/*.csv"]) for r in f.rows]
    assert rows == [
        ("a.csv", {"product_id": "1", "title": "lamp"}),
        ("sub/b.csv", {"product_id": "2", "title": "vase"}),
    ]
    assert MediaSource(folder, "pictures").read("1.png") == b"picture"
    zipped = MediaSource(folder, "p.zip")
    assert zipped.read("in.png") == b"zipped picture"
    assert zipped.stamp("in.png") == (14, zlib.crc32(b"zipped picture"))
    for source in (zipped, MediaSource(folder, "pictures")):
        with pytest.raises(MediaError, match="forbidden path"):
            source.read("../secret")
        with pytest.raises(MediaError, match="missing file"):
            source.read("none.png")


def test_a_file_a_row(folder: Folder) -> None:
    (table,) = open_tables(folder, ["p.zip"], layout=Layout("names"))
    assert [row.values for row in table.rows] == [{"path": "in.png", "name": "in"}]
    (table,) = open_tables(folder, ["pictures/*"], layout=Layout("names"))
    assert [row.values for row in table.rows] == [{"path": "pictures/1.png", "name": "1"}]


def test_says_what_is_wrong(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"it holds a\.csv, p\.zip"):
        find_files(folder, ["*.parquet"])
    with pytest.raises(InputError, match="is not a folder"):
        find_files(folder.join("none"), ["*.csv"])
    with pytest.raises(InputError, match="cannot be opened"):
        find_files(Folder("nonsense://bucket/shop"), ["*.csv"])
