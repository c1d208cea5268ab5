"""Files made to do harm: each is refused for what is wrong with it, soon and in little memory."""

import re
import warnings

import pytest

from cyconv import CheckpointError, DataFormatError, Network
from cyconv.datasets import read_idx
from cyconv.images import read_digit
from cyconv.runs import load_training
from tests.attacks import attack
from tests.hostile import checkpoints, idx, pictures


def refuses(read, error, path, text):
    """Check that a file is refused with its path and a text."""
    try:
        with warnings.catch_warnings():  # Pillow warns of large pictures
            warnings.simplefilter("ignore")
            read(path)
    except error as refusal:
        said = str(refusal)
    else:
        raise AssertionError("it is read")
    assert said.startswith(f"{path}: ") and re.search(text, said), said
    assert said.isprintable() and len(said) < 500, said
    return False


def reason(files, content):
    """Return the text that goes with a content."""
    return next(text for other, text in files.values() if other == content)


def refuses_idx(path, content):
    return refuses(read_idx, DataFormatError, path, reason(idx.FILES, content))


def refuses_picture(path, content):
    return refuses(read_digit, DataFormatError, path, reason(pictures.FILES, content))


def refuses_checkpoint(path, content):
    refuses(load_training, CheckpointError, path, "")
    return refuses(Network.load, CheckpointError, path, reason(checkpoints.FILES, content))


@pytest.mark.parametrize(
    ("kind", "check", "files", "limits"),
    [
        ("IDX files", refuses_idx, idx.FILES, {"seconds": 2, "mebibytes": 64}),
        ("pictures", refuses_picture, pictures.FILES, {"seconds": 10, "mebibytes": 1024}),
        ("checkpoints", refuses_checkpoint, checkpoints.FILES, {"seconds": 2, "mebibytes": 64}),
    ],
)
def test_every_hostile_file_is_refused(kind, check, files, limits, figure):
    if kind == "pictures":
        pytest.importorskip("PIL", reason="needs the extra image")
    contents = [(name, content) for name, (content, _) in files.items()]
    outcome = attack(check, [], contents, **limits)
    assert outcome.refused == len(files)
    figure(f"hostile {kind}", outcome)
