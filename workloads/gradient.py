"""`fuserank policy -c FILE --reranker [--promote]`: the reranker fine-tuned on the searches that a policy answered.

Reads feedback/ and the generation that answers. Tunes a copy of its reranker by policy gradient on the older searches
(training/policy_gradient.py), estimates on the newer ones what its order would earn beside the order of the one it came
from, and with --promote asks the gate. Writes gradient/: reranker.safetensors, estimates.json, report.html and
decisions.jsonl (kept from run to run). What the gate lets through becomes a generation, the same but for its reranker,
and a running service answers from it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.table import Table
from torch import nn

from fuserank.artifacts import run_stage, stage_folder, write_json
from fuserank.config import Experiment
from fuserank.errors import PolicyError, ServeError
from fuserank.evaluation import plots
from fuserank.evaluation.intervals import Interval
from fuserank.evaluation.page import Page
from fuserank.feedback.estimators import Estimate, Log, difference, estimate
from fuserank.feedback.gate import Decision, Gate, record, recorded
from fuserank.feedback.judged import FOLDS, judged
from fuserank.models.checkpoint import save_weights
from fuserank.retrieval.generation import adopt, variant
from fuserank.training.policy_gradient import SlateLog, Tuned, all_scores, fine_tune
from serve.app import index_folder
from workloads import generations, index
from workloads.logged_searches import Logged, logged_searches
from workloads.progress import console, say
from workloads.searching import Searching

DECISIONS, WEIGHTS = "decisions.jsonl", "reranker.safetensors"
OLD, NEW = "as it answers", "fine-tuned"


def run(experiment: Experiment, promote: bool = False) -> dict[str, Any]:
    """Fine-tune, estimate, and decide if asked to; always runs, because the log grows. Returns the stage's manifest.

    Raises:
        MissingStageError: `fuserank feedback` has not run. StageError, ModelError: the generation cannot be opened.
    """
    feedback = stage_folder(experiment, "feedback")
    identity = generations.incumbent(experiment)
    manifest = run_stage(
        experiment,
        "gradient",
        lambda folder: _gradient(experiment, feedback, identity, folder, promote),
        force=True,
        survive=(DECISIONS,),
        say=say,
    )
    if (manifest["summary"]["decision"] or {}).get("promoted"):
        _go_live(experiment, identity, stage_folder(experiment, "gradient") / WEIGHTS)
    return manifest


def _gradient(experiment: Experiment, feedback: Path, identity: str, folder: Path, promote: bool) -> dict[str, Any]:
    settings, gradient = experiment.policy, experiment.policy.gradient
    impressions, joined, events = (
        pq.read_table(feedback / f"{name}.parquet") for name in ("impressions", "joined", "events")
    )
    searching = Searching(index_folder(experiment) / "generations" / identity, experiment.index.candidates)
    try:
        logged = logged_searches(impressions, joined, events, settings.reward, searching, gradient.answers)
        cut = int(len(logged.slates.rows) * settings.learn)
        learning, judging = (
            logged.slates.part(rows) for rows in torch.arange(len(logged.slates.rows)).tensor_split([cut])
        )
        if min(len(learning.rows), len(judging.rows)) < FOLDS:
            raise PolicyError(f"{len(logged.slates.rows)} searches are too few to learn from some and judge by others.")
    except PolicyError as error:
        console.print(f"Nothing to learn from: {error}", highlight=False)
        summary: dict[str, Any] = {"answers": 0, "reason": str(error), "estimates": {}, "decision": None}
        write_json(folder / "estimates.json", summary)
        return summary
    incumbent = searching.reranker
    tuned = fine_tune(
        incumbent,
        learning,
        gradient.limit,
        gradient.epochs,
        gradient.learning_rate,
        _temperature(incumbent, learning, gradient.temperature),
        gradient.cap,
        experiment.seed,
    )
    save_weights(tuned.network, folder / WEIGHTS)
    logs = {
        name: _log(network, judging, learning, settings.share, settings.ridge, experiment.seed)
        for name, network in ((OLD, incumbent), (NEW, tuned.network))
    }
    method, level, samples, seed = settings.estimator, settings.level, settings.bootstrap, experiment.seed
    estimates = {name: estimate(log, None, level, samples, seed) for name, log in logs.items()}
    paired = difference(logs[NEW], logs[OLD], method, level, samples, seed)
    decision = None
    if promote:
        gate = Gate(settings.margin, settings.effective, settings.bound)
        decision = gate.decide(estimates[NEW][method], estimates[OLD][method], paired)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record(folder / DECISIONS, decision, time=now, candidate="reranker", incumbent=identity, estimator=method)
    summary = {
        "answers": len(logged.slates.rows),
        "judged_on": len(judging.rows),
        "left_out": logged.left_out,
        "incumbent": identity,
        "kl": tuned.kl,
        "estimates": {name: {m: e.as_dict() for m, e in found.items()} for name, found in estimates.items()},
        "difference": paired.as_dict(),
        "decision": None if decision is None else {"promoted": decision.promoted, "reasons": list(decision.reasons)},
    }
    write_json(folder / "estimates.json", summary)
    page = _report(experiment, logged, tuned, estimates, paired, recorded(folder / DECISIONS))
    (folder / "report.html").write_text(page.html(), encoding="utf-8")
    _print(estimates, paired, method, tuned, decision, folder)
    return summary


def _temperature(network: nn.Module, log: SlateLog, share: float) -> float:
    """In units of the network's scores, which have a scale of their own: `share` of their spread within an answer."""
    scores = all_scores(network, log)
    held = torch.where(log.mask, scores, torch.nan)
    centred = held - held.nanmean(1, keepdim=True)
    return share * max(float(centred[log.mask].square().mean().sqrt()), 1e-6)


def ordered(scores: np.ndarray, mask: np.ndarray, size: int, share: float) -> np.ndarray:
    """Chances of a policy that shows the best by these scores in order and, for a share of the answers, a random slate.

    Args:
        scores: [N, K]; mask: bool [N, K]. size: S.

    Returns:
        [N, K, S].
    """
    order = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")[:, :size]
    chances = np.repeat((share * mask / mask.sum(1, keepdims=True))[..., None], size, axis=2)
    answer, place = np.ogrid[: len(order), : order.shape[1]]
    chances[answer, order, place] += (1 - share) * np.take_along_axis(mask, order, 1)
    return chances


def _log(network: nn.Module, judging: SlateLog, learning: SlateLog, share: float, ridge: float, seed: int) -> Log:
    """The newer searches as a log of this reranker's order, features scaled by the older ones."""
    mask, size = judging.mask.numpy(), judging.rows.shape[1]
    chances = ordered(all_scores(network, judging).numpy(), mask, size, share)
    known = learning.features[learning.mask]
    spread = known.std(0, correction=0)
    scaled = torch.where(judging.mask[..., None], (judging.features - known.mean(0)) / spread.clamp(min=1e-3), 0)
    features = np.concatenate([scaled.numpy(), mask[..., None]], axis=2).astype(np.float64)
    rewards, propensities = (part.double().numpy() for part in (judging.rewards, judging.propensities))
    return judged(chances, features, judging.rows.numpy(), propensities, rewards, ridge, seed)


def _go_live(experiment: Experiment, identity: str, weights: Path) -> None:
    """A generation like the one that answers, but for its reranker; a running service turns to it."""
    index_of = index_folder(experiment)
    with tempfile.TemporaryDirectory(dir=index_of, prefix=".gradient-") as scratch:
        made = variant(index_of / "generations" / identity, Path(scratch), {"model/reranker.safetensors": weights})
        adopt(index_of, made, {}, experiment.index.keep, index.answering(experiment))
        name = made.name
    say(f"gradient: generation {name} has the fine-tuned reranker; `fuserank evaluate` judges it as any other")
    try:
        generations.activate(experiment, name)
    except ServeError as error:
        say(f"gradient: {error.message} The next one started answers from {name}.")


def _report(
    experiment: Experiment,
    logged: Logged,
    tuned: Tuned,
    estimates: dict[str, dict[str, Estimate]],
    paired: Interval,
    decisions: list[dict[str, Any]],
) -> Page:
    page = Page(f"The reranker of {experiment.name}, fine-tuned on what was served")
    left_out = ", ".join(f"{count} for {reason}" for reason, count in logged.left_out.items()) or "none"
    page.text(
        f"{len(logged.slates.rows)} searches of {logged.slates.rows.shape[1]} positions; left out: {left_out}.", "soft"
    )
    page.heading("What each order would earn, a position shown")
    rows = [
        (
            name,
            method,
            f"{e.value:.4f} [{e.bootstrap.low:.4f}, {e.bootstrap.high:.4f}]",
            f"{e.effective:.0f}",
            "; ".join(e.warnings) or "none",
        )
        for name, found in estimates.items()
        for method, e in found.items()
    ]
    page.table(("reranker", "estimator", "value", "effective answers", "warnings"), rows)
    page.text(
        f"Paired difference, {experiment.policy.estimator}: {paired.mean:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]."
    )
    page.heading("How far it went")
    passes = [(i, entry["kl"]) for i, entry in enumerate(tuned.history, 1)]
    page.plot(
        plots.curves({"KL": passes}, "passes over the log", "nats"),
        f"kept: KL {tuned.kl:.4f} of {experiment.policy.gradient.limit}",
    )
    page.heading("Decisions of the gate")
    page.table(
        ("time", "incumbent", "decision", "why"),
        [
            (d["time"], d["incumbent"], "promoted" if d["promoted"] else "refused", "; ".join(d["reasons"]))
            for d in reversed(decisions)
        ],
    )
    return page


def _print(
    estimates: dict[str, dict[str, Estimate]],
    paired: Interval,
    method: str,
    tuned: Tuned,
    decision: Decision | None,
    folder: Path,
) -> None:
    table = Table("reranker", "estimator", "value", "interval", "effective", "reliable")
    for name, found in estimates.items():
        e = found[method]
        interval = f"{e.bootstrap.low:.4f} … {e.bootstrap.high:.4f}"
        table.add_row(name, method, f"{e.value:.4f}", interval, f"{e.effective:.0f}", "yes" if e.reliable else "no")
    console.print(table)
    say(f"gradient: {paired.mean:+.4f} ({paired.low:+.4f} to {paired.high:+.4f}) a position, KL {tuned.kl:.4f}")
    if decision is not None:
        say(f"gradient: {'promoted' if decision.promoted else 'refused'}: {'; '.join(decision.reasons)}")
    say(f"gradient: {folder / 'report.html'}")
