"""The report is one file without the network, and nothing a shop writes becomes markup."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fuserank.evaluation import report
from fuserank.evaluation.page import Example, Hit, Page, chance, difference, figure, thumbnail
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import compare, measure

EVIL = '<script>alert("x")</script> & $body ${title} "quoted"'


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not close."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.values, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def built():
    random = np.random.default_rng(0)
    grades = random.choice([0, 0, 1, 2], size=(40, 30)).astype(np.float32)
    orders = {name: np.argsort(random.random(grades.shape), axis=1) for name in ("bm25", "text", "image", "fused")}
    orders["served"] = np.argsort(-grades, axis=1, kind="stable")
    values = measure(orders, grades)
    slices = {ALL: np.ones(40, bool), f"group: {EVIL}": np.arange(40) < 20, "empty": np.zeros(40, bool)}
    recommended = {"hr@10": random.random(40), "ndcg@10": random.random(40)}
    compared = compare(values, slices, [("served", "bm25"), ("served", "image")], 200, 0)
    few = {"mean": 0.123, "low": 0.1, "high": 0.2, "n": 9, "excludes_zero": True}
    group = {"products": 4, "systems": dict.fromkeys(values, few), "difference": few}
    missing = {
        name: {"complete": dict(compared[ALL]["systems"][name]["mrr"]), "without image": {"mean": None}}
        for name in values
    }
    searched = {
        "ablation": compared[ALL],
        "groups": {"category": {EVIL: group}},
        "beyond": {"served": {"coverage": 0.5}},
    }
    metrics = {
        "run": {
            "name": EVIL, "generation": "g1", "products": 30, "queries": 40, "left_out": 2, "k": 10, "recall_k": 100,
            "samples": 200, "seed": 0,
        },
        "variants": {"all text": {"slices": compared, "missing": missing, **searched}},
        "recommendation": {
            "users": 40, "left_out": 3,
            "slices": compare({"recommender": recommended}, {ALL: slices[ALL]}, []),
            "beyond": {"recommender": {"coverage": 0.25, "novelty": compared[ALL]["systems"]["bm25"]["mrr"]}},
        },
        "leaks": [{"name": "later-events", "count": 3, "of": 9, "detail": EVIL}],
    }  # fmt: skip
    examples = [Example(EVIL, {"BM25": [Hit(EVIL, 2.0), Hit("plain", 0.0)], "fused": []}, None, EVIL)]
    histograms = {"all text": {"served − BM25": values["served"]["ndcg@10"] - values["bm25"]["ndcg@10"]}}
    return report.build(metrics, histograms, examples)


def test_nothing_is_loaded_from_elsewhere(built):
    html, images = built
    reader = Reader()
    reader.feed(html)
    assert not reader.open  # every tag closed
    links = [value for _, name, value in reader.values if name in ("src", "href", "srcset", "data", "action")]
    assert links
    assert all(link.startswith("data:image/") for link in links)
    assert "link" not in reader.tags
    assert "iframe" not in reader.tags
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    for png in images.values():
        assert png.startswith(b"\x89PNG")
        assert base64.b64encode(png).decode() in html


def test_everything_from_the_shop_is_escaped(built):
    html, _ = built
    reader = Reader()
    reader.feed(html)
    assert reader.tags.count("script") == 1  # our own sorting
    assert "<script>alert" not in html
    text = "".join(reader.words)
    assert text.count('<script>alert("x")</script>') >= 4  # title, heading, slice, example: shown as text
    assert "$body" in text


def test_tables_are_sortable_and_say_what_they_hold(built):
    html, _ = built
    assert len(re.findall(r'<th scope="col"(?: class="words")?><button', html)) == html.count("<th ")
    assert "served (hybrid + rerank)" in html
    assert "Fewer than 50 queries" in html
    assert "2 queries have no relevant product" in html
    assert html.count("<figure>") == 2
    assert "0.123" not in html  # nine queries
    assert html.count("too few") == 6  # five systems and a difference
    assert "Allowed by evaluate.allow_leaks – later-events: 3 of 9" in html


def test_cells():
    assert figure({"mean": 0.5, "low": 0.4, "high": 0.6}).text == "0.500"
    assert figure({"mean": None}).text == "–"
    for cell in (figure, difference, chance):
        few = cell({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, "excludes_zero": True, "p_holm": 0.01})
        assert (few.value, few.text, few.aside, few.style) == (None, "too few", " (n = 9)", "")
    assert chance({"mean": 0.1, "n": 10, "p_holm": 0.0005}).text == "< 0.001"
    assert chance({"mean": 0.1, "n": 10, "p_holm": 0.0123}).text == "0.012"
    won = difference({"mean": 0.1, "low": 0.05, "high": 0.2, "excludes_zero": True})
    assert (won.style, won.text) == ("up", "+0.100")
    assert difference({"mean": -0.1, "low": -0.2, "high": -0.05, "excludes_zero": True}).style == "down"
    assert difference({"mean": 0.1, "low": -0.1, "high": 0.2, "excludes_zero": False}).style == ""


def test_sentences_are_set_in_lines_and_so_is_their_head():
    page = Page("t")
    page.table(["trial", "reason"], [["3", "it ran out of memory while it was computing something"], ["4", "short"]])
    assert page.parts[0].count('class="words"') == 2
    assert '<th scope="col" class="words"><button type="button">reason' in page.parts[0]
    assert '<td data-v="short">short' in page.parts[0]


def test_thumbnail(tmp_path):
    Image.new("RGBA", (300, 200), (255, 0, 0, 255)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    uri = thumbnail(tmp_path / "a.png")
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 4000
    assert thumbnail(tmp_path / "b.png") is None
    assert thumbnail(tmp_path / "none.png") is None
    assert thumbnail(None) is None


def test_page_template_survives_dollar_signs():
    assert "costs $5 ${x}" in _page("costs $5 ${x}")


def _page(words: str) -> str:
    page = Page("t")
    page.text(words)
    return page.html()
