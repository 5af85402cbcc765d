"""What a person at the terminal meets: bad input ends with a clear message, its remedy and a non-zero exit code."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fuserank.errors import ConfigError
from workloads.cli import app, resolve

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "workloads" / "configs" / "demo.yaml"


def fuserank(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a person runs it."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "COLUMNS": "400"}
    command = [sys.executable, "-m", "workloads", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=120)


def shop(folder: Path, rows: list[dict], columns: list[str], **records) -> Path:
    """A small catalogue and its config; returns the config's path."""
    with (folder / "products.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
    values = {
        "name": "small",
        "storage": {"root": str(folder / "runs")},
        "records": {"root": str(folder), "products": {"files": ["products.csv"], "map": {"title": "name"}}, **records},
    }
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def complaint(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Exit code, both lines of the message, no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "error:" in text, text
    assert "Traceback" not in text, text
    for part in parts:
        assert part in text, text


def test_unknown_key_names_the_nearest():
    complaint(fuserank("preprocess", "-c", str(DEMO), "--set", "fusion.knid=concat"), 2, "fusion.knid", "fusion.kind")


def test_missing_config_file():
    complaint(fuserank("train", "-c", "nowhere.yaml"), 2, "nowhere.yaml", "what to do:")


def test_missing_catalogue_file(tmp_path):
    file = shop(tmp_path, [{"product_id": "a", "name": "x"}], ["product_id", "name"])
    (tmp_path / "products.csv").unlink()
    complaint(fuserank("preprocess", "-c", str(file)), 1, "products.csv", "records.root")


def test_wrong_column(tmp_path):
    file = shop(tmp_path, [{"product_id": "a", "nmae": "x"}], ["product_id", "nmae"])
    complaint(fuserank("preprocess", "-c", str(file)), 1, "name", "nmae")


def test_empty_catalogue(tmp_path):
    file = shop(tmp_path, [], ["product_id", "name"])
    complaint(fuserank("preprocess", "-c", str(file)), 1, "product")


def test_no_earlier_stage(tmp_path):
    done = fuserank("train", "-c", str(DEMO), "--set", f"storage.root={tmp_path}")
    complaint(done, 1, "fuserank pretrain")


def test_no_index_yet(tmp_path):
    done = fuserank("serve", "-c", str(DEMO), "--set", f"storage.root={tmp_path}", "--set", "serve.port=0")
    complaint(done, 1, "index")


def test_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = fuserank("serve", "-c", str(DEMO), "--set", f"storage.root={tmp_path}", "--set", f"serve.port={port}")
    complaint(done, 1, "serve.port" if "serve.port" in done.stderr else "index")


def test_relative_root_is_made_absolute_but_refused_in_a_job(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve(DEMO, None).storage.root == str(tmp_path / "runs")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="absolute"):
        resolve(DEMO, None)


def test_url_root_is_refused():
    with pytest.raises(ConfigError, match="URL"):
        resolve(DEMO, ["storage.root=s3://bucket/runs"])


def test_help_lists_every_command():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for command in (
        "generate",
        "preprocess",
        "pretrain",
        "tune",
        "train",
        "index",
        "evaluate",
        "serve",
        "feedback",
        "demo",
    ):
        assert command in shown
