"""Training runs on disk: a network's file with all that a run needs to go on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cyconv import container
from cyconv.averages import Arenas, Average, arenas
from cyconv.checkpoint import TRAINING, architecture, layer_types, made, read, restored
from cyconv.files import FilePath
from cyconv.geometry import integer
from cyconv.losses import CrossEntropy
from cyconv.network import Network
from cyconv.optimizers import OPTIMIZERS
from cyconv.schedules import SCHEDULES, Schedule
from cyconv.training import History, KeepBest, Progress

ARENAS = ("parameters", "state")  # names of a network's flat arrays, in their order


@dataclass
class Training:
    """A training run: everything needed to resume it, except the data.

    Attributes
    ----------
    network : Network
    optimizer : BaseOptimizer
        Or one of your own that has `config`, `state` and `load_state` as these have.
    progress : Progress
        With the moving average of the weights, if the run has one.
    best : KeepBest
    settings : dict
        The caller's own settings, JSON-serialisable.
    schedule : str or callable
        A schedule that has a name.
    loss : CrossEntropy, optional
    """

    network: Network
    optimizer: Any
    progress: Progress = field(default_factory=Progress)
    best: KeepBest = field(default_factory=KeepBest)
    settings: dict[str, Any] = field(default_factory=dict)
    schedule: str | Schedule = "constant"
    loss: CrossEntropy | None = None

    @property
    def ema(self) -> float | None:
        """Decay of the moving average of the weights, if the run has one."""
        return None if self.progress.average is None else self.progress.average.decay


def save_training(training: Training, path: FilePath, optimizers: Sequence[type] = ()) -> None:
    """Write a training run to `path`, from where `load_training` brings it back to the same bits.

    The file replaces an older one only when it is complete.

    Parameters
    ----------
    training : Training
    path : str, bytes or path-like
    optimizers : sequence of type
        Classes of your own that the file may name beside those of `cyconv.optimizers`; the same
        must be given to `load_training`. They have ``config``, from which the class makes another
        one, ``state() -> dict of str to ndarray`` and ``load_state(state, parameters)``.

    Raises
    ------
    TypeError
        If the file cannot name a layer, the optimizer or the schedule.
    ValueError
        If two of the optimizers have one name.
    OSError
        If the file cannot be written.
    """
    progress, best, average = training.progress, training.best, training.progress.average
    header = {
        "format": TRAINING,
        **architecture(training.network),
        "optimizer": _describe_optimizer(training.optimizer, optimizers),
        "schedule": _schedule_name(training.schedule),
        "loss": training.loss and {"type": type(training.loss).__name__, **training.loss.config},
        "progress": {
            "epoch": progress.epoch,
            "batch": progress.batch,
            "loss": progress.loss,
            "seconds": progress.seconds,
            "history": asdict(progress.history),
            "average": average
            and {
                "decay": average.decay,
                "kept": bool(average.mean),
                "worn": bool(average.raw),
            },
        },
        "best": {
            "patience": best.patience,
            "epoch": best.epoch,
            "accuracy": best.accuracy,
            "steps": best.steps,
        },
        "settings": training.settings,
    }
    tensors = training.network.parameters() | training.network.state()
    tensors |= {f"optimizer.{name}": array for name, array in training.optimizer.state().items()}
    kept = {"best": best.arrays}
    if average is not None:
        kept |= {"average": average.mean, "raw": average.raw}
    for prefix, arrays in kept.items():
        tensors |= {f"{prefix}.{name}": array for name, array in zip(ARENAS, arrays, strict=False)}
    container.write(path, tensors, header)


def load_training(
    path: FilePath,
    optimizers: Sequence[type] = (),
    layers: Sequence[type] = (),
) -> Training:
    """Return the training run in the file `path`.

    Parameters
    ----------
    path : str, bytes or path-like
    optimizers : sequence of type
        Classes of your own that the file may name, as in `save_training`.
    layers : sequence of type
        Likewise, of layers.

    Raises
    ------
    cyconv.CheckpointError
        If the file is damaged or is not one of ours. No code in it is ever run, and none is
        imported by a name in it.
    ValueError
        If two of the optimizers have one name.
    OSError
        If the file cannot be read.
    """
    path, named = os.fsdecode(path), _registry(optimizers, "load_training")
    kinds = layer_types(layers, "load_training")
    tensors, header = read(path, TRAINING)
    with container.judged(path):
        state, best, mean, raw = (
            _taken(tensors, prefix) for prefix in ("optimizer.", "best.", "average.", "raw.")
        )
        network = restored(header, tensors, Network, kinds)
        optimizer = made(header["optimizer"], named, "optimizer")
        optimizer.load_state(state, network._parameters)
        schedule = header["schedule"]
        if schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {schedule!r:.60}")
        loss = header["loss"]
        if loss is not None:
            loss = made(loss, {"CrossEntropy": CrossEntropy}, "loss")
            if loss.weight is not None and len(loss.weight) != network.classes:
                raise ValueError(f"its loss does not have {network.classes} class weights")
        progress = _progress(**header["progress"])
        progress.average = _average(header["progress"]["average"], mean, raw, network)
        if not isinstance(header["settings"], dict):
            raise ValueError("its settings are not a mapping")
        return Training(
            network,
            optimizer,
            progress,
            _best(header["best"], best, network),
            header["settings"],
            schedule,
            loss,
        )


def _describe_optimizer(optimizer, optimizers) -> dict[str, Any]:
    kind, who = type(optimizer), "save_training"
    if _registry(optimizers, who).get(kind.__name__) is not kind:
        raise TypeError(
            f"{who}: {kind.__name__} is not an optimizer of cyconv.optimizers, so a file cannot "
            "name it; give its class as optimizers=[...] to save_training and to load_training"
        )
    for name in ("config", "state", "load_state"):
        if not hasattr(optimizer, name):
            raise TypeError(f"{who}: {kind.__name__} has no {name}, so it cannot be saved")
    return {"type": kind.__name__, **optimizer.config}


def _registry(optimizers, who: str) -> dict[str, type]:
    """Return the classes of optimizers that a file may name."""
    classes = dict[str, type](OPTIMIZERS)
    for each in optimizers:
        if not isinstance(each, type):
            raise TypeError(f"{who}: optimizers must be classes, got {each!r:.60}")
        if classes.setdefault(each.__name__, each) is not each:
            raise ValueError(f"{who}: optimizers has a second class of the name {each.__name__}")
    return classes


def _schedule_name(schedule: str | Schedule) -> str:
    for name, function in SCHEDULES.items():
        if schedule == name or schedule is function:
            return name
    raise TypeError(
        f"save_training: schedule must be one of {', '.join(SCHEDULES)}, which a file can name, "
        f"got {schedule!r:.60}; leave it out, and give it to fit again"
    )


def _taken(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Take those whose names begin with `prefix` out of the tensors; return them without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _arenas(what: str, arrays: dict[str, np.ndarray], network: Network, there: bool) -> Arenas:
    """Return arrays like the network's own, or none if they must not be there."""
    expected = dict(zip(ARENAS, arenas(network), strict=False)) if there else {}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if found != {name: (array.shape, array.dtype) for name, array in expected.items()}:
        raise ValueError(f"its {what} weights are {found}, not arrays like {list(expected)}")
    return tuple(arrays[name] for name in expected)


def _best(description, arrays: dict[str, np.ndarray], network: Network) -> KeepBest:
    """Return the best epoch, its numbers and arrays checked."""
    best = KeepBest(description["patience"])
    best.epoch = integer(description["epoch"], "KeepBest", "epoch", 0)
    best.accuracy = float(description["accuracy"])
    best.steps = integer(description["steps"], "KeepBest", "steps", 0)
    if best.steps > network.steps:
        raise ValueError(f"its best epoch was after {best.steps} steps of {network.steps}")
    best.arrays = _arenas("best", arrays, network, best.epoch > 0)
    if not math.isfinite(best.accuracy):
        raise ValueError("its best accuracy is not finite")
    return best


def _average(description, mean, raw, network: Network) -> Average | None:
    """Return the moving average of the weights, its arrays checked."""
    if description is None:
        description, average = {"kept": False, "worn": False}, None
    else:
        average = Average(description["decay"])
    kept, worn = description["kept"], description["worn"]
    if (kept, worn) not in ((False, False), (True, False), (True, True)) or type(kept) is not bool:
        raise ValueError(f"its average is {description!r:.60}")
    mean, raw = _arenas("average", mean, network, kept), _arenas("raw", raw, network, worn)
    if average is not None:
        average.mean, average.raw = mean, raw
    return average


def _progress(epoch, batch, loss, seconds, history, average) -> Progress:
    """Return how far a run has come, each of its numbers checked."""
    epoch, batch = integer(epoch, "progress", "epoch", 0), integer(batch, "progress", "batch", 0)
    measured = {name: [float(number) for number in numbers] for name, numbers in history.items()}
    kept = History(**measured)
    always, optional = (kept.loss, kept.seconds), (kept.val_loss, kept.val_accuracy)
    if set(map(len, always)) != {epoch} or not set(map(len, optional)) <= {0, epoch}:
        raise ValueError(f"its history does not have {epoch} epochs")
    if not (math.isfinite(loss) and math.isfinite(seconds)):
        raise ValueError("its loss is not finite")
    return Progress(epoch, batch, float(loss), float(seconds), kept)
