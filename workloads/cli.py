"""The command line: `fuserank STAGE -c FILE [--set key=value …]`, one command a stage, and `fuserank demo`."""

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import ConfigError, FuserankError
from workloads.progress import console

app = typer.Typer(
    help="Multimodal search and recommendation by fusing large models, on Ray.",
    no_args_is_help=True,
    add_completion=False,
)

generations = typer.Typer(help="Generations: list, activate, rollback, compare.", no_args_is_help=True)
app.add_typer(generations, name="generations")
keys = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")

File = Annotated[Path, typer.Option("--config", "-c", help="the experiment, e.g. workloads/configs/demo.yaml")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="override one key, e.g. --set fusion.kind=concat")]

STAGES = {
    "generate": "Write the generated shop's files (where records.generate is set).",
    "preprocess": "Clean the records and turn them into model inputs (Ray Data).",
    "pretrain": "Self-supervised start of encoders and recommender (Ray Train).",
    "tune": "Search fusion kind and loss weights on cached features (Ray Tune); writes best.yaml.",
    "train": "Train encoders, fusion and recommender together (Ray Train).",
    "index": "Embed the catalogue and build one generation: vectors, words, reranker.",
    "evaluate": "Rank held-out queries over the full catalogue; writes report.html.",
    "feedback": "Join events to impressions.",
    "policy": "Estimate what other policies would have earned, and ask the gate.",
}


def resolve(path: Path, sets: list[str] | None) -> config.Experiment:
    """Load the experiment and make its storage root absolute.

    Raises:
        ConfigError: see config.load; or a relative root inside a submitted job.
    """
    experiment = config.load(path, sets)
    root = experiment.storage.root
    if "://" in root:
        raise ConfigError(
            f"storage.root {root!r} is a URL; stages write through a file system.",
            "Give an absolute path; on several nodes one that all of them mount.",
        )
    if not os.path.isabs(root):
        if "RAY_JOB_ID" in os.environ or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
            raise ConfigError(
                f"storage.root {root!r} is relative; in a submitted job it would land in Ray's temporary folder.",
                "Add --set storage.root=/an/absolute/path that every node can reach.",
            )
        experiment = config.update(experiment, {"storage.root": os.path.abspath(root)})
    return experiment


def guarded(work: Callable[[], object]) -> None:
    """Run and turn deliberate errors into a message and an exit code (2 for the config, 1 for the rest)."""
    try:
        work()
    except FuserankError as error:
        console.print(f"[bold red]error:[/] {error.message}", highlight=False)
        if error.hint:
            console.print(f"[bold]what to do:[/] {error.hint}", highlight=False)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on.")
        raise typer.Exit(130) from None


def run_one(stage: str, file: Path, sets: list[str] | None, then: Callable[[Experiment], object] | None = None) -> None:
    """Connect to Ray and run one stage, and `then` what is asked of its result."""

    def work() -> None:
        experiment = resolve(file, sets)
        from workloads.cluster import connect

        with connect():
            import_module(f"workloads.{stage}").run(experiment)
        if then is not None:
            then(experiment)

    guarded(work)


def run_action(module: str, action: str, file: Path, sets: list[str] | None, *arguments: object) -> None:
    """Call what a command with subcommands is made of; no Ray is started."""

    def work() -> None:
        getattr(import_module(f"workloads.{module}"), action)(resolve(file, sets), *arguments)

    guarded(work)


def _add(stage: str, text: str) -> None:
    @app.command(stage, help=text)
    def command(config: File, set: Sets = None) -> None:
        run_one(stage, config, set)


for _stage, _text in STAGES.items():
    if _stage not in ("evaluate", "policy"):  # these have options of their own
        _add(_stage, _text)


@app.command(help=STAGES["evaluate"])
def evaluate(
    config: File,
    set: Sets = None,
    against: Annotated[
        str | None, typer.Option(help="another evaluated run, by name or folder: compare both on the same queries")
    ] = None,
) -> None:
    def compare(experiment: Experiment) -> None:
        from workloads import against as workload

        if against is not None:
            workload.run(experiment, against)

    run_one("evaluate", config, set, compare)


@app.command(help=STAGES["policy"])
def policy(
    config: File,
    set: Sets = None,
    promote: Annotated[bool, typer.Option("--promote", help="let the policy go live if the gate says so")] = False,
    reranker: Annotated[
        bool, typer.Option("--reranker", help="instead, fine-tune the reranker on the searches a policy answered")
    ] = False,
    freeze: Annotated[
        bool | None, typer.Option("--freeze/--thaw", help="end, or allow, exploration of the running service at once")
    ] = None,
    end_canary: Annotated[
        bool, typer.Option("--end-canary", help="roll back the policy that answers a share of the visitors")
    ] = False,
    scenario: Annotated[
        str | None, typer.Option(help="whose exploration or canary: recommend or search; both if left out")
    ] = None,
) -> None:
    def work() -> None:
        from workloads import canaries
        from workloads import policy as workload

        if reranker:
            from workloads import gradient

            gradient.run(resolve(config, set), promote)
            return
        if freeze is not None:
            workload.switch(resolve(config, set), scenario, frozen=freeze)
        if end_canary:
            canaries.end(resolve(config, set), scenario)
        if freeze is None and not end_canary:
            workload.run(resolve(config, set), promote)

    guarded(work)


@app.command()
def iterate(
    config: File,
    set: Sets = None,
    every: Annotated[
        float | None, typer.Option(min=0.01, help="hours from one iteration to the next; once if left out")
    ] = None,
) -> None:
    """Retrain on what was served; the new generation goes live if it is proven better."""

    def work() -> None:
        from workloads import iterate as workload
        from workloads.cluster import connect

        experiment = resolve(config, set)
        while True:
            with connect():
                workload.run(experiment)
            if every is None:
                return
            time.sleep(every * 3600)

    guarded(work)


@app.command()
def serve(config: File, set: Sets = None) -> None:
    """Serve the current generation over HTTP until Ctrl-C (Ray Serve)."""

    def work() -> None:
        from serve.launcher import environment
        from workloads import serve as workload
        from workloads.cluster import connect

        experiment = resolve(config, set)
        with connect(environment(experiment.serve)):
            workload.run(experiment)

    guarded(work)


@keys.command("create")
def create_key(
    config: File,
    name: Annotated[str, typer.Option(help="whose key it is; rotation keeps the name")],
    scope: Annotated[list[str], typer.Option(help="search, write or admin; repeat for several")],
    days: Annotated[float | None, typer.Option(help="how long it is valid; until revoked if left out")] = None,
    rate: Annotated[float | None, typer.Option(help="requests a second; serve.guard's if left out")] = None,
    set: Sets = None,
) -> None:
    """Make a key. It is shown this once; only its hash is kept."""
    run_action("keys", "create", config, set, name, scope, days, rate)


@keys.command("list")
def list_keys(config: File, set: Sets = None) -> None:
    """Show the keys there are, without their secrets."""
    run_action("keys", "show", config, set)


@keys.command("rotate")
def rotate_key(
    key: Annotated[str, typer.Argument(help="the key's id, the 12 digits after frk_")],
    config: File,
    grace_hours: Annotated[float, typer.Option(help="how long the old one stays valid beside the new one")] = 24.0,
    set: Sets = None,
) -> None:
    """Make a new key in the place of another."""
    run_action("keys", "rotate", config, set, key, grace_hours)


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="the key's id")], config: File, set: Sets = None) -> None:
    """End a key at once."""
    run_action("keys", "revoke", config, set, key)


@generations.command("list")
def list_generations(config: File, set: Sets = None) -> None:
    """Show the generations on disk and which one answers."""
    run_action("generations", "show", config, set)


@generations.command("activate")
def activate_generation(
    generation: Annotated[str, typer.Argument(help="its id")], config: File, set: Sets = None
) -> None:
    """Have the running service answer from a generation; no request is lost, and none mixes two."""
    run_action("generations", "activate", config, set, generation)


@generations.command("rollback")
def rollback_generation(config: File, set: Sets = None) -> None:
    """Activate the generation that answered before."""
    run_action("generations", "rollback", config, set)


@generations.command("compare")
def compare_generations(
    generation: Annotated[str, typer.Argument(help="the new one's id")],
    config: File,
    to: Annotated[str | None, typer.Option(help="the other one's id; the active one if left out")] = None,
    queries: Annotated[int, typer.Option(min=1, help="how many of the latest logged queries to ask")] = 200,
    set: Sets = None,
) -> None:
    """Ask two generations the logged queries: overlap, what moved most, time."""
    run_action("generations", "compare", config, set, generation, to, queries)


@app.command()
def demo(
    config: File = Path(__file__).parent / "configs" / "demo.yaml",
    set: Sets = None,
    exit: Annotated[bool, typer.Option("--exit", help="end after the answers instead of serving until Ctrl-C")] = False,
) -> None:
    """Every stage on the generated shop, then a served answer to each kind of question."""

    def work() -> None:
        from workloads import demo as workload

        workload.run(resolve(config, set), stay=not exit)

    guarded(work)


def main() -> None:
    """Entry point of the console script and of `python -m workloads`."""
    app()
