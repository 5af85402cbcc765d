"""Traces: sent by OTLP to a collector, a span for each part of a request's way, in the caller's trace if it has one."""

import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank.errors import ConfigError
from serve import tracing
from tests.serve.test_gateway import picture

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A collector's URL, and the spans it has been sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    server.shutdown()
    server.server_close()


def test_a_request_is_one_trace_from_the_caller_to_the_reranker(client: TestClient, collector: Any, shop: ModuleType):
    url, spans = collector
    provider = tracing.start("gateway", url, 1.0)
    try:
        body = {"text": "red", "image": picture(shop)}
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        identity = client.post("/v1/search", json=body, headers=sent).json()["request_id"]
        client.post("/v1/search", json={"text": "red"})
    finally:
        tracing.stop()
        provider.shutdown()
    mine = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert set(mine) == {"POST /v1/search", "queue", "text-encoder", "image-encoder", "retriever", "reranker"}
    root = mine["POST /v1/search"]
    assert root.parent_span_id.hex() == PARENT
    values = {item.key: item.value for item in root.attributes}
    assert values["fuserank.request_id"].string_value == identity
    assert values["http.response.status_code"].int_value == 200
    for name, span in mine.items():
        if span is not root:
            assert span.parent_span_id == root.span_id, name
            assert root.start_time_unix_nano - 5e6 <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano + 5e6  # two clocks: wall and monotonic
    assert mine["text-encoder"].end_time_unix_nano <= mine["retriever"].end_time_unix_nano
    assert mine["retriever"].end_time_unix_nano <= mine["reranker"].end_time_unix_nano
    other = [span for span in spans if span.trace_id.hex() != TRACE]
    assert len({span.trace_id for span in other}) == 1
    assert len(other) == 5


def test_a_share_of_nothing_traces_only_what_the_caller_traces(client: TestClient, collector: Any):
    url, spans = collector
    provider = tracing.start("gateway", url, 0.0)
    try:
        assert client.post("/v1/search", json={"text": "red"}).status_code == 200
        asked = client.post("/v1/search", json={"text": "red"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        broken = client.post(
            "/v1/search", json={"text": "red"}, headers={"traceparent": "00-zz-é'-1".encode("latin-1")}
        )
        assert asked.status_code == broken.status_code == 200
    finally:
        tracing.stop()
        provider.shutdown()
    assert {span.trace_id.hex() for span in spans} == {TRACE}


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    tracing.check(None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(ConfigError, match=r"pip install fuserank\[otel\]"):
        tracing.check("http://localhost:4318/v1/traces")
