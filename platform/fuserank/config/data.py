"""Sections on a shop's data: where results go, which records come in, and what is prepared of them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fuserank.config.section import Fraction, Positive, Section


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
    format: Literal["auto", "sequences", "object", "names"] = "auto"  # auto: by the files' names
    map: dict[str, str | list[str]] = {}
    attributes: list[str] = []  # columns whose name fits, e.g. `attr_*`, become attributes named by what the star fits
    pairs: list[
        str
    ] = []  # columns that hold attributes as `name=value,name=value`; several values parted by the separator
    extract: dict[str, str] = {}  # field → regular expression; its first group in the mapped text is the value
    values: dict[str, dict[str, str]] = {}  # field → the shop's word → ours, e.g. type: {transaction: purchase}
    encoding: str | None = None  # of text files; null: UTF-16 by its mark, else UTF-8, and cp1252 where it is none
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # of .csv; null: by its header
    decimal: Literal[".", ","] | None = None  # mark in price texts; null: by the digits
    scale: dict[str, Annotated[float, Field(gt=0)]] = {}  # number field → factor, e.g. price: 0.01 for cents
    constants: dict[str, str | float | bool] = {}
    list_separator: str = "|"
    path_separator: str | None = None  # parts the levels of a category written as a path, e.g. `Men/Tops/Hoodies`


class Media(Section):
    """Where pictures or sounds lie: a folder or zip file below records.root, and the mapped column holds paths in it;
    or null, and the mapped column of a Parquet file holds the encoded pictures or sounds themselves."""

    source: str | None


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
    groups: dict[
        str, Literal["training", "validation", "evaluation"]
    ] = {}  # of queries whose group is named here, e.g. by a split that is published

    @model_validator(mode="after")
    def _queries_have_groups(self) -> "Split":
        if self.groups and self.by != "query":
            raise ValueError("groups names groups of queries; set by: query, or leave it out")
        return self


class EventSplit(Section):
    """Which events are for training, validation and evaluation.

    `last`: the last two things each user turned to are held out. `time`: all after a moment. `user`: all of some users,
    by a hash of their id.
    """

    by: Literal["last", "time", "user"] = "last"
    validation: Fraction = 0.1  # share of the events (time) or of the users (user)
    evaluation: Fraction = 0.1


class Records(Section):
    """The shop's raw data."""

    root: str | None = None  # folder of the files below; the generated shop is written to and read from the run itself
    generate: Generate | None = None
    products: Table = Table(files=["products.csv"])
    images: Media | None = None
    audio: Media | None = None
    group_variants: bool = False  # products that share a parent_id become one, with all its variants' attributes
    labels: list[str] = []  # product columns for judging only: they never reach a feature
    queries: Table | None = None
    judgments: Table | None = None
    label_queries: LabelQueries | None = None
    events: Table | None = None
    event_split: EventSplit = EventSplit()
    session_gap_minutes: Annotated[float, Field(gt=0)] = 30  # events without a session get one; a longer pause ends it
    bot_events_per_hour: Positive = 1000  # users with more events within any hour are flagged as bot-like
    links: dict[str, Table] = {}  # kind → table of product_id and linked_id
    link_grades: dict[str, Annotated[float, Field(gt=0)]] = {}  # kind of link → grade of the judgments made from it
    reviews: Table | None = None
    served: str | None = (
        None  # folder of what users did with a service's answers; `fuserank iterate` writes and sets it
    )
    split: Split = Split()

    @model_validator(mode="after")
    def _one_source(self) -> "Records":
        if self.label_queries and (self.queries or self.judgments):
            raise ValueError("give either records.label_queries or records.queries with records.judgments, not both")
        if (self.queries is None) != (self.judgments is None):
            raise ValueError("records.queries and records.judgments belong together: give both or neither")
        unknown = sorted(set(self.link_grades) - set(self.links))
        if unknown:
            raise ValueError(f"records.link_grades names {unknown[0]!r}, which records.links does not have")
        return self


class AudioFeatures(Section):
    """Log-mel spectrogram of a sound."""

    rate: Positive = 16000  # Hz; other rates are resampled
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.6  # longer is cut, shorter is padded
    mels: Positive = 40


class AttributeFeatures(Section):
    """Which brand, category and attribute values the attributes encoder knows."""

    vocabulary: Positive = 2000  # known values, the most frequent ones; each in two training products at least
    values: Positive = 32  # of one product; of more, the rarer ones
    bins: Annotated[int, Field(ge=2)] = 8  # quantile bins of an attribute with more different numbers than that


class Preprocess(Section):
    """Records → clean products and model inputs."""

    text_fields: list[str] = ["title", "brand", "category", "description"]  # joined in this order
    word_fields: Annotated[list[str], Field(min_length=1)] | None = None  # what word search reads; null: the same
    image_size: tuple[Positive, Positive] = (48, 48)  # height, width in pixels
    max_pixels: Positive = 40_000_000  # larger pictures are refused (decompression bombs)
    tokenizer: str | None = (
        None  # Hugging Face name or folder; null: a WordPiece tokenizer is trained on the shop's text
    )
    vocabulary: Positive = 6000
    text_tokens: Annotated[int, Field(ge=4, le=512)] = 32
    audio: AudioFeatures = AudioFeatures()
    price_quantiles: Positive = 16
    attributes: AttributeFeatures = AttributeFeatures()
    rows_per_block: Positive = 512
    merge_duplicates: list[
        Literal["same text", "similar text", "same picture", "similar picture"]
    ] = []  # products that are duplicates by every reason listed become one
    max_quarantined: Fraction = 0.2  # the run fails above this share of rows
