"""`evaluate --against`: two real runs on the same queries, their paired figures redone by hand, and every refusal."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fuserank import config
from fuserank.errors import EvaluationError
from tests.workloads import tiny
from workloads import against, evaluate
from workloads.cli import app

QUICK = {"evaluate.bootstrap": 200, "evaluate.examples": 0, "evaluate.hidden_text": 0.0}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A finished run, and one whose index is the same but whose figures are worse by chance: same queries."""
    root = tmp_path_factory.mktemp("against")
    first = config.update(tiny.build_run(root), QUICK)
    evaluate.run(first)
    shutil.copytree(root / "tiny", root / "other")
    second = config.update(first, {"name": "other"})
    metrics = root / "other" / "evaluate" / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"name": "tiny"', '"name": "other"'))
    file = root / "other" / "evaluate" / "per_query.parquet"
    table = pq.read_table(file)
    random = np.random.default_rng(0)
    worse = table["ndcg@10"].to_numpy() * random.choice([0.0, 0.5, 1.0], size=table.num_rows)
    pq.write_table(table.set_column(table.column_names.index("ndcg@10"), "ndcg@10", pa.array(worse)), file)
    return first, second, root


def copy(two, name: str, change) -> str:
    """The second run under another name, its metrics.json changed."""
    _, _, root = two
    shutil.copytree(root / "other", root / name, dirs_exist_ok=True)
    file = root / name / "evaluate" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["run"]["name"] = name
    change(metrics)
    file.write_text(json.dumps(metrics))
    return name


def values(root, run: str, system: str) -> dict[str, float]:
    rows = pq.read_table(root / run / "evaluate" / "per_query.parquet").to_pylist()
    return {row["query_id"]: row["ndcg@10"] for row in rows if row["system"] == system}


def test_figures_equal_those_of_the_files(two):
    first, _, root = two
    found = against.run(first, "other")
    assert (found["run"], found["against"], found["left_out"]) == ("tiny", "other", [])
    assert set(found["variants"]) == {"all text", "recommendation"}
    row = found["variants"]["all text"]["served"]["ndcg@10"]
    ours, theirs = values(root, "tiny", "served"), values(root, "other", "served")
    difference = [ours[query] - theirs[query] for query in ours]
    assert row["mean"] == pytest.approx(np.mean(difference), abs=1e-6)
    assert row["ours"] == pytest.approx(np.mean(list(ours.values())), abs=1e-6)
    assert row["n"] == 14
    changed = sum(d != 0 for d in difference)
    assert row["p"] == pytest.approx(2 * 0.5**changed, abs=0.02)  # all differences have one sign
    assert row["p_holm"] == pytest.approx(min(1.0, 5 * row["p"]), abs=1e-5)  # the other four metrics are equal
    assert found["variants"]["all text"]["served"]["mrr"]["p_holm"] == 1.0
    assert found["variants"]["recommendation"]["recommender"]["hr@10"]["mean"] == 0.0
    page = (root / "tiny" / "evaluate" / "against" / "other.html").read_text()
    assert "tiny against other" in page
    assert "http" not in page
    assert json.loads((root / "tiny" / "evaluate" / "against" / "other.json").read_text()) == found
    assert against.run(first, str(root / "other")) == found  # by folder


def test_the_order_of_the_rows_does_not_matter(two):
    first, _, root = two
    name = copy(two, "turned", lambda metrics: None)
    file = root / name / "evaluate" / "per_query.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take(pa.array(np.random.default_rng(3).permutation(table.num_rows))), file)
    assert against.run(first, name)["variants"] == against.run(first, "other")["variants"]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("k", 20, "k 10 here, 20 there"),
        ("relevant", 2.0, "relevant 1.0 here, 2.0 there"),
        ("catalogue", "0", "catalogue differ"),
        ("judgments", "0", "judgments differ"),
        ("queries", "0", "queries differ"),
    ],
)
def test_another_question_is_refused_by_name(two, key, value, named):
    name = copy(two, f"asks-other-{key}", lambda metrics: metrics["protocol"].update({key: value}))
    with pytest.raises(EvaluationError, match=named):
        against.run(two[0], name)


def test_the_queries_that_only_one_asked_are_named(two):
    first, _, root = two
    name = copy(two, "fewer", lambda metrics: metrics["protocol"].update({"queries": "0"}))
    file = root / name / "evaluate" / "per_query.parquet"
    rows = [row for row in pq.read_table(file).to_pylist() if row["query_id"] != "q03"]
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(EvaluationError, match=r"Only tiny: q03 \(1\)"):
        against.run(first, name)


def test_a_variant_with_other_hidden_products_is_left_out_and_named(two):
    change = {"hidden": "0"}
    name = copy(two, "hides", lambda metrics: metrics["variants"]["all text"]["protocol"].update(change))
    found = against.run(two[0], name)
    assert found["left_out"] == ["all text: hidden differ"]
    assert list(found["variants"]) == ["recommendation"]


def test_runs_that_cannot_be_compared(two):
    first, _, _ = two
    with pytest.raises(EvaluationError, match="there is no evaluated run 'nowhere'"):
        against.run(first, "nowhere")
    with pytest.raises(EvaluationError, match="is the run itself"):
        against.run(first, "tiny")
    with pytest.raises(EvaluationError, match="older fuserank"):
        against.run(first, copy(two, "old", lambda metrics: metrics.pop("protocol")))


def test_a_changed_judgment_or_query_changes_the_protocol(two):
    first, _, root = two
    written = json.loads((root / "tiny" / "evaluate" / "metrics.json").read_text())["protocol"]
    file = root / "tiny" / "preprocess" / "judgments.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    held = next(row for row in rows if row["query_id"] == "q00")
    held["grade"] += 1.0
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    try:
        evaluate.run(config.update(first, {"evaluate.bootstrap": 201}))
        now = json.loads((root / "tiny" / "evaluate" / "metrics.json").read_text())["protocol"]
        assert {key for key in now if now[key] != written[key]} == {"judgments"}
    finally:
        pq.write_table(table, file)
        evaluate.run(first)


def test_the_option_is_there():
    done = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    assert "against" in done.output
