"""A private PostgreSQL for tests: its own folder and Unix socket, no port, ended with the session."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing() -> str | None:
    """Why there can be no PostgreSQL here, None if there can."""
    if _binaries() is None:
        return "no PostgreSQL binaries (apt-get install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "no psycopg (pip install fuserank[postgres])"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL refuses to run as root, and there is no runuser"
    return None


@contextmanager
def cluster() -> Iterator[str]:
    """Start one; gives a URL with `{}` in place of the database's name."""
    binaries = _binaries()
    assert binaries is not None
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # short, because a socket's path may have 107 characters
    before: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")
        before = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*before, str(binaries / program), *arguments]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    data = home / "data"
    run("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N")
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c shared_buffers=16MB -c fsync=off"
    run("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(home / "log"), "start")
    try:
        yield f"postgresql://postgres@/{{}}?host={home}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def _binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("pg_ctl")
    folders += [Path(found).resolve().parent] if found else []
    return next((folder for folder in folders if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file()), None)
