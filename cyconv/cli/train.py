"""cyconv train: train a network on handwritten digits and tell how well it reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cyconv import __version__, plots, presets
from cyconv.cli.options import (
    CLASSES,
    HISTORY,
    IMAGE,
    add_command,
    add_data_options,
    add_preset_option,
    add_thread_option,
    data_digest,
    folder_path,
    load_data,
    plural,
    positive_number,
    whole_number,
)
from cyconv.cli.report import (
    CHECKPOINT,
    MODEL,
    Interrupt,
    Report,
    is_finished,
    loss_text,
    place_of,
    record_run,
)
from cyconv.cli.streams import OutputError
from cyconv.errors import CheckpointError
from cyconv.files import make_folder
from cyconv.metrics import confusion_matrix
from cyconv.network import MOST_SEED
from cyconv.optimizers import SGD, Adam, AdamW, BaseOptimizer
from cyconv.runs import Training, load_training
from cyconv.schedules import SCHEDULES
from cyconv.threads import get_num_threads
from cyconv.training import KeepBest

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HELD_OUT = 12  # one training image in 12 is held out to find the best epoch: 5,000 of MNIST
# By the option's name: what makes an optimizer from a learning rate, and the default rate.
OPTIMIZERS: dict[str, tuple[Callable[[float], BaseOptimizer], float]] = {
    "adam": (Adam, 2e-3),
    "adamw": (AdamW, 2e-3),
    "sgd": (lambda rate: SGD(rate, momentum=0.9, nesterov=True), 5e-2),
}
DEFAULTS = {
    "preset": "exercise",
    "epochs": 20,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": None,
    "schedule": "cosine",
    "early_stop": None,
    "seed": 0,
    "dataset": "auto",
    "out": None,
}
KEPT = {  # in a checkpoint, of these types
    "preset": str,
    "epochs": int,
    "batch_size": int,
    "seed": int,
    "dataset": str,
    "data_sha256": str,
}
DATASETS = "digits", "mnist", "custom"  # the names of what `datasets.load` returns
EXAMPLE = """\
examples:
  cyconv train --out run           keep it; Ctrl-C stops and saves
  cyconv train --resume run        go on, to the same bits
"""


def add(commands) -> None:
    parser = add_command(
        commands,
        "train",
        run,
        "train a network on handwritten digits",
        "Train a network on handwritten digits and tell how well it reads them.",
        EXAMPLE,
    )
    parser.usage = "cyconv train [options]"
    default = {name: f"default: {value}" for name, value in DEFAULTS.items()}
    option = parser.add_argument
    add_preset_option(parser, "exercise (default); all")
    option("--epochs", type=whole_number(1), metavar="N", help=default["epochs"])
    option(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        help=f"images in a step ({default['batch_size']})",
    )
    option(
        "--optimizer",
        choices=tuple(OPTIMIZERS),
        metavar="NAME",
        help="adam (default), adamw, sgd with Nesterov's momentum",
    )
    option(
        "--learning-rate",
        type=positive_number,
        metavar="X",
        help=f"default: {OPTIMIZERS['adam'][1]}, of sgd {OPTIMIZERS['sgd'][1]}",
    )
    option(
        "--schedule",
        choices=tuple(SCHEDULES),
        metavar="NAME",
        help="of the rate: constant, cosine (default), onecycle",
    )
    option(
        "--early-stop",
        type=whole_number(1),
        metavar="N",
        help="after N epochs without a better validation accuracy",
    )
    option(
        "--seed",
        type=whole_number(0, MOST_SEED),
        metavar="N",
        help=f"weights and order ({default['seed']})",
    )
    add_thread_option(parser)
    add_data_options(parser)
    option(
        "--out", metavar="DIR", type=folder_path, help="folder for checkpoint, model and pictures"
    )
    option("--resume", metavar="DIR", type=folder_path, help="go on with the run in that folder")
    parser.set_defaults(dataset=None)


def run(args) -> int:
    """Train as the arguments say, and print what a person wants to know."""
    _check_options(args)
    folder = args.resume or args.out
    if args.resume and not (folder / CHECKPOINT).exists():
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {CHECKPOINT} in it; cyconv train --out DIR "
            "writes one"
        )
    if args.out:
        make_folder(folder)
    with _alone(folder):
        return _run(args, folder)


def _run(args, folder: Path | None) -> int:
    """Train in a folder that no other process writes."""
    training = _resumed(args) if args.resume else _new(args)
    settings, progress = training.settings, training.progress
    data = load_data(args)
    settings["dataset"] = data.name
    x, labels = data.train
    _check_data(args, settings, x, labels)
    held = len(x) // HELD_OUT
    print(
        f"cyconv {__version__}, {plural(get_num_threads(), 'thread')}, {data.name}: "
        f"{len(x) - held:,} training, {held:,} validation and {len(data.test[0]):,} test images\n"
    )
    print(training.network.summary() + "\n")
    if args.resume:
        print(f"{folder} goes on after {place_of(progress)}\n")
    with Interrupt() as interrupt:
        report = Report(training, folder, interrupt, len(x) - held)
        # A folder that cannot be written is found now, and one whose writer was killed made whole.
        report.save()
        if not is_finished(training):
            try:
                training.network.fit(
                    x[:-held],
                    labels[:-held],
                    settings["epochs"],
                    settings["batch_size"],
                    training.optimizer,
                    validation_data=(x[-held:], labels[-held:]),
                    seed=settings["seed"],
                    callbacks=[training.best, report],
                    schedule=training.schedule,
                    progress=progress,
                )
            except FloatingPointError as error:  # going on would lead to the same step
                raise FloatingPointError(f"the run diverged: {error}{report.kept()}") from error
            except OutputError as error:
                if not folder:
                    raise
                report.save()
                error.strerror, error.filename = f"{error.strerror}{report.way_on()}", folder
                raise
            except OSError as error:
                raise type(error)(f"{error}{report.way_on()}") from error
            finally:
                report.close()
        report.save()
    _tell_divergence(training)
    if not is_finished(training):
        print(f"stopped after {place_of(progress)}{report.way_on()}")
        return 130
    training.best.restore(training.network)
    accuracy = training.network.evaluate(*data.test)[1]
    if folder:
        record_run(training, folder, accuracy)
        print(f"\nthe best network is {folder / MODEL}; cyconv evaluate and predict take it")
    best = training.best
    print(f"\nbest epoch {best.epoch}: validation accuracy {best.accuracy:.4f}")
    print(f"test accuracy {accuracy:.4f}", flush=True)
    if folder:
        _draw(training, folder, *data.test)
    return 0


def _check_options(args) -> None:
    """Refuse what does not go together, and fill in the defaults."""
    if args.resume:
        given = [name for name in DEFAULTS if getattr(args, name) is not None]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            args.parser.error(f"--resume goes on as the run began: leave out {options}")
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _new(args) -> Training:
    """Return a run at its beginning."""
    for path in (args.out / name for name in (CHECKPOINT, MODEL, HISTORY) if args.out):
        if os.path.lexists(path):
            holds, advice = path.name, "delete it first"
            if path.name == CHECKPOINT and path.exists():
                holds, advice = "a run that is not finished", f"go on with --resume {args.out}"
                if is_finished(_load(path)):
                    holds, advice = "a finished run", "delete it first"
            raise FileExistsError(f"{args.out} holds {holds}: {advice}, or choose another folder")
    make, rate = OPTIMIZERS[args.optimizer]
    return Training(
        getattr(presets, args.preset)(seed=args.seed, input_shape=IMAGE, classes=CLASSES),
        make(rate if args.learning_rate is None else args.learning_rate),
        best=KeepBest(args.early_stop),
        settings={name: getattr(args, name) for name in KEPT if hasattr(args, name)},
        schedule=args.schedule,
    )


def _resumed(args) -> Training:
    """Return the run in a folder, where it stood."""
    training = _load(args.resume / CHECKPOINT)
    args.dataset = "digits" if training.settings["dataset"] == "digits" else "mnist"
    return training


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Keep other processes out of a folder; the lock ends with its process, however that ends."""
    if folder is None or fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another cyconv train is running in {folder}: wait for its end, or choose another "
                "folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _load(path: Path) -> Training:
    """Return the run in a checkpoint that this command has written."""
    training = load_training(path)
    for name, kind in KEPT.items():
        if type(training.settings.get(name)) is not kind:
            raise CheckpointError(f"{path}: this is not a run of cyconv train: it has no {name}")
    if (name := training.settings["dataset"]) not in DATASETS:
        raise CheckpointError(
            f"{path}: its dataset must be one of {', '.join(DATASETS)}, got {name!r:.60}"
        )
    return training


def _check_data(args, settings, x, labels) -> None:
    """Note which data a run is trained on, or raise ValueError if they are others now."""
    if not (args.resume or args.out):
        return
    digest = data_digest(x, labels)
    if settings.setdefault("data_sha256", digest) != digest:
        raise ValueError(f"{args.resume} was trained on other data; name their folder with --data")


def _tell_divergence(training: Training) -> None:
    """Say so if the last epoch's loss is far worse than that of guessing."""
    losses, guessing = training.progress.history.loss, math.log(CLASSES)
    if losses and losses[-1] > 2 * guessing:
        print(
            f"\nthe run diverged: its loss is {loss_text(losses[-1])}, that of guessing "
            f"{guessing:.4f}; try a --learning-rate smaller than "
            f"{training.optimizer.learning_rate:g}"
        )


def _draw(training: Training, folder: Path, x, labels) -> None:
    """Draw the pictures, if matplotlib is there."""
    network = training.network
    probabilities = network.predict_proba(x)
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), network.classes)
    try:
        plots.history(training.progress.history, folder / "history.png")
        plots.filters(network, folder / "filters.png")
        plots.confusion(matrix, folder / "confusion.png")
        plots.mistakes(x, labels, probabilities, folder / "mistakes.png")
    except ImportError as error:
        print(f"\nno pictures: {error}")
