"""What makes a stage fresh, stale, resumable or missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fuserank import artifacts, config
from fuserank.artifacts import MANIFEST, STAGES, digest, read_manifest, run_stage, stage_folder, write_json
from fuserank.errors import MissingStageError, StageError


@pytest.fixture
def experiment(tmp_path: Path) -> config.Experiment:
    return config.validate({"name": "t", "storage": {"root": str(tmp_path)}, "records": {"generate": {}}})


class Work:
    """Counts its calls and remembers what its folder held."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []

    def __call__(self, folder: Path) -> dict:
        self.found.append(sorted(file.name for file in folder.iterdir()))
        (folder / "made").write_text("x")
        return {"rows": len(self.found)}


def run(experiment: config.Experiment, stage: str, work: Callable[[Path], dict] | None = None, **options: bool) -> dict:
    return run_stage(experiment, stage, work or Work(), say=lambda _: None, **options)


def run_all(experiment: config.Experiment, upto: str = "evaluate") -> None:
    for stage in STAGES:
        run(experiment, stage)
        if stage == upto:
            return


def fresh(experiment: config.Experiment) -> set[str]:
    """Stages whose manifest still matches."""
    return {s for s in STAGES if (m := read_manifest(experiment, s)) and m["digest"] == digest(experiment, s)}


def test_a_fresh_stage_is_skipped(experiment: config.Experiment) -> None:
    work, said = Work(), []
    first = run_stage(experiment, "generate", work, say=said.append)
    again = run_stage(experiment, "generate", work, say=said.append)
    assert first == again
    assert first["summary"] == {"rows": 1}
    assert len(work.found) == 1
    assert [line.split(":")[1].split()[0] for line in said] == ["running", "done", "up"]
    assert run(experiment, "generate", work, force=True)["summary"] == {"rows": 2}
    assert work.found[1] == ["started.json"]  # emptied first


CHANGES = {
    "serve.port": (1, set()),
    "tracking.tensorboard": (False, set()),
    "evaluate.k": (5, {"evaluate"}),
    "policy.share": (0.2, {"policy", "gradient"}),
    "index.candidates": (9, {"tune", "index", "evaluate", "feedback", "policy", "gradient"}),
    "evaluate.hidden_text": (
        0.1,
        {"index", "evaluate", "feedback", "policy", "gradient"},
    ),  # the reranker is fitted with it
    "tune.trials": (3, {"tune"}),
    "train.epochs": (1, {"train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "train.learning_rate": (9e-4, {"tune", "train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "train.batch_size": (9, {"tune", "train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "train.weight_decay": (0.5, {"tune", "train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "fusion.kind": ("joint", {"tune", "train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "pretrain.text.epochs": (1, {"pretrain", "tune", "train", "index", "evaluate", "feedback", "policy", "gradient"}),
    "preprocess.vocabulary": (99, set(STAGES) - {"generate"}),
    "records.generate.products": (100, set(STAGES)),
}


@pytest.mark.parametrize("key", CHANGES)
def test_staleness_by_config(experiment: config.Experiment, key: str) -> None:
    """A stage is stale by its own section, or by an earlier stage that ran again."""
    run_all(experiment, "gradient")
    assert fresh(experiment) == set(STAGES)
    value, stale = CHANGES[key]
    changed = config.update(experiment, {key: value})
    ran = []
    for stage in STAGES:
        run(changed, stage, lambda folder, stage=stage: ran.append(stage) or {})
    assert set(ran) == stale


def test_a_search_over_keys_of_the_index_is_stale_with_all_it_answers_with(
    experiment: config.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(experiment, "tune")
    searched = config.update(experiment, {"tune.space.rerank_depths": [10]})
    for key, value in (("index.hybrid", "none"), ("index.rerank_depth", 9)):
        assert digest(config.update(experiment, {key: value}), "tune") == digest(experiment, "tune")
        assert digest(config.update(searched, {key: value}), "tune") != digest(searched, "tune")
    timed = config.update(experiment, {"tune.objectives": ["ndcg@10", "latency_ms"]})
    assert digest(config.update(timed, {"index.rerank_depth": 9}), "tune") != digest(timed, "tune")
    before, real = [digest(which, "tune") for which in (experiment, searched)], artifacts.code_digest
    monkeypatch.setattr(artifacts, "code_digest", lambda parts: "new" if "retrieval" in parts else real(parts))
    assert digest(experiment, "tune") == before[0]
    assert digest(searched, "tune") != before[1]


def test_staleness_by_code(experiment: config.Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(experiment)
    real = artifacts.code_digest
    monkeypatch.setattr(artifacts, "code_digest", lambda parts: "new" if "losses" in parts else real(parts))
    assert {"generate", "preprocess"} <= fresh(experiment)
    assert not {"pretrain", "tune", "train"} & fresh(experiment)


def test_staleness_by_the_code_of_the_work(experiment: config.Experiment, tmp_path: Path) -> None:
    work, file, say = Work(), tmp_path / "work.py", [].append
    for content, runs in (("1", 1), ("1", 1), ("2", 2)):
        file.write_text(content)
        run_stage(experiment, "generate", work, code=[file], say=say)
        assert len(work.found) == runs


def test_code_digest_reads_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "artifacts.py"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_text("1")
    (tmp_path / "one.py").write_text("1")
    compute = artifacts.code_digest.__wrapped__
    before = compute(("models", "one.py"))
    assert compute(("models", "one.py")) == before
    (tmp_path / "models" / "notes.txt").write_text("no code")
    assert compute(("models", "one.py")) == before
    (tmp_path / "one.py").write_text("2")
    second = compute(("models", "one.py"))
    (tmp_path / "models" / "a.py").rename(tmp_path / "models" / "b.py")
    assert len({before, second, compute(("models", "one.py"))}) == 3


def test_every_stage_names_code_and_config_that_exist() -> None:
    root = Path(artifacts.__file__).parent
    for name, stage in STAGES.items():
        assert all(part in STAGES for part in stage.upstream)
        assert set(stage.sections) <= set(config.keys()), name
        for part in stage.code:
            assert (root / part).is_file() or list((root / part).rglob("*.py")), f"{name}: {part} holds no code"


def test_changed_files_of_a_shop(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    for name in ("a.csv", "b.csv", "images.zip", "other.txt"):
        (shop / name).write_text("x")
    records = {"root": str(shop), "products": {"files": ["*.csv"]}, "images": {"source": "images.zip"}}
    experiment = config.validate({"storage": {"root": str(tmp_path / "runs")}, "records": records})
    before = digest(experiment, "preprocess")  # no generated shop, so nothing upstream
    (shop / "other.txt").write_text("changed")
    assert digest(experiment, "preprocess") == before
    (shop / "b.csv").write_text("changed")
    second = digest(experiment, "preprocess")
    (shop / "images.zip").write_text("changed")
    third = digest(experiment, "preprocess")
    (shop / "c.csv").write_text("new")
    assert len({before, second, third, digest(experiment, "preprocess")}) == 4


def test_missing_upstream_names_the_command(experiment: config.Experiment) -> None:
    with pytest.raises(MissingStageError) as error:
        run(experiment, "preprocess")
    assert "fuserank generate" in error.value.hint
    with pytest.raises(MissingStageError, match="fuserank train"):
        stage_folder(experiment, "train")
    run(experiment, "generate")
    assert stage_folder(experiment, "generate") == experiment.run / "generate"


def test_without_a_manifest_nothing_counts(experiment: config.Experiment) -> None:
    def fails(folder: Path) -> dict:
        (folder / "part").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        run(experiment, "generate", fails)
    with pytest.raises(MissingStageError):
        stage_folder(experiment, "generate")
    work = Work()
    run(experiment, "generate", work)
    assert work.found == [["part", "started.json"]]  # the same digest: it goes on
    (experiment.run / "generate" / MANIFEST).unlink()
    run(config.update(experiment, {"records.generate.products": 300}), "generate", work)
    assert work.found[1] == ["started.json"]  # another digest: from the start


def test_a_stale_stage_starts_empty(experiment: config.Experiment) -> None:
    work = Work()
    run(experiment, "generate", work)
    run(config.update(experiment, {"records.generate.seed": 8}), "generate", work)
    assert work.found == [["started.json"], ["started.json"]]


def test_what_survives_a_new_run(experiment: config.Experiment) -> None:
    run(experiment, "generate")
    folder = experiment.run / "generate"
    (folder / "generations" / "one").mkdir(parents=True)
    (folder / "other").mkdir()
    (folder / "current").write_text("one")
    (folder / "link").symlink_to(folder / "other")
    seen: list[list[str]] = []

    def work(where: Path) -> dict:
        seen.append(sorted(entry.name for entry in where.iterdir()))
        return {}

    run_stage(experiment, "generate", work, force=True, survive=("generations", "current"), say=lambda _: None)
    assert seen == [["current", "generations", "started.json"]]
    assert (folder / "generations" / "one").is_dir()


@pytest.mark.parametrize("text", ["{", "", "[]", "{}", "\udcff"])
def test_a_damaged_manifest(experiment: config.Experiment, text: str) -> None:
    run(experiment, "generate")
    (experiment.run / "generate" / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    for ask in (read_manifest, run):
        with pytest.raises(StageError) as error:
            ask(experiment, "generate")
        assert MANIFEST in error.value.message
        assert "fuserank generate" in error.value.hint


def test_the_manifest_tells_what_ran(experiment: config.Experiment) -> None:
    manifest = run(experiment, "generate")
    assert set(manifest) >= {"stage", "digest", "version", "seconds", "finished", "sections", "summary"}
    assert manifest["sections"] == {"records.generate": config.Generate().model_dump()}
    assert json.loads((experiment.run / "generate" / MANIFEST).read_text()) == manifest


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    loop: dict = {}
    loop["loop"] = loop
    with pytest.raises(ValueError, match="Circular"):
        write_json(file, loop)
    assert json.loads(file.read_text()) == {"a": 1}
    write_json(file, {"path": Path("ü")})
    assert json.loads(file.read_text(encoding="utf-8")) == {"path": "ü"}
