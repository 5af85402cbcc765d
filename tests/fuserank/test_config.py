"""The config refuses what it does not know, names what was meant, and writes what it reads."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fuserank import config
from fuserank.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "workloads" / "configs").glob("*.yaml"))


def nested(path: str, value: object) -> dict:
    for part in reversed(path.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("fusoin", "fusion"),
        ("fusion.knd", "fusion.kind"),
        ("train.epoch", "train.epochs"),
        ("train.batchsize", "train.batch_size"),
        ("tune.epoch", "tune.epochs"),
        ("pretrain.text.epoch", "pretrain.text.epochs"),
        ("pretrain.image.lr", None),
        ("encoders.text.layer", "encoders.text.layers"),
        ("encoders.txt", "encoders.text"),
        ("loss.weights.fuse", "loss.weights.fused"),
        ("loss.fused", "loss.weights.fused"),
        ("preprocess.audio.second", "preprocess.audio.seconds"),
        ("records.products.file", "records.products.files"),
        ("records.generate.product", "records.generate.products"),
        ("train.tokenizer", "preprocess.tokenizer"),
        ("batch_size", "train.batch_size"),
        ("serve.prt", "serve.port"),
        ("fusion.xyzzy", None),
    ],
)
def test_unknown_keys_name_the_nearest(wrong: str, meant: str | None) -> None:
    values = nested(wrong, 1)
    if wrong.startswith("records.products"):
        values["records"]["products"]["files"] = ["a.csv"]
    with pytest.raises(ConfigError) as error:
        config.validate(values)
    assert f"`{wrong}`" in error.value.message
    if meant is not None:
        assert f"`{meant}`" in error.value.hint
    else:  # nothing is near: every sibling is named
        parent = wrong.rpartition(".")[0]
        known = config.keys()
        leaves = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == parent]
        assert all(leaf in error.value.hint for leaf in leaves)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("fusion.kind", "gatd", ["fusion.kind", "gated", "gatd"]),
        ("train.epochs", 0, ["train.epochs", "greater than 0"]),
        ("train.epochs", "many", ["train.epochs", "many"]),
        ("loss.temperature", -1, ["loss.temperature"]),
        ("fusion.modality_dropout", 1.5, ["fusion.modality_dropout"]),
        ("fusion.width", 130, ["fusion.width", "multiple of 4"]),
        ("encoders.text.heads", 5, ["encoders.text", "multiple of heads 5"]),
        ("encoders.audio.channels", 6, ["encoders.audio.channels", "multiple of 4"]),
        ("encoders.recommender.heads", 3, ["fusion.width 128", "encoders.recommender.heads 3"]),
        ("serve.port", 70000, ["serve.port"]),
        ("name", "../up", ["name"]),
        ("records.queries", {"files": ["q.csv"]}, ["records.judgments"]),
        ("records.label_queries", {"columns": ["a"]}, ["records.label_queries.required"]),
        ("loss.weights", dict.fromkeys(config.LossWeights.model_fields, 0), ["above 0"]),
        ("encoders", dict.fromkeys(("text", "image", "audio", "price", "attributes")), ["at least one"]),
        ("preprocess.image_size", [48], ["preprocess.image_size"]),
    ],
)
def test_bad_values_name_their_key(path: str, value: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        config.validate(nested(path, value))
    for word in words:
        assert word in str(error.value)
    assert len(error.value.message) < 300


def test_adalora_is_not_sharded() -> None:
    values = {"train": {"strategy": "fsdp"}, "encoders": {"text": {"adaptation": "lora"}}}
    assert config.validate(values).train.strategy == "fsdp"
    values["encoders"]["text"]["adaptation"] = "adalora"
    with pytest.raises(ConfigError, match="choose ddp"):
        config.validate(values)


def test_a_canary_that_could_never_be_promoted_is_refused() -> None:
    values = {"name": "x", "policy": {"canary": 0.1, "canary_answers": 500}}
    with pytest.raises(ConfigError, match="raise it to 1000"):
        config.validate(values)
    assert config.validate({"name": "x", "policy": {"canary_answers": 500}}).policy.canary == 0


def test_two_sources_of_queries() -> None:
    labels, table = {"columns": ["a"], "required": "a"}, {"files": ["x.csv"]}
    with pytest.raises(ConfigError, match="not both"):
        config.validate({"records": {"label_queries": labels, "queries": table, "judgments": table}})


def test_sets(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("name: shop\nencoders: {audio: null}\n")
    sets = [
        "fusion.kind=concat",
        "train.epochs=3",
        "encoders.text=null",
        "encoders.audio.channels=8",  # a section that was null comes back
        "preprocess.image_size=[32, 24]",
        "preprocess.tokenizer=a=b",
        " name = other ",
        "tune.space.kinds=[gated]",
        "records.root=",
    ]
    found = config.load(file, sets)
    assert (found.fusion.kind, found.train.epochs, found.encoders.text) == ("concat", 3, None)
    assert found.encoders.audio is not None
    assert found.encoders.audio.channels == 8
    assert found.preprocess.image_size == (32, 24)
    assert found.preprocess.tokenizer == "a=b"
    assert (found.name, found.tune.space.kinds, found.records.root) == ("other", ["gated"], None)
    for wrong, word in (
        ("fusion.kind", "key=value"),
        ("=3", "key=value"),
        ("name.x=1", "`name` is a value"),
        ("fusion.kind=[", "not valid YAML"),
        ("fusion.knd=concat", "fusion.kind"),
    ):
        with pytest.raises(ConfigError) as error:
            config.load(file, [wrong])
        assert word in str(error.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        config.load(tmp_path / "nowhere.yaml")
    for text, word in (("a: [", "not valid YAML"), ("- 1\n", "list"), ("just words", "str")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=word):
            config.load(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert config.load(tmp_path / "empty.yaml") == config.Experiment()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_loads_and_comes_back(file: Path, tmp_path: Path) -> None:
    experiment = config.load(file)
    config.dump(experiment, tmp_path / "again.yaml")
    assert config.load(tmp_path / "again.yaml") == experiment
    assert experiment.name == file.stem


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_no_key_stands_twice(file: Path) -> None:
    """YAML silently takes the last of two equal keys."""

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            assert len(names) == len(set(names)), names
            for _, value in node.value:
                walk(value)

    walk(yaml.compose(file.read_text()))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_generated_shop_is_read_whole(file: Path) -> None:
    """Whoever generates a shop must also say where its queries, judgments and pictures lie, or training has nothing."""
    records = config.load(file).records
    if records.generate is not None:
        assert records.queries is not None
        assert records.judgments is not None
        assert records.images is not None
        assert "images" in records.products.map


def test_update() -> None:
    before = config.Experiment()
    after = config.update(before, {"fusion.kind": "joint", "records.generate.products": 200, "encoders.audio": None})
    assert (after.fusion.kind, after.encoders.audio) == ("joint", None)
    assert after.records.generate is not None
    assert after.records.generate.products == 200
    assert before == config.Experiment()
    assert config.update(before, {}) == before
    for wrong in ({"fusion.knd": 1}, {"name.x": 1}, {"train.epochs": -1}):
        with pytest.raises(ConfigError):
            config.update(before, wrong)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        config.Experiment().fusion.kind = "joint"  # type: ignore[misc]


def test_keys() -> None:
    found = config.keys()
    assert len(found) == len(set(found))
    assert {"fusion.kind", "records.queries.files", "pretrain.text.epochs", "encoders.recommender.events"} <= set(found)


def test_sections_stand_in_the_order_of_the_data() -> None:
    order = [
        "records",
        "preprocess",
        "pretrain",
        "encoders",
        "fusion",
        "loss",
        "train",
        "tune",
        "index",
        "evaluate",
        "serve",
    ]
    assert [name for name in config.Experiment.model_fields if name in order] == order
