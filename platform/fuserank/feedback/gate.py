"""The gate: what may go live. Reads estimates, appends every decision with its evidence to a file of JSON lines."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import Interval
from fuserank.feedback.estimators import Estimate


@dataclass(frozen=True)
class Decision:
    """Whether a candidate goes live, and why."""

    promoted: bool
    reasons: tuple[str, ...]  # why not; for a promoted one the one reason why
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """The rule: the candidate's lower bound beats the incumbent's estimate by a margin, on enough effective answers."""

    margin: float = 0.0  # of reward a position shown
    effective: float = 1000.0
    bound: Literal["bootstrap", "bernstein"] = "bootstrap"

    def __post_init__(self) -> None:
        if not self.margin >= 0 or not self.effective > 0:
            raise PolicyError(f"a gate needs margin ≥ 0 and effective > 0, got {self.margin} and {self.effective}.")

    def decide(self, candidate: Estimate, incumbent: Estimate, paired: Interval | None = None) -> Decision:
        """
        Args:
            candidate: off-policy, or from a canary's own answers; incumbent: usually of its own answers.
            paired: how much more the candidate earns, where both are estimated from the same answers
                (estimators.difference); its lower bound is then what has to beat the margin.
        """
        low = getattr(candidate, self.bound).low if paired is None else incumbent.value + paired.low
        needed = incumbent.value + self.margin
        against = [f"candidate: {warning}" for warning in candidate.warnings]
        against += [f"incumbent: {warning}" for warning in incumbent.warnings]
        if candidate.effective < self.effective:
            against.append(f"{candidate.effective:.0f} effective answers, {self.effective:.0f} wanted")
        if not low > needed:  # NaN beats nothing
            against.append(
                f"lower bound {low:.5f} does not beat the incumbent's {incumbent.value:.5f} by {self.margin:g}"
            )
        why = (f"lower bound {low:.5f} beats the incumbent's {incumbent.value:.5f} by more than {self.margin:g}",)
        evidence = {
            "candidate": candidate.as_dict(),
            "incumbent": incumbent.as_dict(),
            "rule": {"margin": self.margin, "effective": self.effective, "bound": self.bound},
            **({} if paired is None else {"difference": paired.as_dict()}),
        }
        return Decision(not against, tuple(against) or why, evidence)


def decide_paired(
    figures: Mapping[str, Mapping[str, Any]], margin: float = 0.0, loss: float = 0.0, fewest: int = 50
) -> Decision:
    """Of two generations that answered the same questions: the new one goes live if one figure is proven better
    and none is much worse.

    Args:
        figures: name → `ours`, `theirs`, `mean`, `low`, `high` of their paired difference and `n`, what was asked.
        margin: that a lower bound must lie above. loss: that no difference itself may lie further below 0 than.
        fewest: n of a figure that counts.
    """
    counted = {name: row for name, row in figures.items() if row["low"] is not None and row["n"] >= fewest}
    against = [f"{name}: {row['n']} asked, {fewest} wanted" for name, row in figures.items() if name not in counted]
    better = [f"{name}: {_told(row)}" for name, row in counted.items() if row["low"] > margin]
    worse = [f"{name} is worse: {_told(row)}" for name, row in counted.items() if row["mean"] < -loss]
    if not better:
        shown = [f"{name}: {_told(row)}" for name, row in counted.items()]
        against += [f"nothing is proven better by more than {margin:g}", *shown]
    promoted = bool(better) and not worse
    evidence = {"figures": dict(figures), "rule": {"margin": margin, "loss": loss, "fewest": fewest}}
    return Decision(promoted, tuple(better if promoted else [*worse, *against]), evidence)


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['ours']:.4f} after {row['theirs']:.4f}, {row['mean']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def record(file: Path, decision: Decision, **about: Any) -> None:
    """Append a decision as one JSON line, on disk on return.

    Args:
        about: what was decided on and when: candidate, incumbent, estimator, time …
    """
    line = {**about, "promoted": decision.promoted, "reasons": list(decision.reasons), "evidence": decision.evidence}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        out.flush()
        os.fsync(out.fileno())


def recorded(file: Path) -> list[dict[str, Any]]:
    """All decisions so far, oldest first; a line that a crash left half written is left out."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _plain(value: Any) -> Any:
    """NaN and infinities as null, numpy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
