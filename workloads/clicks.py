"""The click models of `fuserank feedback`: one of each kind of answer that says what the policy saw.

Reads the impressions and joined tables that the stage has just written; writes click/<kind>/click.safetensors, and
report.html with how good they are on the latest answers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from fuserank.errors import PolicyError
from fuserank.evaluation import plots
from fuserank.evaluation.page import Cell, Page
from fuserank.feedback.slate_log import read_slates
from fuserank.models.click import HEADS, save_click
from fuserank.training.click import Shown, fit_click

KINDS = ("search", "recommend")
CONFOUNDED = ("place",)  # the model's own place says where a product was shown, not how it appeals


def fit(impressions: pa.Table, joined: pa.Table, folder: Path, name: str, seed: int, bootstrap: int) -> dict[str, Any]:
    """Kind → figures of fit_click, or {"reason": why there is none}."""
    found: dict[str, Any] = {}
    console = Console()
    for kind in KINDS:
        answers = impressions.filter(pc.field("kind") == kind)
        if not answers.num_rows:
            continue
        try:
            shown, names = shown_products(answers, joined)
            model, found[kind] = fit_click(shown, seed, bootstrap)
        except PolicyError as error:
            found[kind] = {"reason": str(error)}
            continue
        (folder / "click" / kind).mkdir(parents=True, exist_ok=True)
        save_click(model, names, folder / "click" / kind)
        if told := found[kind].get("click"):
            console.print(
                f"click model of {kind}: AUC {told['auc']:.3f}, log loss {told['log_loss']:.4f} "
                f"(each place's own rate {told['log_loss_place']:.4f}), calibration error "
                f"{told['calibration_error']:.4f}, on the latest {told['shown']} shown products"
            )
    if any("reason" not in figures for figures in found.values()):
        (folder / "report.html").write_text(_report(name, found).html(), encoding="utf-8")
        console.print(f"report: {folder / 'report.html'}", highlight=False)
    return found


def shown_products(impressions: pa.Table, joined: pa.Table) -> tuple[Shown, tuple[str, ...]]:
    """What was shown, oldest answer first, and the names of the features it is told by.

    Raises:
        PolicyError: no answer says what was seen.
    """
    clicked, bought = (read_slates(impressions, joined, reward) for reward in ("clicked", "purchased"))
    kept = [place for place, name in enumerate(clicked.names) if name not in CONFOUNDED]
    answers, size = clicked.rows.shape
    happened = np.stack([clicked.rewards.ravel(), bought.rewards.ravel()], 1)
    shown = Shown(
        clicked.shown()[..., kept].reshape(answers * size, len(kept)),
        np.tile(np.arange(size), answers),
        np.stack([np.maximum(happened[:, 0], happened[:, 1]), happened[:, 1]], 1),  # bought without a click: clicked
        np.repeat(np.arange(answers), size),
    )
    return shown, tuple(clicked.names[place] for place in kept)


def _report(name: str, found: Mapping[str, Any]) -> Page:
    page = Page(f"Clicks of {name}")
    page.text("Each model is judged on the latest answers, which neither trained nor calibrated it.", "soft")
    for kind, figures in found.items():
        page.heading(f"Answers to {kind}")
        if "reason" in figures:
            page.text(figures["reason"], "soft")
            continue
        page.table(
            ("event", "shown", "happened", "AUC", "log loss", "by place alone", "saved", "calibration error"),
            [_row(head, figures[head]) for head in HEADS if head in figures],
        )
        for head in HEADS:
            if head in figures:
                told = figures[head]["reliability"]
                page.plot(plots.reliability(told, f"{head}, {kind}"), f"{head}: what was told and what happened")
        chances = [(place + 1, chance) for place, chance in enumerate(figures["places"])]
        page.plot(plots.curves({"looked at": chances}, "place", "chance"), "how often each place is looked at")
    return page


def _row(head: str, figures: Mapping[str, Any]) -> list[Cell | str]:
    saved = figures["saved"]
    told = Cell(saved["mean"], f"{saved['mean']:.4f}", f" [{saved['low']:.4f}, {saved['high']:.4f}]")
    numbers = [Cell(figures[key], f"{figures[key]:,}") for key in ("shown", "happened")]
    numbers += [Cell(figures[key], f"{figures[key]:.4f}") for key in ("auc", "log_loss", "log_loss_place")]
    return [head, *numbers, told, Cell(figures["calibration_error"], f"{figures['calibration_error']:.4f}")]
