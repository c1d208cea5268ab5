"""What the tests of more than one sub-command find."""

import pytest

from cyconv import Adam, datasets, presets


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the path of a network that has seen the small digits twice."""
    network = presets.exercise()
    network.fit(*datasets.load_digits()[0], epochs=2, optimizer=Adam(2e-3))
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    network.save(path)
    return str(path)
