"""`GET /metrics`: what Ray's exporters of all nodes hold, as one page of the Prometheus text format. Reads their HTTP.

Ray's own series are left out but for Serve's; scrape the nodes themselves for those (docs/OPERATIONS.md).
"""

import urllib.request
from collections.abc import Iterable

PREFIXES = ("ray_fuserank_", "ray_serve_")
SECONDS = 5.0


def gather() -> str:
    """The page; blocks. Raises OSError if no exporter answers."""
    import ray

    if not ray.is_initialized():  # asking for the nodes would start a Ray of its own
        raise OSError("this process is not part of a Ray cluster")
    nodes = [node for node in ray.nodes() if node["Alive"] and node.get("MetricsExportPort")]
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # nodes are not behind the environment's proxy
    pages, errors = [], []
    for node in nodes:
        host = node["NodeManagerAddress"]
        host = f"[{host}]" if ":" in host else host
        try:
            with opener.open(f"http://{host}:{node['MetricsExportPort']}/metrics", timeout=SECONDS) as answer:
                pages.append(answer.read().decode("utf-8"))
        except OSError as error:
            errors.append(error)
    if not pages:
        raise OSError(f"no metrics exporter answers: {errors}")
    return merge(pages)


def merge(pages: Iterable[str]) -> str:
    """One page of several, each family with its HELP and TYPE once, as the format demands."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith("#"):
                words = line.split(" ", 3)
                if len(words) < 3 or not words[2].startswith(PREFIXES):
                    family = ""
                    continue
                family = words[2]
                if line not in heads.setdefault(family, []):
                    heads[family].append(line)
            elif family and line.startswith(family):
                samples.setdefault(family, []).append(line)
    return "".join(f"{line}\n" for family in heads for line in (*heads[family], *samples.get(family, [])))
