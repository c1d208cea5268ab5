"""What the tests of checkpoints share: a tiny network, and the check that a file is refused."""

import pytest

from cyconv import CheckpointError, Network
from cyconv.layers import Flatten, Linear, Softmax


def tiny(seed=0):
    """Return a network of six parameters."""
    return Network([Flatten(), Linear(2), Softmax()], (2, 1, 1), seed)


def refused(path, data, load=Network.load):
    """Check that a file with this content is refused by its name; return what is said of it."""
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=path.name) as caught:
        load(path)
    return str(caught.value)
