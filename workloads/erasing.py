"""Users who were erased, as stages must leave them out. Reads the store."""

from pathlib import Path

from fuserank.config import Experiment
from fuserank.feedback.erasure import scrub
from fuserank.store.database import kept_database


def without_erased(experiment: Experiment, folder: Path) -> None:
    """Take users out of what a stage has just written who were erased before or while it ran.

    Raises:
        StoreError: the database cannot be read.
    """
    if (database := kept_database(experiment)) is None:
        return
    with database:
        erased = database.erased_users()
    if erased:
        scrub(folder, erased)
