"""What every test of checkpoints finds: the file of a tiny network."""

import pytest

from tests.checkpoint.samples import tiny


@pytest.fixture
def file(tmp_path):
    """Return the path of a small checkpoint."""
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    return path
