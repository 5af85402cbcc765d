"""tune/report.html: what a search tried, what it found, what mattered, and what failed with which reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fuserank.config import Experiment
from fuserank.evaluation import plots
from fuserank.evaluation.page import Cell, Page
from tune.ledger import Trial

METRIC = "validation ndcg@10"


def metric_of(experiment: Experiment) -> str:
    """What the scores of a search's complete trials are."""
    return f"{METRIC} {'as served' if experiment.tune.space.of_index else 'of the fused score'}"


def write_report(
    experiment: Experiment,
    file: Path,
    trials: Sequence[Trial],
    latency: Mapping[int, float],
    winner: Trial,
    line: Sequence[Trial],
    shares: Mapping[str, float],
) -> None:
    """Args: line: the Pareto front, the fastest first; shares: importance by parameter, empty if too few trials ran."""
    page = Page(f"{experiment.name}: search of {len(trials)} trials")
    settings, first, metric = experiment.tune, trials[0], metric_of(experiment)
    failed = [trial for trial in trials if trial.error is not None]
    stopped = sum(trial.stopped is not None for trial in trials)
    page.text(
        f"{settings.algorithm}, objectives {', '.join(settings.objectives)}; "
        f"{len(trials) - len(failed) - stopped} trials complete, {stopped} stopped because they could not win, "
        f"{len(failed)} failed. Judged by {metric}; the test split is not touched. Trial 0 is the config as it stood.",
        "soft",
    )
    if settings.space.of_index:
        page.text(
            "As served: words and reranker included, what they learn from validation queries asked of the others. "
            "Trials are stopped early by the fused score, and a stopped one shows that.",
            "soft",
        )
    time = f", {latency[winner.number]:.2f} ms a query" if winner.number in latency else ""
    before = f" (trial 0: {first.score:.4f})" if first.score is not None else ""
    page.text(
        f"Chosen: trial {winner.number}, {winner.score or 0:.4f}{time}{before}; best.yaml trains it as it stands. The "
        "highest of many validation scores flatters: only a test split tells by how much it is better."
    )
    kinds = [str(trial.params.get("fusion.kind", experiment.fusion.kind)) for trial in trials]
    scores = [trial.score for trial in trials]
    ended = [trial.stopped is not None for trial in trials]
    page.plot(plots.trials(scores, kinds, ended, METRIC), "Trials in order, and the best complete one so far")
    timed = [trial for trial in trials if trial.number in latency and trial.complete]
    if timed:
        page.heading("Quality against latency")
        places = {trial.number: place for place, trial in enumerate(timed)}
        points = [(latency[trial.number], trial.score or 0.0) for trial in timed]
        of = [kinds[trials.index(trial)] for trial in timed]
        front = [places[trial.number] for trial in line]
        page.plot(
            plots.front(points, of, front, places[winner.number]), "Complete trials; the line is the Pareto front"
        )
        same = " Encoders are the same in all of these trials and not counted." if settings.training == "cached" else ""
        page.text(
            "Milliseconds a query on one thread, measured alone after the last trial: gate, fusion, vector and word "
            f"search, candidates' features, reranker.{same}",
            "soft",
        )
    page.heading("What mattered")
    if shares:
        page.plot(plots.shares(shares, "PED-ANOVA (Optuna)"), "Share of what tells the best quarter from all trials")
    else:
        page.text("Too few trials, or all alike: nothing can be said.", "soft")
    page.heading("Trials")
    names = list(first.params)
    page.table(
        [
            "trial",
            METRIC,
            "ms",
            "seconds",
            "ended",
            *(name.removeprefix("loss.") if ".weights." in name else name.rpartition(".")[2] for name in names),
        ],
        [_row(trial, latency.get(trial.number), names) for trial in trials],
        [place for place, trial in enumerate(trials) if trial.number == winner.number],
    )
    if failed:
        page.heading("Failed")
        page.table(["trial", "reason"], [[Cell(t.number, str(t.number)), t.error or ""] for t in failed])
    file.write_text(page.html(), encoding="utf-8")


def _row(trial: Trial, latency: float | None, names: list[str]) -> list[Cell | str]:
    if trial.error is not None:
        ended = "failed"
    else:
        ended = "complete" if trial.stopped is None else f"stopped after {trial.stopped}"
    row: list[Cell | str] = [
        Cell(trial.number, str(trial.number)),
        Cell(trial.score, "–" if trial.score is None else f"{trial.score:.4f}"),
        Cell(latency, "–" if latency is None else f"{latency:.2f}"),
        Cell(trial.seconds, "–" if trial.seconds is None else f"{trial.seconds:.1f}"),
        ended,
    ]
    for name in names:
        value = trial.params[name]
        row.append(Cell(value, f"{value:g}") if isinstance(value, float | int) else str(value))
    return row
