"""Real catalogues through their configs alone: every row accounted for, and spot values looked up by hand."""

import io
import wave
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fuserank import config
from fuserank.features.audio import decode_audio
from fuserank.features.text import train_tokenizer
from fuserank.records import events, links, products, queries
from fuserank.records.mapping import column_map
from fuserank.records.media import MediaSource
from fuserank.records.quarantine import Quarantine
from fuserank.records.variants import group_variants, known_ids
from fuserank.retrieval.lexical import LexicalIndex

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"


def read(name: str, *sets: str) -> tuple[config.Records, Path, pa.Table, Quarantine]:
    """The products of the catalogue of that name."""
    root = SHARED / name.split("_digits")[0]
    if not root.is_dir():
        pytest.skip(f"../shared/data/{name} is not here")
    records = config.load(ROOT / "workloads" / "configs" / f"{name}.yaml", list(sets)).records
    aside = Quarantine("products")
    columns = column_map(records.products, products.FIELDS, "products", records.labels)
    table = products.read_products(root, records.products.files, columns, aside)
    aside.check(table.num_rows, 0.0)
    return records, root, table, aside


def read_behaviour(records: config.Records, root: Path, known: pa.Table) -> tuple[pa.Table, Quarantine]:
    assert records.events is not None
    aside, columns = Quarantine("events"), column_map(records.events, events.FIELDS, "events")
    found = events.read_events(root, records.events.files, columns, aside, known_ids(known))
    aside.check(found.num_rows, 1.0)
    return found, aside


def row(table: pa.Table, product_id: str) -> dict:
    return table.slice(table["product_id"].to_pylist().index(product_id), 1).to_pylist()[0]


def test_movielens() -> None:
    records, root, films, _ = read("movielens")
    assert films.num_rows == 1682
    toy_story = row(films, "1")
    assert toy_story["title"] == "Toy Story"
    assert toy_story["category"] == ["Animation", "Children's", "Comedy"]
    assert toy_story["attributes"] == [("release_year", "1995")]
    ratings, aside = read_behaviour(records, root, films)
    assert (ratings.num_rows, aside.rows) == (100_000, 0)
    assert len(set(ratings["user_id"].to_pylist())) == 943
    assert sum(ratings["value"].to_pylist()) == sum(
        float(line.split("\t")[2]) for line in (root / "ml-100k.inter").read_text().splitlines()[1:]
    )


def test_luma() -> None:
    records, root, rows, aside = read("luma")
    assert (rows.num_rows, aside.rows) == (1994, 0)
    articles, merged = group_variants(rows)
    assert (articles.num_rows, merged) == (147, 1847)
    hoodie = row(articles, "MH01")
    assert hoodie["title"] == "Chaz Kangeroo Hoodie"
    assert hoodie["description"].startswith("Ideal for cold-weather training or work outdoors, the Chaz Hoodie")
    assert "<" not in hoodie["description"]
    assert "• Two-tone gray heather hoodie. •" in hoodie["description"]
    assert hoodie["category"][:4] == ["Default Category", "Men", "Tops", "Hoodies & Sweatshirts"]
    assert (hoodie["price"], hoodie["currency"]) == (Decimal("52.00"), "USD")
    assert len(hoodie["variant_ids"]) == 15
    assert {value for name, value in hoodie["attributes"] if name == "size"} == {"XS", "S", "M", "L", "XL"}
    assert {value for name, value in hoodie["attributes"] if name == "color"} == {"Black", "Gray", "Orange"}
    assert ("material", "Wool") in hoodie["attributes"]
    pictures = {path for paths in articles["image_paths"].to_pylist() for path in paths}
    assert records.images is not None
    source = MediaSource(root, records.images.source)
    assert len([source.stamp(path) for path in pictures]) == 675  # every picture named is there
    known, counts = known_ids(articles), {}
    assert (known["MH01-XS-Black"], known["MH01"]) == ("MH01", "MH01")
    for kind, table in records.links.items():
        columns = column_map(table, links.LINK_FIELDS, f"links.{kind}")
        counts[kind] = links.read_links(root, table.files, columns, kind, Quarantine("links"), known).num_rows
    assert counts == {"related": 393, "upsell": 246}
    assert records.reviews is not None
    aside = Quarantine("reviews")
    columns = column_map(records.reviews, links.REVIEW_FIELDS, "reviews")
    reviews = links.read_reviews(root, records.reviews.files, columns, aside, known)
    assert (reviews.num_rows, aside.counts()) == (269, {"row: unknown product": 231})  # bags, watches and the like


def test_spoken_digits() -> None:
    _, root, digits, _ = read("voice_digits")
    assert digits.num_rows == 3000
    assert row(digits, "7_theo_12")["attributes"] == [("speaker", "theo")]
    assert row(digits, "7_theo_12")["title"] == "7"
    assert MediaSource(root, "digits.zip").read(row(digits, "7_theo_12")["audio_path"])[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("name", "users", "items"), [("Beauty", 22_363, 12_101), ("Yelp", 30_431, 20_033), ("LastFM", 1_090, 3_646)]
)
def test_sequences(name: str, users: int, items: int) -> None:
    sets = (f"records.events.files=[{name}.txt]", f"records.products.files=[{name}_item2attributes.json]")
    records, root, catalogue, _ = read("sequences", *sets)
    assert catalogue.num_rows == items
    found, aside = read_behaviour(records, root, catalogue)
    lines = [line.split() for line in (root / f"{name}.txt").read_text().splitlines()]
    assert (found.num_rows, aside.rows) == (sum(len(line) - 1 for line in lines), 0)
    history: dict[str, list[str]] = {}
    for user, item in zip(found["user_id"].to_pylist(), found["product_id"].to_pylist(), strict=True):
        history.setdefault(user, []).append(item)  # events come in time order
    assert len(history) == users
    assert history == {line[0]: line[1:] for line in lines}


def test_chinese_reviews(tmp_path: Path) -> None:
    _, _, reviews, _ = read("reviews_zh")
    first = row(reviews, "online_shopping_10_cats.zip/online_shopping_10_cats.csv:0")
    assert first["category"] == ["书籍"]
    assert first["description"].startswith("做父母一定要有刘墉这样的心态")
    assert first["labels"] == [("label", "1")]
    assert len({category[0] for category in reviews["category"].to_pylist()}) == 10
    assert reviews.num_rows == 62_774
    texts = reviews["description"].to_pylist()
    tokenizer = train_tokenizer([text for text in texts[::20] if text], 12_000)
    tokens = tokenizer.encode(first["description"]).tokens
    assert tokens[1:8] == list("做父母一定要有")  # a character each, as BERT's tokenizer does
    index = LexicalIndex.build([text or "" for text in texts], tmp_path / "lexical")
    wanted = {place for place, text in enumerate(texts) if "刘墉" in (text or "")}
    (found,), _ = index.search(["刘墉"], 20)
    assert set(found[:2].tolist()) == wanted  # the two that have the name, then what has one of its characters
    assert len(found) == 20


def test_voice_orders() -> None:
    records, root, orders, _ = read("voice")
    assert orders.num_rows == 56
    order = row(orders, "00e09cf0-a01d-453e-9b89-dc6e6d31d362.wav")
    assert order["audio_path"] == order["product_id"]
    slots = {"coffeeDrink": "iced coffee", "numberOfShots": "triple shot", "roast": "light roast"}
    assert dict(order["attributes"]) == slots
    assert records.audio is not None
    data = MediaSource(root, records.audio.source or "").read(order["audio_path"])
    with wave.open(io.BytesIO(data)) as file:  # Python's own reader
        assert (file.getnframes(), file.getframerate()) == (134_400, 16_000)  # 8.4 s
    samples = decode_audio(data, 16_000, 10.0)
    assert np.flatnonzero(samples)[-1] < 134_400 <= np.flatnonzero(samples)[-1] + 1600  # all of it, then silence


def test_icecat() -> None:
    records, root, catalogue, _ = read("icecat")
    assert catalogue.num_rows == 19_406
    processor = row(catalogue, "832931")
    assert processor["price"] == Decimal("134.94")  # written as 13494 cents
    assert processor["brand"] == "Intel"
    expected = "Intel® CoreTM2 Duo Processor T5600 (2M Cache, 1.83 GHz, 667 MHz FSB)"  # no <br />; NFKC writes ™ as TM
    assert processor["description"] == expected
    attributes = dict(processor["attributes"])
    assert attributes["processor_socket"] == "Socket 479"
    assert attributes["processor_frequency"] == "1.83"
    assert attributes["box"] == "false"
    assert records.queries is not None
    assert records.judgments is not None
    aside = Quarantine("queries")
    columns = column_map(records.queries, queries.QUERY_FIELDS, "queries")
    asked = queries.read_queries(root, records.queries.files, columns, aside, "text", lambda text: "training")
    aside.check(asked.num_rows, 0.0)
    assert (asked.num_rows, aside.rows_in, aside.repeated) == (81, 2193, 2112)
    aside = Quarantine("judgments")
    columns = column_map(records.judgments, queries.JUDGMENT_FIELDS, "judgments")
    known = set(asked["query_id"].to_pylist()), known_ids(catalogue)
    judged = queries.read_judgments(root, records.judgments.files, columns, aside, *known)
    aside.check(judged.num_rows, 1.0)
    assert judged.num_rows + aside.rows == 2193
