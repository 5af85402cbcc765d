"""One error tree: every deliberate error belongs to it, prints its remedy and survives the way between processes."""

import inspect
import pickle

import pytest

from fuserank import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_message_and_remedy(kind: type[errors.FuserankError]) -> None:
    assert issubclass(kind, errors.FuserankError)
    error = kind("the file is gone.", "Bring it back.")
    assert str(error) == "the file is gone. Bring it back."
    assert str(kind("the file is gone.")) == "the file is gone."
    copy = pickle.loads(pickle.dumps(error))  # as Ray carries it
    assert type(copy) is kind
    assert (copy.message, copy.hint) == (error.message, error.hint)


def test_the_tree_is_drawn() -> None:
    for kind in ALL:
        assert kind.__name__ in (errors.__doc__ or ""), "draw it at the top of errors.py"
    assert issubclass(errors.EmptyCatalogueError, errors.InputError)
    assert issubclass(errors.MediaError, errors.InputError)
    assert issubclass(errors.MissingStageError, errors.StageError)
