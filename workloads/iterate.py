"""`fuserank iterate -c FILE [--every HOURS]`: learn from what was served, and go live if that is better.

Reads the store and the run; writes iterate/: served/‹digest›/ (what users did, as records), candidate/ (a run of all
stages on the shop's files and those records), incumbent/ (how the generation that answers did on the same questions),
report.html, decisions.jsonl (kept) and state.json. A candidate that the gate lets through becomes a generation of the
run itself; a running service answers from it. Broken off, the same command goes on where it was.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fuserank import config
from fuserank.artifacts import stage_folder, write_json
from fuserank.config import Experiment
from fuserank.errors import MissingStageError, ServeError
from fuserank.evaluation import sections
from fuserank.evaluation.against import RECOMMENDATION, compare_runs, open_evaluated
from fuserank.feedback.gate import Decision, decide_paired, record
from fuserank.feedback.served import served_records
from fuserank.retrieval.generation import adopt, current_folder, open_generation
from fuserank.store.database import store_url
from serve.app import index_folder
from workloads import evaluate, feedback, generate, generations, index, preprocess, pretrain, train
from workloads.progress import say
from workloads.served import write_served

FOLDER, CANDIDATE, INCUMBENT, SERVED = "iterate", "candidate", "incumbent", "served"
DECISIONS, STATE, REPORT = "decisions.jsonl", "state.json", "report.html"
STAGES = (preprocess, pretrain, train, index, evaluate)
FIGURES = {"all text": "served", RECOMMENDATION: "recommended"}
"""What is compared → the system that answers there."""


def run(experiment: Experiment) -> dict[str, Any] | None:
    """One iteration; what was decided and on what evidence, None where there is too little new.

    Raises:
        MissingStageError: nothing has been indexed, or the generation that answers was not evaluated.
        EvaluationError: the shop's catalogue or its held-out queries changed, so that nothing can be compared.
        Else what the stages raise.
    """
    folder = experiment.run / FOLDER
    identity = generations.incumbent(experiment)
    theirs = _evaluated(experiment, identity)
    feedback.run(experiment)
    records, count = _records(experiment)
    learnt = json.loads((folder / STATE).read_text(encoding="utf-8")) if (folder / STATE).is_file() else {"events": 0}
    if count - learnt["events"] < experiment.iterate.events:
        say(
            f"iterate: {count - learnt['events']} events since the last iteration, {experiment.iterate.events} wanted "
            "(iterate.events)"
        )
        return None
    candidate = _candidate(experiment, records)
    if candidate.records.generate is not None:
        generate.run(candidate)
    for stage in STAGES:
        stage.run(candidate)
    mine = stage_folder(candidate, "evaluate")
    _judge_incumbent(experiment, candidate, identity, theirs, folder / INCUMBENT)
    found = compare_runs(
        open_evaluated(mine), open_evaluated(folder / INCUMBENT), experiment.evaluate.bootstrap, experiment.seed
    )
    (folder / REPORT).write_text(sections.comparison(found), encoding="utf-8")
    decision = _decide(experiment, found)
    made = current_folder(index_folder(candidate)).name
    record(
        folder / DECISIONS,
        decision,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        candidate=made,
        incumbent=identity,
        events=count,
    )
    say(f"iterate: {made} {'goes live' if decision.promoted else 'does not go live'}: {'; '.join(decision.reasons)}")
    say(f"iterate: {folder / REPORT}")
    if decision.promoted:
        _go_live(experiment, candidate, made)
        for name in ("metrics.json", "per_query.parquet"):
            if (mine / name).is_file():
                shutil.copy2(mine / name, folder / INCUMBENT / name)
    write_json(folder / STATE, {"events": count, "generation": made if decision.promoted else identity})
    return {"promoted": decision.promoted, "reasons": list(decision.reasons), "evidence": dict(decision.evidence)}


def _evaluated(experiment: Experiment, identity: str) -> Path:
    """Where the incumbent's evaluation is."""
    for folder in (experiment.run / FOLDER / INCUMBENT, experiment.run / "evaluate"):
        file = folder / "metrics.json"
        if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["run"]["generation"] == identity:
            return folder
    raise MissingStageError(
        f"generation {identity}, which answers, was not evaluated.",
        "Run `fuserank evaluate` with the same config first.",
    )


def _records(experiment: Experiment) -> tuple[Path, int]:
    """A folder of what was served, named by what is in it, and how many events that is."""
    joined = stage_folder(experiment, "feedback")
    events = pq.read_table(joined / "events.parquet")
    served = served_records(pq.read_table(joined / "impressions.parquet"), events)
    digest = hashlib.sha256()
    for table in (served.events, served.queries, served.judgments):
        digest.update(json.dumps(table.to_pylist(), default=str).encode())
    folder = experiment.run / FOLDER / SERVED / digest.hexdigest()[:16]
    if not folder.is_dir():
        write_served(served, folder)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    return folder, events.num_rows


def _candidate(experiment: Experiment, records: Path) -> Experiment:
    """The same run with what was served, in a folder of its own; erased users stay erased there."""
    sets = {
        "name": CANDIDATE,
        "storage.root": str(experiment.run / FOLDER),
        "records.served": str(records),
        "store.url": store_url(experiment),
    }
    return config.update(experiment, sets)


def _judge_incumbent(
    experiment: Experiment, candidate: Experiment, identity: str, evaluated: Path, folder: Path
) -> None:
    """The incumbent's own figures on the held-out queries, and its recommendations to the users as they are asked now:
    it was trained before these events, and knows their pasts up to each question as it would when serving."""
    from fuserank.models.checkpoint import load_model
    from workloads.recommendation import evaluate_recommendation

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "per_query.parquet"):
        if (evaluated / name).is_file() and evaluated != folder:
            shutil.copy2(evaluated / name, folder / name)
    generation = open_generation(index_folder(experiment) / "generations" / identity)
    model = load_model(generation.model_folder)
    _, users = evaluate_recommendation(candidate, stage_folder(candidate, "preprocess"), generation, model)
    if users is not None:
        pq.write_table(users, folder / "per_user.parquet")


def _decide(experiment: Experiment, found: dict[str, Any]) -> Decision:
    settings, metric = experiment.iterate, f"ndcg@{experiment.evaluate.k}"
    figures = {
        f"{variant}, {system}": found["variants"][variant][system][metric]
        for variant, system in FIGURES.items()
        if system in found["variants"].get(variant, {})
    }
    return decide_paired(figures, settings.margin, settings.loss, settings.fewest)


def _go_live(experiment: Experiment, candidate: Experiment, made: str) -> None:
    """The candidate's generation becomes the run's, with the pictures it shows; a running service turns to it."""
    media = stage_folder(experiment, "preprocess") / "media"
    for file in (stage_folder(candidate, "preprocess") / "media").glob("*/*"):
        own = media / file.parent.name / file.name
        if not own.exists():  # named by their content
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, own)
    made_at = index_folder(candidate) / "generations" / made
    spare = index.answering(experiment)
    adopt(index_folder(experiment), made_at, {"media": str(media)}, experiment.index.keep, spare)
    try:
        generations.activate(experiment, made)
    except ServeError as error:
        say(f"iterate: {error.message} The next one started answers from {made}.")
