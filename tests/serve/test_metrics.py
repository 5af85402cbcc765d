"""Metrics: what a request leaves behind, one page of several nodes, and a dashboard and a document that keep up."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from serve import exporter, metrics
from serve.metrics import METRICS
from tests.serve.test_gateway import picture

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "serve" / "dashboard.json").read_text(encoding="utf-8"))


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> metrics.Tally:
    tally = metrics.Tally()
    monkeypatch.setattr(metrics, "_sink", tally)
    return tally


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_draws_every_metric_and_no_other():
    drawn = set(re.findall(r"\bray_(\w+)", " ".join(expressions())))
    series = {
        f"{name}{ending}": name
        for name, metric in METRICS.items()
        for ending in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    }
    assert drawn <= set(series), "drawn, but not exported"
    assert {series[name] for name in drawn} == set(METRICS), "exported, but not drawn"
    for expression in expressions():
        for name, labels in re.findall(r"\bray_(\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r'(\w+)[=!]~?"', labels))
            assert asked <= set(METRICS[series[name]].tags), expression
        for by in re.findall(r"by \(([^)]*)\)", expression):
            known = {"le", "WorkerId"} | {tag for name in METRICS if name in expression for tag in METRICS[name].tags}
            assert {label.strip() for label in by.split(",")} <= known, expression


def test_the_dashboard_is_one_grafana_can_load():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    for expression in expressions():
        assert expression.count("(") == expression.count(")")


def test_every_metric_is_documented_with_its_labels():
    text = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `ray_(\w+)` \| ([^|]*)\|", text, re.MULTILINE))
    assert set(rows) == set(METRICS)
    for name, metric in METRICS.items():
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(metric.tags), name


def test_every_metric_is_recorded_somewhere():
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "serve").glob("*.py"))
    recorded = set(re.findall(r'metrics\.record\(\s*"(\w+)"', code))
    assert recorded == set(METRICS)


def test_a_search_is_counted_and_timed_at_every_place(client: TestClient, tally: metrics.Tally, shop: ModuleType):
    for body in ({"text": "red"}, {"text": "red", "image": picture(shop)}, {"text": "red", "filter": {"prize": 1}}):
        client.post("/v1/search", json=body)
    client.get("/v1/products/none")
    client.get("/nowhere/at/all")
    search = "/v1/search"
    assert tally.of("fuserank_requests_total", endpoint=search, status="200") == [1, 1]
    assert tally.of("fuserank_requests_total", endpoint=search, status="400") == [1]
    assert tally.of("fuserank_errors_total", endpoint=search, code="bad_filter") == [1]
    assert tally.of("fuserank_requests_total", endpoint="unknown", status="404") == [1]
    times = tally.of("fuserank_request_seconds", endpoint=search)
    assert len(times) == 3
    for stage in ("queue", "encode", "retrieve", "rerank", "render"):
        parts = tally.of("fuserank_stage_seconds", stage=stage)
        assert len(parts) == 2
        assert all(0 <= part <= max(times) for part in parts)
    assert tally.of("fuserank_batch_requests") == [1, 1, 1]
    assert tally.of("fuserank_deployment_batch_requests", deployment="text-encoder") == [1, 1, 1]
    assert tally.of("fuserank_deployment_batch_requests", deployment="image-encoder") == [1]
    assert tally.of("fuserank_deployment_errors_total", deployment="retriever", code="bad_filter") == [1]
    assert len(tally.of("fuserank_deployment_seconds", deployment="reranker")) == 2


def test_events_and_changes_are_counted_by_what_became_of_them(client: TestClient, tally: metrics.Tally):
    event = {"event_id": "counted", "type": "view", "product_id": "p01"}
    client.post("/v1/events", json=[event, {"type": "nonsense", "product_id": "p01"}])
    client.post("/v1/events", json=[event])
    assert tally.of("fuserank_events_total", outcome="accepted") == [1]
    assert tally.of("fuserank_events_total", outcome="duplicate") == [1]
    assert tally.of("fuserank_events_total", outcome="rejected") == [1]
    client.post("/v1/products", json=[{"product_id": ""}])
    assert tally.of("fuserank_changes_total", kind="upsert", outcome="rejected") == [1]


def test_pages_of_several_nodes_become_one_that_prometheus_reads():
    def page(node: str, value: int) -> str:
        return (
            "# HELP ray_fuserank_a_total what\n# TYPE ray_fuserank_a_total counter\n"
            f'ray_fuserank_a_total{{node="{node}"}} {value}\n'
            "# HELP ray_object_store_memory no\n# TYPE ray_object_store_memory gauge\nray_object_store_memory 7\n"
            "# HELP ray_fuserank_b what\n# TYPE ray_fuserank_b histogram\n"
            f'ray_fuserank_b_bucket{{node="{node}",le="+Inf"}} 2\nray_fuserank_b_count{{node="{node}"}} 2\n'
            f'ray_fuserank_b_sum{{node="{node}"}} 3\n'
        )

    merged = exporter.merge([page("x", 1), page("y", 5)])
    assert merged.count("# TYPE ray_fuserank_a_total counter") == 1
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    assert {sample.labels["node"]: sample.value for sample in families["ray_fuserank_a"].samples} == {"x": 1, "y": 5}
    assert len(families["ray_fuserank_b"].samples) == 6
    assert "object_store" not in merged


def test_without_an_exporter_the_page_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def none() -> Any:
        raise OSError("/secret/path")

    monkeypatch.setattr(exporter, "gather", none)
    answer = client.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_metrics")
    assert "secret" not in answer.text
