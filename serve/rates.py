"""Token buckets: how many requests each key may send. In the memory of one gateway replica, and of that one alone."""

import time
from collections.abc import Callable


class Rates:
    """`take(name, rate)` → 0, or the seconds to wait.

    A bucket holds at most `burst` tokens and gains `rate` a second; a request takes one. So within any t seconds a key
    sends at most burst + rate · t requests through this replica, and n replicas let through at most n times as many.
    """

    def __init__(self, burst: int, clock: Callable[[], float] = time.monotonic):
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # name → tokens, at which time; names are keys' own: few

    def take(self, name: str, rate: float) -> float:
        """Take a token out of the bucket.

        Args:
            rate: tokens a second; 0 for no limit.

        Returns:
            0.0 if there was one, else the seconds until there will be.
        """
        if rate <= 0:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * rate)
        if tokens >= 1:
            self._buckets[name] = (tokens - 1, now)
            return 0.0
        self._buckets[name] = (tokens, now)
        return (1 - tokens) / rate
