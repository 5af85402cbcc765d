"""The API keys as the database had them a moment ago. Reads the store, once a second, in a thread of its own.

While the database does not answer, the keys last read stay good: searches need no database, and neither do their keys.
"""

import logging
import threading

from fuserank.errors import StoreError
from fuserank.store.database import Database
from fuserank.store.keys import ApiKey, find

log = logging.getLogger("fuserank.serve")
POLL_SECONDS = 1.0


class Keyring:
    """Says whose key was presented. A new, rotated or revoked key counts after `poll_seconds` at most."""

    def __init__(self, database: Database, always: bool, poll_seconds: float = POLL_SECONDS):
        """
        Args:
            always: ask for keys even if there are none, because other machines can reach the service.

        Raises:
            StoreError: the keys cannot be read.
        """
        self.database, self._always, self._poll_seconds = database, always, poll_seconds
        self._keys: dict[str, ApiKey] = {}
        self.read()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="keyring", daemon=True)
        self._thread.start()

    @property
    def required(self) -> bool:
        """Whether requests need a key: once there was one, also after all are revoked."""
        return self._always or bool(self._keys)

    def find(self, presented: str) -> ApiKey | None:
        """The active key presented, None for anything else; compared in constant time."""
        return find(presented, self._keys)

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()
        self._thread.join()

    def read(self) -> None:
        """Read them now. Raises StoreError."""
        self._keys = {key.id: key for key in self.database.api_keys()}

    def _follow(self) -> None:
        failing = False
        while not self._stopped.wait(self._poll_seconds):
            try:
                self.read()
                failing = False
            except StoreError as error:
                if not failing:
                    log.warning("the API keys cannot be read; those known stay good: %s", error)
                failing = True
