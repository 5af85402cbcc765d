"""`fuserank generate`: the generated shop, written as an ordinary shop's files to generate/ (rules: docs/SHOP.md)."""

from pathlib import Path

from fuserank.artifacts import run_stage
from fuserank.config import Experiment
from fuserank.errors import ConfigError
from workloads.progress import console, say


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest.

    Raises:
        ConfigError: the config does not ask for a generated shop.
    """
    wanted = experiment.records.generate
    if wanted is None:
        raise ConfigError(
            "this experiment has its own records, there is no shop to generate.",
            "Set records.generate (see workloads/configs/demo.yaml) or go on with `fuserank preprocess`.",
        )

    def work(folder: Path) -> dict:
        from fuserank.records.synthetic.shop import write_shop

        with console.status("drawing pictures, speaking names, sending users through the shop"):
            summary = write_shop(folder, wanted.products, wanted.users, wanted.queries, wanted.seed, wanted.speech)
        figures = {
            "answerable": "queries that one modality alone can answer",
            "ndcg@10": "best nDCG@10 by what is seen",
        }
        for values, what in figures.items():
            shown = "  ".join(f"{name} {value:.2f}" for name, value in summary["honesty"][values].items())
            say(f"generate: {what}: {shown}")
        if wanted.speech and not summary["speech"]:
            say("generate: no speech, because espeakng-loader is not installed (pip install espeakng-loader)")
        return summary

    return run_stage(experiment, "generate", work, say=say)
