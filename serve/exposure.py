"""Refuses to listen where other machines can ask before there is a key to ask with."""

import ipaddress
from typing import Any

from fuserank.errors import ServeError
from fuserank.store.database import Database


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on that address. Names other than localhost count as not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_without_keys(host: str, url: str) -> None:
    """Reads the store unless the address is loopback.

    Args:
        host: the address to listen on. url: the database.

    Raises:
        ServeError: other machines can reach the address, and no key is valid. StoreError: the database failed.
    """
    if is_loopback(host):
        return
    with Database(url) as database:
        if any(key.active() for key in database.api_keys()):
            return
    raise ServeError(
        f"other machines can reach {host}, and there is no API key to tell callers apart.",
        "Make one first, `fuserank keys create -c FILE --name shop --scope search --scope write`, or set serve.host to "
        "127.0.0.1.",
    )


def http_host(configured: str) -> str:
    """The address that a running Ray Serve listens on, which `serve deploy` takes from a file of its own; the
    configured one where none runs."""
    import ray
    from ray.serve import context

    if not ray.is_initialized():  # to ask would start a Ray of its own
        return configured
    client: Any = context._get_global_client(raise_if_no_controller_running=False)
    return configured if client is None else client.http_config.host or configured
