"""Real catalogues through their configs alone: every row accounted for, and spot values looked up by hand."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from fuserank import config
from fuserank.records import events, products, queries
from fuserank.records.mapping import column_map
from fuserank.records.quarantine import Quarantine

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"


def read(name: str, *sets: str) -> tuple[config.Records, Path, pa.Table, Quarantine]:
    """The products of the catalogue of that name."""
    root = SHARED / name
    if not root.is_dir():
        pytest.skip(f"../shared/data/{name} is not here")
    records = config.load(ROOT / "workloads" / "configs" / f"{name}.yaml", list(sets)).records
    aside = Quarantine("products")
    columns = column_map(records.products, products.FIELDS, "products", records.labels)
    table = products.read_products(root, records.products.files, columns, records.products.list_separator, aside)
    aside.check(table.num_rows, 0.0)
    return records, root, table, aside


def read_behaviour(records: config.Records, root: Path, known: pa.Table) -> tuple[pa.Table, Quarantine]:
    assert records.events is not None
    aside, columns = Quarantine("events"), column_map(records.events, events.FIELDS, "events")
    found = events.read_events(root, records.events.files, columns, aside, set(known["product_id"].to_pylist()))
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


def test_chinese_reviews() -> None:
    _, _, reviews, _ = read("reviews_zh")
    first = row(reviews, "online_shopping_10_cats.zip/online_shopping_10_cats.csv:0")
    assert first["category"] == ["书籍"]
    assert first["description"].startswith("做父母一定要有刘墉这样的心态")
    assert first["labels"] == [("label", "1")]
    assert len({category[0] for category in reviews["category"].to_pylist()}) == 10
    assert reviews.num_rows == 62_774


def test_voice_orders() -> None:
    _, _, orders, _ = read("voice")
    assert orders.num_rows == 56
    order = row(orders, "00e09cf0-a01d-453e-9b89-dc6e6d31d362.wav")
    assert order["audio_path"] == order["product_id"]
    slots = {"coffeeDrink": "iced coffee", "numberOfShots": "triple shot", "roast": "light roast"}
    assert dict(order["attributes"]) == slots


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
    known = set(asked["query_id"].to_pylist()), set(catalogue["product_id"].to_pylist())
    judged = queries.read_judgments(root, records.judgments.files, columns, aside, *known)
    aside.check(judged.num_rows, 1.0)
    assert judged.num_rows + aside.rows == 2193
