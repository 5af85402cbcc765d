"""The shape of the whole: packages, direction of imports, imports without effects, documents that keep their word."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from fuserank import config
from fuserank.config.experiment import sections_in
from workloads import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "fuserank": ROOT / "platform" / "fuserank",
    **{name: ROOT / name for name in ("workloads", "serve", "tune")},
}

BASE = {"config", "errors", "files", "artifacts"}
FLOORS: dict[str, set[str]] = {
    # what each part of fuserank may import of the others; itself goes without saying
    "errors": set(),
    "config": {"errors"},
    "files": {"errors"},
    "artifacts": {"config", "errors", "files"},
    "records": BASE,
    "features": BASE | {"records"},
    "models": BASE | {"records"},
    "losses": BASE,
    "evaluation": BASE | {"records"},
    "store": BASE | {"records"},
    "feedback": BASE | {"records", "store", "evaluation", "models"},
    "training": BASE | {"records", "features", "feedback", "models", "losses", "evaluation"},
    "retrieval": BASE | {"records", "features", "feedback", "models", "store"},
}
ROOFS = {"fuserank": set(), "tune": {"fuserank"}, "serve": {"fuserank"}, "workloads": {"fuserank", "tune", "serve"}}
HEAVY = {"ray", "torch", "transformers", "torchvision"}  # seconds to import


def sources(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(file: Path, top_level: bool = False) -> set[str]:
    """Dotted names a file imports; `from a import b` counts as a.b."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_packages() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"
    for package, root in PACKAGES.items():
        for folder in {file.parent for file in sources(package)}:
            marker = folder / "__init__.py"
            assert marker.is_file(), f"{folder} has no __init__.py"
            assert ast.get_docstring(ast.parse(marker.read_text(encoding="utf-8"))), f"{marker} has no docstring"
        assert (root / "__init__.py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_downwards(package: str) -> None:
    for file in sources(package):
        others = {name.split(".")[0] for name in imports(file)} & set(PACKAGES) - {package}
        assert others <= ROOFS[package], f"{file} imports {others - ROOFS[package]}"


def test_floors_of_the_library() -> None:
    root = PACKAGES["fuserank"]
    for file in sources("fuserank"):
        part = file.relative_to(root).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        assert part in FLOORS, f"{part} has no floor: add it to FLOORS"
        used = {name.split(".")[1] for name in imports(file) if name.startswith("fuserank.")} - {part}
        assert used <= FLOORS[part], f"{file} imports {used - FLOORS[part]}"


def test_floors_have_no_circle() -> None:
    done: set[str] = set()
    while ready := {part for part, below in FLOORS.items() if part not in done and below <= done}:
        done |= ready
    assert done == set(FLOORS)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is(package: str) -> None:
    for file in sources(package):
        text = file.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{file} opens without a docstring"
        assert text.count("\n") <= 300, f"{file} wants splitting"


def test_quick_commands_import_nothing_heavy() -> None:
    """`fuserank --help` and every refused config must answer at once."""
    for file in (ROOT / "workloads" / "cli.py", ROOT / "workloads" / "__main__.py"):
        assert not {name.split(".")[0] for name in imports(file, top_level=True)} & HEAVY
    code = f"import sys, workloads.cli; print(*(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    assert run(code, ROOT).strip() == ""


IMPORT_ALL = """
import importlib, json, logging, signal, sys, threading, torch
signals, threads, state = signal.getsignal(signal.SIGTERM), torch.get_num_threads(), torch.get_rng_state()
handlers = list(logging.root.handlers)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
import ray
assert not ray.is_initialized(), "ray.init at import"
assert logging.root.handlers == handlers, "logging set up at import"
assert signal.getsignal(signal.SIGTERM) == signals
assert torch.get_num_threads() == threads
assert torch.equal(torch.get_rng_state(), state), "random numbers drawn at import"
print(sorted(t.name for t in threading.enumerate() if "fuserank" in t.name))
"""


def run(code: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_does_nothing(tmp_path: Path) -> None:
    names = []
    for package, root in PACKAGES.items():
        for file in sources(package):
            if file.name not in ("__main__.py", "env.py") and "versions" not in file.parts:  # alembic runs those itself
                names.append(
                    ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
                )
    assert len(names) > 80
    assert run(IMPORT_ALL, tmp_path, json.dumps(names)).strip() == "[]"
    left = [path for path in tmp_path.rglob("*") if path.is_file() and ".cache" not in path.parts]
    assert not left, f"files made at import: {left}"


# --- documents -------------------------------------------------------------------------------------------------------


def commands() -> set[str]:
    groups = {group.name for group in cli.app.registered_groups if group.name}
    single = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    return single | groups


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_command_is_documented() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert commands() == {*cli.STAGES, "serve", "generations", "keys", "iterate", "demo"}
    for command in commands():
        assert f"| `fuserank {command}` |" in readme


@pytest.mark.parametrize("document", documents(), ids=lambda file: file.name)
def test_documented_commands_and_settings_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```.*?\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    for command in re.findall(r"(?:\bfuserank|python -m workloads) +([a-z]+)\b(?! *=)", blocks):
        assert command in commands(), f"{document.name}: fuserank {command}"
    for path in re.findall(r"--set +['\"]?([a-z_.]+)=", blocks):
        assert path in config.keys(), f"{document.name}: --set {path}"  # noqa: SIM118
    for target in re.findall(r"\bmake +([a-z]+)\b", blocks):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make {target}"
    for file in re.findall(r"-c +(workloads/configs/\S+?\.yaml)\b", blocks):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("document", documents(), ids=lambda file: file.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def leaves() -> dict[str, Any]:
    """Dotted path of every value a config may hold → its default."""
    found: dict[str, Any] = {}

    def walk(model: type, path: str) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = sections_in(field.annotation)
            for section in inner:
                walk(section, f"{path}{name}.")
            if not inner:
                found[f"{path}{name}"] = field.default

    walk(config.Experiment, "")
    return found


def documented() -> dict[str, str]:
    """Dotted path of every documented key → its default as written."""
    found: dict[str, str] = {}
    sections: list[str] = []
    for line in (ROOT / "docs" / "CONFIG.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections = [f"{name}." for name in re.findall(r"`([^`]+)`", line)] or [""]
        elif row := re.match(r"\| `(\w+)` \| (.*?) \| .{5,} \|$", line):
            for section in sections:
                assert f"{section}{row[1]}" not in found
                found[f"{section}{row[1]}"] = row[2].strip("`").replace(r"\|", "|")
    return found


def test_every_key_is_documented_with_its_default() -> None:
    written, known = documented(), leaves()
    assert set(written) == set(known)
    for path, default in known.items():
        if default is PydanticUndefined:
            assert written[path] == "required"
        else:
            assert json.loads(written[path]) == (list(default) if isinstance(default, tuple) else default), path


def test_every_key_is_read_somewhere() -> None:
    """A key that nothing reads is a dead option."""
    code = "\n".join(
        file.read_text(encoding="utf-8")
        for package in PACKAGES
        for file in sources(package)
        if "fuserank/config" not in file.as_posix()
    )
    whole = {"encoders.recommender", "loss.weights"}  # handed on as they are, model_dump() and all
    for path in leaves():
        section, _, leaf = path.rpartition(".")
        if section not in whole:
            assert re.search(rf'\.{leaf}\b|getattr\([^\n]*"{leaf}"', code), f"nothing reads {path}"


# --- cluster.yaml ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_ray_accepts_the_cluster(cluster: dict) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(json.loads(json.dumps(cluster))))


def test_the_cluster_costs_nothing_idle(cluster: dict) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    assert head["resources"]["CPU"] > 0
    gpus = [node for node in types.values() if node["resources"].get("GPU")]
    assert gpus, "no GPU worker"
    for node in types.values():
        assert node["min_workers"] == 0
        assert 0 < node["max_workers"] <= cluster["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert cluster["idle_timeout_minutes"] <= 10


def test_the_cluster_is_not_open_to_the_world(cluster: dict) -> None:
    start = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "--dashboard-host=0.0.0.0" not in start


def test_the_cluster_sets_serves_flags_before_ray_starts(cluster: dict) -> None:
    for commands_ in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (start,) = [command for command in commands_ if "ray start" in command]
        assert start.index("RAY_SERVE_THROUGHPUT_OPTIMIZED=1") < start.index("ray start")
