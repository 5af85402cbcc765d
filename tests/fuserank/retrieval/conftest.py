"""A generation on disk, opened once for all retrieval tests that only read it."""

from pathlib import Path

import pytest

from fuserank.retrieval.generation import Generation, current_generation, write_generation
from tests.fuserank.retrieval.generations import parts


@pytest.fixture(scope="session")
def generation(tmp_path_factory) -> Generation:
    folder: Path = tmp_path_factory.mktemp("generation")
    write_generation(folder / "index", **parts(folder))
    return current_generation(folder / "index")
