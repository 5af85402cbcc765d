"""One YAML file is one experiment: a frozen, typed tree whose sections stand in the order the data flows.

`load("workloads/configs/demo.yaml", ["fusion.kind=concat"])` reads a file, applies `--set` values by dotted path, and
validates. Unknown keys are refused with the nearest valid one. `dump` writes a file that loads to the same experiment.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuserank.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A frozen part of the config; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Storage(Section):
    """Where stages write: `<root>/<name>/<stage>/`."""

    root: str = "runs"  # made absolute by the command line; inside a submitted job it must be absolute already


class Generate(Section):
    """The generated shop (records/synthetic.py)."""

    products: Annotated[int, Field(ge=100)] = 1200
    users: Annotated[int, Field(ge=10)] = 500
    queries: Annotated[int, Field(ge=20)] = 600
    seed: int = 7
    speech: bool = True  # spoken names and queries, where espeak-ng is installed


class Table(Section):
    """A table of the shop: files below records.root (globs allowed) and where each field comes from.

    `map` names our field → the shop's column (or, for list fields, a list of columns). Unmapped fields keep their own
    name if the file has such a column.
    """

    files: list[str]
    map: dict[str, str | list[str]] = {}
    constants: dict[str, str | float | bool] = {}
    list_separator: str = "|"


class Media(Section):
    """Where pictures or sounds lie: a folder or zip file below records.root; the mapped column holds paths in it."""

    source: str


class LabelQueries(Section):
    """Queries made from label columns: one per combination of values; grade 2 if all match, 1 if `required` does.

    Combinations whose sha1 falls in the held-out share never occur in training or validation judgments.
    """

    columns: list[str]
    required: str
    min_products: Positive = 5  # a combination becomes an evaluation query with at least so many evaluation products
    holdout_modulus: Positive = 5  # int(sha1(query), 16) % modulus == 0 is held out


class Split(Section):
    """Which rows are training, validation and evaluation: int(sha1(key), 16) % modulus, key lower-cased."""

    by: Literal["query", "product"] = "query"
    key: str = "query_id"  # a query field, or a product field such as title
    modulus: Positive = 10
    validation: list[int] = [7]
    evaluation: list[int] = [8, 9]


class Records(Section):
    """The shop's raw data."""

    root: str | None = None  # folder of the files below; the generated shop is written to and read from the run itself
    generate: Generate | None = None
    products: Table = Table(files=["products.csv"])
    images: Media | None = None
    audio: Media | None = None
    labels: list[str] = []  # product columns for judging only: they never reach a feature
    queries: Table | None = None
    judgments: Table | None = None
    label_queries: LabelQueries | None = None
    events: Table | None = None
    split: Split = Split()

    @model_validator(mode="after")
    def _one_source(self) -> "Records":
        if self.label_queries and (self.queries or self.judgments):
            raise ValueError("give either records.label_queries or records.queries with records.judgments, not both")
        if (self.queries is None) != (self.judgments is None):
            raise ValueError("records.queries and records.judgments belong together: give both or neither")
        return self


class AudioFeatures(Section):
    """Log-mel spectrogram of a sound."""

    rate: Positive = 16000  # Hz; other rates are resampled
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.6  # longer is cut, shorter is padded
    mels: Positive = 40


class Preprocess(Section):
    """Records → clean products and model inputs."""

    text_fields: list[str] = ["title", "brand", "category", "description"]  # joined in this order
    image_size: tuple[Positive, Positive] = (48, 48)  # height, width in pixels
    max_pixels: Positive = 40_000_000  # larger pictures are refused (decompression bombs)
    tokenizer: str | None = (
        None  # Hugging Face name or folder; null: a WordPiece tokenizer is trained on the shop's text
    )
    vocabulary: Positive = 6000
    text_tokens: Annotated[int, Field(ge=4, le=512)] = 32
    audio: AudioFeatures = AudioFeatures()
    price_quantiles: Positive = 16
    rows_per_block: Positive = 512
    max_quarantined: Fraction = 0.2  # the run fails above this share of rows


class PretrainModality(Section):
    """Self-supervision of one encoder."""

    epochs: Annotated[int, Field(ge=0)] = 5  # 0 skips it
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class Pretrain(Section):
    """Self-supervised start of the encoders: masked language (text) and two-view contrast (image)."""

    text: PretrainModality = PretrainModality()
    image: PretrainModality = PretrainModality()


Adaptation = Literal["frozen", "full"]


class TextEncoder(Section):
    """M_LM: a small BERT built from these numbers, or `model`: any Hugging Face text model by name or folder."""

    model: str | None = None
    layers: Positive = 2
    hidden: Positive = 128
    heads: Positive = 4
    pooling: Literal["mean", "cls"] = "mean"
    adaptation: Adaptation = "full"

    @model_validator(mode="after")
    def _heads_fit(self) -> "TextEncoder":
        if self.model is None and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")
        return self


class ImageEncoder(Section):
    """M_V: a torchvision classification backbone by name, weights from a local safetensors file if given."""

    model: str = "resnet10"  # resnet10 is ours (one block a stage); else any torchvision name, or a Hugging Face folder
    channels: Positive = 32  # width of resnet10's first stage
    weights: str | None = None
    adaptation: Adaptation = "full"


class AudioEncoder(Section):
    """M_A: a log-mel convolutional encoder."""

    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 48  # normalised in groups of 4
    adaptation: Adaptation = "full"


class PriceEncoder(Section):
    """Learned embedding of log-price quantiles plus Fourier features of log-price."""

    frequencies: Positive = 8


class RecommenderModel(Section):
    """M_R: a causal transformer over the user's recent events on fused product vectors."""

    events: Positive = 20  # how far back it looks
    layers: Positive = 2
    heads: Positive = 4
    dropout: Fraction = 0.2


class Encoders(Section):
    """The models that see each modality, and the recommender; a null encoder leaves its modality out."""

    text: TextEncoder | None = TextEncoder()
    image: ImageEncoder | None = ImageEncoder()
    audio: AudioEncoder | None = AudioEncoder()
    price: PriceEncoder | None = PriceEncoder()
    recommender: RecommenderModel | None = RecommenderModel()

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in ("text", "image", "audio", "price") if getattr(self, m) is not None)

    @model_validator(mode="after")
    def _something(self) -> "Encoders":
        if not self.modalities:
            raise ValueError("encoders: at least one of text, image, audio, price must be configured")
        return self


FusionKind = Literal["concat", "attention", "gated", "ensemble", "joint"]


class Fusion(Section):
    """How one product's modality vectors become one vector."""

    kind: FusionKind = "gated"
    width: Annotated[int, Field(gt=0, multiple_of=4)] = 128  # D: every modality is projected to it; 4 attention heads
    modality_dropout: Fraction = 0.2  # chance that training hides one present modality (never the last)


class LossWeights(Section):
    """L = Σ weight · loss; a weight of 0 leaves the head out. The tuner searches these."""

    text: Weight = 0.5
    image: Weight = 0.5
    audio: Weight = 0.3
    price: Weight = 0.1
    recommend: Weight = 0.3
    fused: Weight = 1.0
    align: Weight = 0.2

    @model_validator(mode="after")
    def _something(self) -> "LossWeights":
        if not any(self.model_dump().values()):
            raise ValueError("at least one loss weight must be above 0")
        return self


class Loss(Section):
    """The ranking and alignment losses."""

    weights: LossWeights = LossWeights()
    temperature: Annotated[float, Field(gt=0)] = 0.07  # where it starts; it is learnt


class Train(Section):
    """Supervised training of encoders, fusion and recommender together, on Ray Train."""

    epochs: Positive = 12
    batch_size: Positive = 128  # products a step
    positives: Fraction = (
        0.5  # further products a step, drawn from the best answers to its queries (share of batch_size)
    )
    queries: Annotated[int, Field(ge=0)] = 0  # queries a step: one a product, filled up to so many at random
    sequences: Annotated[int, Field(ge=0)] = 32  # user histories a step, for the recommender
    token_dropout: Fraction = 0.1  # share of the words that each step hides
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    encoder_learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 0.01
    warmup: Fraction = 0.1  # share of all steps
    clip: Annotated[float, Field(gt=0)] = 1.0
    workers: Positive = 1
    cpus_per_worker: Positive = 2
    gpu: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the device computes it natively
    max_failures: Annotated[int, Field(ge=0)] = 2  # workers that may die before the run fails
    keep: Literal["best", "last"] = "best"  # which epoch's weights are exported, by validation nDCG@10


class Tune(Section):
    """Ray Tune over fusion kind and loss weights, on cached encoder outputs."""

    trials: Positive = 10
    epochs: Positive = 12
    concurrent: Positive = 2
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    algorithm: Literal["tpe", "random"] = "tpe"
    kinds: list[FusionKind] = ["concat", "attention", "gated", "ensemble", "joint"]


class Index(Section):
    """What serving searches: vectors (faiss) and words (tantivy), one immutable folder a generation."""

    vectors: Literal["flat", "hnsw"] = "flat"
    candidates: Positive = 200  # how many each side hands to the reranker
    keep: Positive = 2  # generations left on disk


class Evaluate(Section):
    """Full-catalogue ranking of held-out queries."""

    k: Positive = 10
    recall_k: Positive = 100
    relevant: Annotated[float, Field(gt=0)] = 1.0  # grade from which a product counts for recall, MRR, hit rate and MAP
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    hidden_text: Fraction = (
        0.5  # share of evaluation products whose text is hidden in the second table; 0 leaves it out
    )
    examples: Annotated[int, Field(ge=0)] = 6  # queries shown with pictures in the report


class Serve(Section):
    """HTTP through Ray Serve."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    encoder_replicas: Positive = 1
    retriever_replicas: Positive = 1
    reranker_replicas: Positive = 1
    max_body_bytes: Positive = 8_000_000
    max_limit: Positive = 100  # largest `limit` of one answer
    max_batch: Positive = 64  # requests one micro-batch carries down the chain
    queue: Positive = 512  # requests waiting at the gateway before 429


class Tracking(Section):
    """Where training curves go."""

    tensorboard: bool = True


class Experiment(Section):
    """A whole experiment; see each section's own docstring."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "shop"
    seed: int = 0
    storage: Storage = Storage()
    records: Records = Records()
    preprocess: Preprocess = Preprocess()
    pretrain: Pretrain = Pretrain()
    encoders: Encoders = Encoders()
    fusion: Fusion = Fusion()
    loss: Loss = Loss()
    train: Train = Train()
    tune: Tune = Tune()
    index: Index = Index()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _heads_fit(self) -> "Experiment":
        if (recommender := self.encoders.recommender) is not None and self.fusion.width % recommender.heads:
            raise ValueError(
                f"fusion.width {self.fusion.width} must be a multiple of encoders.recommender.heads {recommender.heads}"
            )
        return self

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.storage.root) / self.name


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted path a config may set, leaves and sections both."""
    found = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        found.append(path)
        for kind in _sections(field.annotation):
            found += keys(kind, f"{path}.")
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in getattr(annotation, "__args__", ()) for kind in _sections(part)]


def _nearest(path: str) -> str:
    """Which key was meant: the nearest sibling, the same name in another section, or else what the section has."""
    known = [key for key in keys() if key != path]
    parent, _, leaf = path.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    alike = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in siblings], n=1, cutoff=0.6)
    elsewhere = [key for key in known if key.rpartition(".")[2] == leaf]
    if alike:
        return f"Did you mean `{f'{parent}.{alike[0]}'.lstrip('.')}`?"
    if match := difflib.get_close_matches(path, elsewhere, n=1, cutoff=0.0):
        return f"Did you mean `{match[0]}`?"
    names = ", ".join(key.rpartition(".")[2] for key in siblings)
    return f"{f'`{parent}`' if parent else 'An experiment'} has {names}." if names else "See docs/CONFIG.md."


def validate(values: dict) -> Experiment:
    """A dict of values → Experiment.

    Raises:
        ConfigError: naming the key, what was wrong and the nearest valid key.
    """
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown config key `{path}`.", _nearest(path)) from None
        detail = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r:.80})"
        raise ConfigError(f"config key `{path or 'experiment'}`: {detail}{got}.") from None


def load(path: str | os.PathLike, sets: list[str] | None = None) -> Experiment:
    """Read an experiment file and apply `key=value` overrides (values are YAML).

    Raises:
        ConfigError: missing file, malformed YAML, unknown key or invalid value.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"config file {file} does not exist.", "Give -c a YAML file, e.g. workloads/configs/demo.yaml."
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of sections, not a {type(values).__name__}.")
    for item in sets or []:
        _apply(values, item)
    return validate(values)


def _apply(values: dict, item: str) -> None:
    path, equals, text = item.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"--set {item!r} is not key=value.", "Write e.g. --set fusion.kind=concat.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {path}: the value is not valid YAML: {error}") from None
    _put(values, path, value)


def _put(values: dict, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node = values
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"cannot set `{path}`: `{part}` is a value, not a section.", _nearest(path))
    node[leaf] = value


def dump(experiment: Experiment, path: str | os.PathLike) -> None:
    """Write an experiment as YAML that `load` reads back to the same experiment."""
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def update(experiment: Experiment, sets: dict[str, Any]) -> Experiment:
    """A copy with dotted paths replaced, validated anew."""
    values = experiment.model_dump(mode="json")
    for path, value in sets.items():
        _put(values, path, value)
    return validate(values)
