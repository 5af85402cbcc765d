"""The click models that `fuserank feedback` leaves, as `explain: true` shows them. Reads click/<kind>/ of its folder;
a model written anew is found by the next question."""

import logging
from pathlib import Path

import numpy as np

from fuserank.errors import ModelError
from fuserank.models.chances import FILE, Chances
from serve.messages import Choice

log = logging.getLogger("fuserank.serve")


class ClickModels:
    """One model of each kind of answer, where there is one."""

    def __init__(self, folder: Path):
        """folder: with one folder a kind; may be missing."""
        self._folder = folder
        self._known: dict[str, tuple[int, Chances | None]] = {}

    def chances(self, choice: Choice, rows: np.ndarray) -> np.ndarray | None:
        """[S, 2]: how likely each of the slate is clicked and bought where it stands; None: no model tells.

        Args:
            rows: int [S], of the choice's candidates, in the slate's order.
        """
        model = self._model(choice.scenario)
        if model is None or not set(model.names) <= set(choice.names):
            return None
        return model(choice.names, choice.features[rows], np.arange(len(rows)))

    def _model(self, kind: str) -> Chances | None:
        file = self._folder / kind / FILE
        try:
            written = file.stat().st_mtime_ns
        except OSError:
            return None
        if kind not in self._known or self._known[kind][0] != written:
            try:
                self._known[kind] = (written, Chances(file))
            except ModelError as error:
                log.warning("no click model of %s: %s", kind, error)
                self._known[kind] = (written, None)
        return self._known[kind][1]
