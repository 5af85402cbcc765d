"""Links and reviews: judgments, ratings and events, looked up by hand."""

from pathlib import Path

import pyarrow as pa
import pytest

from fuserank.records import links
from fuserank.records.mapping import ColumnMap
from fuserank.records.products import STAGED
from fuserank.records.quarantine import Quarantine

ROWS = [{"product_id": name, "title": name.upper(), "source": "p", "position": 0} for name in "abc"]
KNOWN = {"a": "a", "b": "b", "c": "c", "a-red": "a"}
PRODUCTS = pa.Table.from_pylist(ROWS, schema=STAGED)


def test_links_and_what_is_asked_of_them(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('sku,linked\na,"b\nzzz\na"\nb,a\nnone,a\na,a-red\na-red,b\n')
    columns = ColumnMap(
        links.LINK_FIELDS, {"product_id": "sku", "linked_id": "linked"}, {}, key="links", list_separator="\n"
    )
    aside = Quarantine("links")
    related = links.read_links(tmp_path, ["l.csv"], columns, "related", aside, KNOWN)
    assert related.to_pylist() == [
        {"product_id": "a", "kind": "related", "linked_id": "b"},
        {"product_id": "b", "kind": "related", "linked_id": "a"},
    ]
    assert aside.counts() == {"linked_id: unknown product": 2, "row: unknown product": 1}
    upsell = pa.table([["a", "a"], ["upsell", "ignored"], ["c", "c"]], schema=related.schema)
    asked, judged = links.link_judgments(
        pa.concat_tables([related, upsell]), PRODUCTS, {"related": 2.0, "upsell": 1.0}, lambda key: f"<{key}>"
    )
    assert [(q["query_id"], q["text"], q["split"]) for q in asked] == [
        ("like:a", "A", "<like:a>"),
        ("like:b", "B", "<like:b>"),
    ]
    grades = [(row["query_id"], row["product_id"], row["grade"]) for row in judged.to_pylist()]
    assert grades == [
        ("like:a", "a", 2.0), ("like:a", "b", 2.0), ("like:a", "c", 1.0), ("like:b", "a", 2.0), ("like:b", "b", 2.0)
    ]  # fmt: skip


def test_reviews_rate_and_tell_what_was_liked(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("sku,who,stars\na,Ann,5\na-red,Bob,2\nb,,3\nb,Cy,3\nnone,Ann,5\nc,Di,many\n")
    columns = ColumnMap(links.REVIEW_FIELDS, {"product_id": "sku", "user_id": "who", "rating": "stars"}, {}, key="r")
    aside = Quarantine("reviews")
    reviews = links.read_reviews(tmp_path, ["r.csv"], columns, aside, KNOWN)
    aside.check(reviews.num_rows, 1.0)
    assert aside.counts() == {"row: bad value": 1, "row: unknown product": 1}
    rated = links.rate(PRODUCTS, reviews)
    assert rated.schema.equals(STAGED)
    assert rated["rating"].to_pylist() == [pytest.approx(3.5), pytest.approx(3.0), None]
    assert rated["review_count"].to_pylist() == [2, 2, None]
    found = [(e["user_id"], e["type"], e["product_id"]) for e in links.review_events(reviews).to_pylist()]
    assert found == [("Ann", "like", "a"), ("Bob", "dislike", "a"), ("Cy", "view", "b")]
