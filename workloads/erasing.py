"""Users who were erased, as stages must leave them out. Reads the store."""

from pathlib import Path

from fuserank.config import Experiment
from fuserank.feedback.erasure import scrub
from fuserank.store.database import Database, run_database


def without_erased(experiment: Experiment, folder: Path) -> None:
    """Take users out of what a stage has just written who were erased before or while it ran.

    Raises:
        StoreError: the database cannot be read.
    """
    file, url = run_database(experiment.run)
    if experiment.store.url is None and not file.is_file():
        return  # nothing was served yet
    with Database(experiment.store.url or url) as database:
        erased = database.erased_users()
    if erased:
        scrub(folder, erased)
