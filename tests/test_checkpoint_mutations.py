"""Checkpoints damaged by the hundred thousand: CheckpointError, or the bits that are in them."""

import copy
import json
from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest

from cyconv import CheckpointError, Network
from cyconv.layers import Conv2D, Flatten, LeakyReLU, Linear, Softmax
from cyconv.losses import CrossEntropy
from cyconv.optimizers import SGD, AdamW
from cyconv.runs import Training, load_training, save_training
from cyconv.training import KeepBest, fit
from tests.attacks import Mutants, attack, mutate
from tests.hostile.checkpoints import container, seal

VALUES = (
    *(None, True, -1, 0, 1, 2, 1.5, 2**31, 2**63, 2**64, 10**30, float("nan"), float("inf")),
    *(
        "",
        "1",
        "Linear",
        "Im2Col",
        "AdamW",
        "SGD",
        "float64",
        "F64",
        "same",
        [],
        {},
        [[1, 0], [0, 1]],
        [0] * 40,
    ),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return the files of a network and of two training runs."""
    folder = tmp_path_factory.mktemp("good")
    layers = [Conv2D(2, 2, padding="same"), LeakyReLU(), Flatten(), Linear(2), Softmax()]
    network, best = Network(layers, (2, 2, 1)), KeepBest(3)
    averaged = Training(network, AdamW(max_norm=1), best=best, settings={"epochs": 5})
    averaged.loss = CrossEntropy(0.1, [1, 2])
    moving = Training(Network([Linear(2), Softmax()], (3,)), SGD(0.1, 0.9))
    x, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), [0, 1, 1]
    fit(
        *(network, x, labels, 2, 2, averaged.optimizer, (x, labels)),
        callbacks=[best],
        progress=averaged.progress,
        ema=0.5,
    )
    fit(moving.network, x[:, 0, :1].repeat(3, 1), labels, 2, 2, moving.optimizer)
    network.save(folder / "network")
    save_training(averaged, folder / "averaged")
    save_training(moving, folder / "moving")
    return [(folder / name).read_bytes() for name in ("network", "averaged", "moving")]


def parts(content):
    """Return the text of a checkpoint's header, and its data."""
    length = 8 + int.from_bytes(content[:8], "little")
    return content[8:length], content[length:]


def check(path, content):
    """Tell whether a checkpoint is read; if so its digest is true and all its bits are there."""
    read = []
    for load in (Network.load, load_training):
        try:
            read.append(load(path))
        except CheckpointError as error:
            text = str(error)
            assert text.startswith(f"{path}: ") and text.isprintable(), error
    if not read:
        return False
    (result,) = read
    assert seal(content) == content, "the digest is another"
    network = result if isinstance(result, Network) else result.network
    found = network.parameters() | network.state()
    if isinstance(result, Training):
        found |= {f"optimizer.{name}": array for name, array in result.optimizer.state().items()}
        average = result.progress.average
        kept = {"best": result.best.arrays}
        kept |= {} if average is None else {"average": average.mean, "raw": average.raw}
        for prefix, arrays in kept.items():
            names = (f"{prefix}.{name}" for name in ("parameters", "state"))
            found |= dict(zip(names, arrays, strict=False))
    header, data = parts(content)
    for name, tensor in json.loads(header).items():
        if name != "__metadata__":
            assert found[name].tobytes() == data[slice(*tensor["data_offsets"])], name
    return True


def damaged(rng, content):
    """Return a damaged copy; of four, three have a true digest."""
    kind = rng.integers(4)
    if kind == 0:
        return mutate(rng, content)
    if kind == 1:
        return seal(mutate(rng, content))
    header, data = parts(content)
    if kind == 2:
        return container(mutate(rng, header), data)
    header = json.loads(header)
    inner = json.loads(header["__metadata__"]["cyconv"])
    for _ in range(rng.integers(1, 4)):
        alter(rng, inner if rng.integers(3) and inner else header)
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["cyconv"] = json.dumps(inner)
    return container(json.dumps(header), data)


def alter(rng, node):
    """Replace, remove, repeat or exchange something in a tree of mappings and lists."""
    child = node
    while child and isinstance(child, (dict, list)):
        node, keys = child, list(child) if isinstance(child, dict) else range(len(child))
        key, other = (keys[rng.integers(len(keys))] for _ in range(2))
        child = node[key] if rng.integers(4) else None
    kind = rng.integers(4)
    if kind == 0:
        node[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind == 1:
        del node[key]
    elif kind == 2:
        node[key], node[other] = node[other], node[key]
    elif isinstance(node, list):
        node.insert(other, node[key])
    else:
        node[f"{other}{VALUES[rng.integers(len(VALUES))]}"] = node[key]


@dataclass
class Flips:
    """Names and contents of all copies with one byte, of every `step`, changed by a mask."""

    originals: list[bytes]
    masks: range | tuple[int, ...]
    step: int

    def __iter__(self):
        for original in self.originals:
            data = bytearray(original)
            for place in range(0, len(data), self.step):
                for mask in self.masks:
                    data[place] ^= mask
                    yield f"byte {place} ^ {mask}", bytes(data)
                    data[place] ^= mask


def test_a_damaged_checkpoint_is_refused_or_is_what_it_says(good, count, figure):
    seed = count(0, 0, date.today().toordinal())
    outcome = attack(check, good, Mutants(good, damaged, count(2_000, 100_000, 1_000_000), seed))
    assert outcome.refused > outcome.read > 50
    figure("checkpoints damaged", outcome)


def test_every_flipped_byte_of_a_checkpoint_is_found(good, count, figure):
    masks = count((0x20,), (0x01, 0x20, 0x80), range(1, 256))
    outcome = attack(check, good, Flips(good, masks, count(3, 1, 1)))
    assert outcome.read == 0
    figure("bytes of checkpoints flipped", outcome)
