"""The reports in a real browser, from disk: nothing overflows, plots are legible, tables sort, nothing is loaded.

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
from fuserank.artifacts import stage_path
from tests.workloads import served, tiny
from tune.front import front, importance
from tune.ledger import Trial, best
from tune.plan import Plan
from tune.space import space
from workloads import against, evaluate, policy
from workloads.tune_report import write_report

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


TABLES = {"report": 10, "against": 2, "tune": 2, "policy": 2}  # at least
PLOTS = {"report": 4, "against": 1, "tune": 3, "policy": 3}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a run with every section, a comparison of two runs, a search's and a policy's report."""
    root = tmp_path_factory.mktemp("pages")
    experiment = config.update(tiny.build_run(root), {"evaluate.bootstrap": 200, "evaluate.examples": 2})
    evaluate.run(experiment)
    shutil.copytree(root / "tiny", root / "other")
    against.run(experiment, "other")
    folder = root / "tiny" / "evaluate"
    searched(root / "tune.html")
    asked = served.experiment_below(root / "served")
    served.serve(asked)
    policy.run(asked, promote=True)
    return {
        "report": folder / "report.html",
        "against": next((folder / "against").glob("*.html")),
        "tune": root / "tune.html",
        "policy": stage_path(asked, "policy") / "report.html",
    }


def searched(file) -> None:
    """The report of a search over everything there is: twenty trials, some stopped, one failed with a long reason."""
    keys = {"hybrids": ["none", "linear"], "hybrid_weight": [0.05, 1], "rerank_depths": [10, 50], "vectors": ["hnsw"]}
    settings = {"trials": 20, "objectives": ["ndcg@10", "latency_ms"], "space": keys, "algorithm": "random"}
    experiment = config.validate({"name": "a-shop-with-a-rather-long-name-that-has-no-space", "tune": settings})
    plan, trials = Plan(space(experiment), [], 20, "random", lag=20), []
    for number in range(20):
        step = plan.next()
        assert step is not None
        score = step.params["fusion.modality_dropout"]
        if number == 3:
            reason = f"OutOfMemoryError: {'tried to allocate more than there is; ' * 5}/a/path{'/of/some/length' * 6}"
            trials.append(Trial(number, step.params, None, None, reason, cost=1.0))
        else:
            ended = 1 if number % 5 == 4 else None
            trials.append(Trial(number, step.params, score, 10.0 + number, None, ended, [score], 1.0))
    latency = {trial.number: 1 + trial.number / 7 for trial in trials if trial.complete}
    line, shares = front(trials, latency), importance([trial for trial in trials if trial.complete], plan.space)
    write_report(experiment, file, trials, latency, best(trials), line, shares)


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


@pytest.mark.parametrize("name", list(TABLES))
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
    assert found["tables"] >= TABLES[name]
    assert found["contrast"] >= 4.5  # WCAG 2 AA
    for natural, shown in found["plots"]:
        assert natural >= 2 * 358  # sharp on a telephone
        assert 320 <= shown <= 640  # 5.6 inches of 10.5-point letters: at 320 pixels they are 8 high
    assert len(found["plots"]) >= PLOTS[name]
