"""Stages on disk: `<root>/<name>/<stage>/` with a manifest written last.

A stage is fresh when its manifest's digest equals the digest of what it would run on now: its own config sections, the
manifests of the stages it reads, and the code it uses. A fresh stage is skipped; a folder without a manifest never
counts, but keeps its partial work for resuming while its digest still matches.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from fuserank.config import Experiment
from fuserank.errors import MissingStageError, StageError
from fuserank.files import Folder

MANIFEST = "manifest.json"
STARTED = "started.json"


@dataclass(frozen=True)
class Stage:
    """What makes a stage stale: config sections (dotted), upstream stages and code (folders, files)."""

    sections: tuple[str, ...]
    upstream: tuple[str, ...]
    code: tuple[str, ...]


_LEARNING = ("models", "losses", "training", "feedback/sequences.py", "evaluation/metrics.py")
_TRAIN_PARTS = (
    *("labels", "batch_size", "positives", "queries", "sequences", "learning_rate"),
    *("warmup", "weight_decay", "clip", "precision"),
)
_TUNE_READS = (*(f"train.{key}" for key in _TRAIN_PARTS), "index.candidates", "index.vectors", "tune")
_ANSWERING = ("retrieval", "feedback/behaviour.py")  # what a trial is judged by where keys of `index` are searched

# What the reranker learns from, beside what training reads.
_SESSIONS = tuple(f"feedback/{name}.py" for name in ("behaviour", "history", "positions", "search_sessions"))
_NEIGHBOURS = ("feedback/neighbours.py", "feedback/questions.py")

STAGES: dict[str, Stage] = {
    "generate": Stage(("records.generate",), (), ("records/synthetic",)),
    "preprocess": Stage(
        ("records", "preprocess", "encoders.audio.model"), ("generate",), ("records", "features", "files.py")
    ),
    "pretrain": Stage(
        ("seed", "pretrain", "encoders", "fusion.width", "fusion.projection_layers"),
        ("preprocess",),
        ("models", "losses", "training", "feedback/sequences.py"),
    ),
    "tune": Stage(
        ("seed", "encoders", "fusion", "loss", *_TUNE_READS),
        ("pretrain",),
        _LEARNING,
    ),
    "train": Stage(("seed", "encoders", "fusion", "loss", "train"), ("pretrain",), _LEARNING),
    "index": Stage(
        ("index", "evaluate.hidden_text"),
        ("preprocess", "train"),
        ("retrieval", "models", "features", *_SESSIONS, *_NEIGHBOURS),
    ),
    "evaluate": Stage(("evaluate", "seed"), ("index",), ("evaluation", "retrieval", "models")),
    "feedback": Stage((), ("index",), ("feedback", "store")),
    "policy": Stage(("policy", "seed"), ("feedback",), ("feedback",)),
    "gradient": Stage(("policy", "seed"), ("feedback",), ("feedback", "training/policy_gradient.py")),
}
"""In the order the data flows. `generate` is upstream only where records.generate is set."""


def stage_path(experiment: Experiment, stage: str) -> Path:
    """`<root>/<name>/<stage>`, whether or not it exists."""
    return experiment.run / stage


def stage_folder(experiment: Experiment, stage: str) -> Path:
    """The folder of a finished stage.

    Raises:
        MissingStageError: the stage has no manifest; the message names the command to run.
    """
    folder = stage_path(experiment, stage)
    if not (folder / MANIFEST).is_file():
        raise MissingStageError(
            f"stage `{stage}` of run `{experiment.name}` has not finished: {folder} has no manifest.",
            f"Run `fuserank {stage} -c <the same config>` first.",
        )
    return folder


def read_manifest(experiment: Experiment, stage: str) -> dict | None:
    """The stage's manifest, or None if it has not finished."""
    file = stage_path(experiment, stage) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # not JSON, or not even text
        manifest = None
    if not isinstance(manifest, dict) or "digest" not in manifest:
        raise StageError(f"{file} is not a readable manifest.", f"Remove it and run `fuserank {stage}` again.")
    return manifest


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=1, ensure_ascii=False, default=str)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


@cache
def code_digest(parts: tuple[str, ...]) -> str:
    root, digest = Path(__file__).parent, hashlib.sha256()
    for part in parts:
        for file in [root / part] if (root / part).is_file() else sorted((root / part).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _value(experiment: Experiment, path: str) -> object:
    node: object = experiment
    for part in path.split("."):
        node = getattr(node, part, None)  # of an encoder left out, nothing
    return node.model_dump(mode="json") if hasattr(node, "model_dump") else node  # type: ignore[union-attr]


def _raw_inputs(experiment: Experiment) -> dict[str, object]:
    """Names, sizes and times of a catalogue's own files, so that a changed file makes `preprocess` stale."""
    records = experiment.records
    if records.generate is not None or records.root is None:
        return {}
    folder, patterns = Folder(records.root), []
    found: dict[str, object] = {}
    more = (records.queries, records.judgments, records.events, records.reviews, *records.links.values())
    for table in (records.products, *more):
        patterns += table.files if table is not None else []
    for media in (records.images, records.audio):
        if media is not None and media.source and "://" in media.source:
            found[media.source] = Folder(media.source).contents("")
        elif media is not None and media.source:
            patterns.append(media.source)
            if folder.is_folder(media.source):
                found[f"{media.source}/"] = folder.contents(media.source)
    return found | {name: folder.stamp(name) for name in {n for pattern in patterns for n in folder.glob(pattern)}}


def named_weights(experiment: Experiment) -> dict[str, object]:
    """Sizes and times of the weights on disk that the config names, so that other weights in their place count."""
    text, image = experiment.encoders.text, experiment.encoders.image
    named = (text and text.model, image and image.model, image and image.weights, experiment.train.start)
    found: dict[str, object] = {}
    for path in (Path(name) for name in named if name is not None):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found[str(path)] = [(f.name, s.st_size, s.st_mtime_ns) for f in files if f.is_file() and (s := f.stat())]
    return found


def digest(experiment: Experiment, stage: str, code: Sequence[Path] = ()) -> str:
    """Hash of everything that decides the stage's output.

    Args:
        code: files that decide it beside the library's own.

    Raises:
        MissingStageError: an upstream stage has not finished.
    """
    what = STAGES[stage]
    inputs: dict[str, object] = {"sections": {path: _value(experiment, path) for path in what.sections}}
    for name in what.upstream:
        if name == "generate" and experiment.records.generate is None:
            continue
        stage_folder(experiment, name)
        inputs[name] = (read_manifest(experiment, name) or {})["digest"]
    if stage == "preprocess":
        inputs["files"] = _raw_inputs(experiment)
    if stage == "evaluate":  # what was learnt from users may have gone live since
        live = stage_path(experiment, "index") / "current"
        inputs["generation"] = live.read_text(encoding="utf-8").strip() if live.is_file() else None
    if stage == "tune" and experiment.tune.training == "whole":
        inputs["train"] = _value(experiment, "train")
    of_index = experiment.tune.space.of_index
    if stage == "tune" and (of_index or "latency_ms" in experiment.tune.objectives):
        inputs["index"] = _value(experiment, "index")
    if stage == "tune" and of_index:
        inputs["answers"] = code_digest(_ANSWERING)
    if stage in ("pretrain", "tune", "train"):
        inputs["weights"] = named_weights(experiment)
    inputs["code"] = code_digest(what.code)
    if code:
        inputs["own_code"] = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in code]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def run_stage(
    experiment: Experiment,
    stage: str,
    work: Callable[[Path], dict],
    *,
    force: bool = False,
    survive: Collection[str] = (),
    code: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> dict:
    """Run `work(folder)` unless the stage is fresh; its returned summary becomes part of the manifest.

    Args:
        force: run also if it is fresh.
        survive: files and folders of the stage that a new run finds again; all else of an old run goes first.
        code: files that decide what `work` makes, beside the library's own.

    Returns:
        The manifest: digest, summary, seconds, upstream digests, code version.

    Raises:
        StageError: the disk is full. Else what `work` raises.
    """
    now = digest(experiment, stage, code)
    folder = stage_path(experiment, stage)
    manifest = read_manifest(experiment, stage)
    if manifest is not None and manifest["digest"] == now and not force:
        say(f"{stage}: up to date ({folder})")
        return manifest
    started = folder / STARTED
    resuming = manifest is None and started.is_file() and json.loads(started.read_text())["digest"] == now
    folder.mkdir(parents=True, exist_ok=True)
    if not resuming:
        _clear(folder, survive)
    write_json(started, {"digest": now})
    say(f"{stage}: {'resuming' if resuming else 'running'} ({folder})")
    begin = time.monotonic()
    try:
        summary = work(folder)
    except OSError as error:  # pyarrow's own errors among them, which carry the number in their text only
        if error.errno != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise StageError(
            f"{stage}: no space left on the disk of {folder}.",
            "Free some, or set storage.root elsewhere; then run the same command again.",
        ) from error
    manifest = {
        "stage": stage,
        "digest": now,
        "version": metadata_version(),
        "seconds": round(time.monotonic() - begin, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "sections": {path: _value(experiment, path) for path in STAGES[stage].sections},
        "summary": summary,
    }
    write_json(folder / MANIFEST, manifest)
    say(f"{stage}: done in {manifest['seconds']:.1f} s")
    return manifest


def _clear(folder: Path, survive: Collection[str]) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first: what is half cleared must not count
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink() and entry.name not in survive:
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name not in survive:
            entry.unlink()


def metadata_version() -> str:
    """The installed version, or `source` when run from a checkout without installation (a bare Ray job)."""
    try:
        return metadata.version("fuserank")
    except metadata.PackageNotFoundError:
        return "source"
