"""The report in a real browser, from disk: nothing overflows, plots are legible, tables sort, nothing is loaded.

Skipped where there is no Chromium. The page is measured by a script put into a copy of it, which writes what it found
into the page's title.
"""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

from fuserank import config
from tests.workloads import tiny
from workloads import against, evaluate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (apt-get install chromium)")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
]
MEASURE = """<script>addEventListener("load", () => {
  const all = query => [...document.querySelectorAll(query)], box = e => e.getBoundingClientRect();
  const wide = all("body *").filter(e => !e.closest(".scroll") && box(e).right > innerWidth + 1);
  const key = row => column => {
    const v = row.cells[column].dataset.v, n = Number(v);
    return v !== "" && !isNaN(n) ? n : v;
  };
  const unsorted = [];
  all("table").forEach((table, number) => [...table.tHead.rows[0].cells].forEach((head, column) => {
    for (const sign of [-1, 1]) {
      head.querySelector("button").click();
      const keys = [...table.tBodies[0].rows].map(row => key(row)(column));
      const ordered = keys.every((k, i) => i === 0 || sign * (typeof k === "number" && typeof keys[i - 1] === "number"
        ? keys[i - 1] - k : String(keys[i - 1]).localeCompare(String(k))) <= 0);
      if (!ordered) unsorted.push([number, column, sign]);
    }
  }));
  const colour = e => getComputedStyle(e).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const back = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const texts = all("p, td, td small, td span, h1, h2, h3, figcaption").filter(e => e.textContent.trim());
  const contrast = texts.map(e => {
    const [a, b] = [light(colour(e)), light(back(e))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  });
  document.title = "MEASURED" + JSON.stringify({ inner: innerWidth, page: document.documentElement.scrollWidth,
    wide: wide.map(e => e.tagName + "." + e.className), unsorted, tables: all("table").length,
    plots: all("figure img").map(e => [e.naturalWidth, box(e).width]), contrast: Math.min(...contrast),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    loaded: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")) });
});</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a run with every section, and a comparison of two runs."""
    root = tmp_path_factory.mktemp("pages")
    experiment = config.update(tiny.build_run(root), {"evaluate.bootstrap": 200, "evaluate.examples": 2})
    evaluate.run(experiment)
    shutil.copytree(root / "tiny", root / "other")
    against.run(experiment, "other")
    folder = root / "tiny" / "evaluate"
    return {"report": folder / "report.html", "against": next((folder / "against").glob("*.html"))}


def measured(page, folder, width: int, *flags: str) -> dict:
    copy = folder / page.name
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    framed = folder / "frame.html"  # a window is not made narrower than 500 pixels, a frame is
    framed.write_text(
        f'<body style="margin:0"><iframe src="{copy.name}" style="border:0;width:{width}px;height:2000px"></iframe>'
        "<script>onload = () => setTimeout(() => { document.title = frames[0].document.title }, 500)</script>"
    )
    command = [str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files"]
    done = subprocess.run(
        [*command, "--dump-dom", framed.as_uri()],
        capture_output=True, text=True, timeout=200, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    found = re.search(r"<title>MEASURED(.*?)</title>", done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-1500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("name", ["report", "against"])
@pytest.mark.parametrize(
    ("width", "flags"), [(1280, ()), (390, ("--force-dark-mode", "--blink-settings=preferredColorScheme=0"))]
)
def test_the_page_in_a_browser(pages, tmp_path, name, width, flags):
    found = measured(pages[name], tmp_path, width, *flags)
    assert found["inner"] == width
    assert found["dark"] == bool(flags)
    assert found["page"] <= width, found["wide"]
    assert not found["wide"]
    assert not found["unsorted"]
    assert not found["loaded"]
    assert found["tables"] >= (10 if name == "report" else 2)
    assert found["contrast"] >= 4.5  # WCAG 2 AA
    for natural, shown in found["plots"]:
        assert natural >= 2 * 358  # sharp on a telephone
        assert 320 <= shown <= 640  # 5.6 inches of 10.5-point letters: at 320 pixels they are 8 high
    assert len(found["plots"]) >= (4 if name == "report" else 1)
