"""`fuserank keys`: the key goes to standard output once, the list shows no secret, mistakes name the remedy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fuserank.store.database import Database, run_database
from fuserank.store.keys import find
from workloads.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "shop.yaml"
    file.write_text(f"name: shop\nstorage: {{root: {tmp_path}}}\n")
    return file


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_create_list_rotate_revoke(config_file: Path, tmp_path: Path):
    code, key, told = run("create", "-c", config_file, "--name", "web", "--scope", "search", "--scope", "write")
    assert code == 0
    assert key.strip().startswith("frk_")
    assert len(key.split()) == 1
    assert key.strip() not in told
    identity = key.split("_")[1]
    _, listed, _ = run("list", "-c", config_file)
    assert listed.startswith(f"{identity}\tweb\tsearch,write\tvalid\t")
    assert key.strip().rpartition("_")[2] not in listed
    code, new, _ = run("rotate", identity, "-c", config_file, "--grace-hours", "0")
    assert code == 0
    with Database(run_database(tmp_path / "shop")[1]) as database:
        known = {stored.id: stored for stored in database.api_keys()}
    assert find(key.strip(), known) is None
    assert find(new.strip(), known) is not None
    assert run("revoke", new.split("_")[1], "-c", config_file)[0] == 0
    assert [line.split("\t")[3] for line in run("list", "-c", config_file)[1].splitlines()] == ["ended", "ended"]
    assert new.strip().rpartition("_")[2].encode() not in b"".join(
        file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    )


def test_mistakes_are_refused_with_words(config_file: Path):
    for arguments, words in (
        (("create", "--name", "web", "--scope", "root"), "search, write, admin"),
        (("revoke", "000000000000"), "fuserank keys list"),
    ):
        command = [sys.executable, "-m", "workloads", "keys", *arguments, "-c", str(config_file)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "COLUMNS": "400"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
        assert done.returncode == 1
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
