"""The storefront's script against a service that asks for a key: it asks the person once and goes on. Run by node with
a page of stubs; skipped where there is no node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "serve" / "static" / "store.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on the PATH")
PAGE = """
const kept = new Map(), asked = [], sent = [];
const storage = {
  getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => kept.set(k, v), removeItem: (k) => kept.delete(k),
};
const element = () => new Proxy(function () {}, {
  get: (t, k) => (k in t ? t[k] : k === "value" ? "" : element()), set: (t, k, v) => ((t[k] = v), true), apply: element,
});
Object.assign(globalThis, {
  localStorage: storage, sessionStorage: storage, location: { search: "" }, history: { replaceState() {} },
  document: { getElementById: element, querySelector: element }, addEventListener() {}, scrollTo() {},
  prompt: (text) => (asked.push(text), ANSWER),
  fetch: async (path, options = {}) => {
    const key = options.headers?.Authorization;
    sent.push([path, key ?? null]);
    await new Promise((done) => setTimeout(done, 5));
    const error = { message: "An API key is needed.", hint: "" };
    if (key !== "Bearer good") return { ok: false, status: 401, json: async () => ({ error }) };
    return { ok: true, status: 200, json: async () => ({ fine: true }), blob: async () => new Blob(["x"]) };
  },
});
"""
CALLS = """
(async () => {
  await new Promise((done) => setTimeout(done, 50));
  sent.length = 0; asked.length = FIRST;
  const calls = [call("/v1/search", { text: "a" }), call("/v1/recommend", {}), call("/v1/products/p")];
  const results = await Promise.allSettled(calls);
  const image = { remove() {} };
  await load(image, "/v1/products/p/image");
  console.log(JSON.stringify({ asked: asked.length, sent, key: kept.get("key") ?? null, image: image.src ?? null,
                               results: results.map((r) => r.value?.fine ?? r.reason.message) }));
  process.exit(0);
})();
"""


def run(answer: str | None, first: str = "0") -> dict[str, Any]:
    assert NODE is not None
    page = PAGE.replace("ANSWER", json.dumps(answer))
    code = page + SCRIPT.read_text(encoding="utf-8").replace('"use strict";', "") + CALLS.replace("FIRST", first)
    done = subprocess.run([NODE, "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_question_serves_every_call_and_pictures_carry_the_key():
    found = run("good", "asked.length")
    assert found["asked"] == 1, "one question, though the page called several times at its start"
    assert found["key"] == "good"
    assert found["results"] == [True, True, True]
    assert all(key == "Bearer good" for _, key in found["sent"])
    assert found["image"].startswith("blob:")


def test_without_an_answer_the_error_is_shown():
    found = run(None)
    assert found["key"] is None
    assert found["results"] == ["An API key is needed."] * 3
