"""Peak memory of a process and all that it started."""

import threading

import psutil


class Watch:
    """Peak proportional set size of a process and its descendants in bytes, looked at twice a second."""

    def __init__(self, pid: int):
        self.peak, self._stop, self._root = 0, threading.Event(), psutil.Process(pid)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            used = 0
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    used += process.memory_full_info().pss
            except psutil.Error:
                continue
            self.peak = max(self.peak, used)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
