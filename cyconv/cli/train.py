"""cyconv train: train a network on handwritten digits and tell how well it reads them."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

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
from cyconv.cli.streams import OutputError
from cyconv.errors import CheckpointError
from cyconv.files import make_folder, replacement
from cyconv.metrics import confusion_matrix
from cyconv.optimizers import SGD, Adam, AdamW, BaseOptimizer
from cyconv.runs import Training, load_training, save_training
from cyconv.schedules import SCHEDULES
from cyconv.threads import get_num_threads
from cyconv.training import Callback, KeepBest, Progress

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HELD_OUT = 12  # one training image in 12 is held out to find the best epoch: 5,000 of MNIST
SAVING = 0.01  # largest share of the run spent saving, first and last save excepted
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"
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
        "--seed", type=whole_number(0), metavar="N", help=f"weights and order ({default['seed']})"
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
        print(f"{folder} goes on after {_place(progress)}\n")
    with _Interrupt() as interrupt:
        report = _Report(training, folder, interrupt, len(x) - held)
        # A folder that cannot be written is found now, and one whose writer was killed made whole.
        report.save()
        if not _is_finished(training):
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
    if not _is_finished(training):
        print(f"stopped after {_place(progress)}{report.way_on()}")
        return 130
    training.best.restore(training.network)
    accuracy = training.network.evaluate(*data.test)[1]
    if folder:
        _record(training, folder, accuracy)
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
        if path.exists():
            holds, advice = path.name, "delete it first"
            if path.name == CHECKPOINT and _is_finished(_load(path)):
                holds = "a finished run"
            elif path.name == CHECKPOINT:
                holds, advice = "a run that is not finished", f"go on with --resume {args.out}"
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
            f"\nthe run diverged: its loss is {_loss(losses[-1])}, that of guessing "
            f"{guessing:.4f}; try a --learning-rate smaller than "
            f"{training.optimizer.learning_rate:g}"
        )


def _loss(value: float) -> str:
    """Return a loss that leaves a gap to its neighbours in the table."""
    return f"{value:.4f}" if value < 1000 else f"{value:.2e}"


def _is_finished(training: Training) -> bool:
    progress, best = training.progress, training.best
    patient = best.patience is None or progress.epoch - best.epoch < best.patience
    return progress.epoch >= training.settings["epochs"] or not patient


def _place(progress: Progress) -> str:
    """Return the last step that was done, as a person counts."""
    if progress.batch:
        return f"epoch {progress.epoch + 1}, step {progress.batch}"
    return f"epoch {progress.epoch}"


def _record(training: Training, folder: Path, accuracy: float | None = None) -> None:
    """Write the history."""
    record = {
        "cyconv": __version__,
        **training.settings,
        "optimizer": repr(training.optimizer),
        "learning_rate": training.optimizer.learning_rate,
        "schedule": training.schedule,
        "early_stop": training.best.patience,
        "threads": get_num_threads(),
        "history": vars(training.progress.history),
        "best_epoch": training.best.epoch,
        "test_accuracy": accuracy,
    }
    with replacement(folder / HISTORY) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


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


class _Interrupt:
    """The first Ctrl-C is noted, the second one ends the program at once."""

    def __init__(self) -> None:
        self.noted = False

    def __enter__(self) -> _Interrupt:
        # A signal that the parent ignores, as a shell does for a job in the background, stays so; a
        # handler that is not Python's could not be restored.
        self._before = signal.getsignal(signal.SIGINT)
        self._noting = (
            threading.current_thread() is threading.main_thread()
            and self._before not in (signal.SIG_IGN, None)
        )
        if self._noting:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_) -> None:
        if self._noting:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_) -> None:
        self.noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # What is being written, as the bar may be, print cannot enter a second time.
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), b"\nstopping after this step; once more stops at once\n")


class _Report(Callback):
    """A progress bar on a terminal, one line for each epoch, and the files of the run."""

    def __init__(self, training, folder: Path | None, interrupt: _Interrupt, images: int) -> None:
        self.training, self.folder, self.interrupt = training, folder, interrupt
        self.images, self.epochs = images, training.settings["epochs"]
        self.bar = None
        self.saved = ""  # the place up to which the checkpoint has the run
        self.saved_best = 0
        self.due = 0.0  # when saving is worth its time again
        self.headed = False

    def on_epoch_begin(self, network, epoch, batches):
        if not self.headed:
            print(f"{'epoch':>7}{'loss':>9}{'val loss':>10}{'val accuracy':>14}{'images/s':>11}")
            self.headed = True
        self.bar = tqdm(
            total=batches,
            initial=self.training.progress.batch,
            desc=f"epoch {epoch}/{self.epochs}",
            unit="step",
            leave=False,
            disable=None,
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def on_batch_end(self, network, batch, loss):
        self.bar.update()
        return self.interrupt.noted

    def on_epoch_end(self, network, epoch, history):
        self.close()
        place, speed = f"{epoch}/{self.epochs}", self.images / history.seconds[-1]
        mark = ""
        if self.folder and (_is_finished(self.training) or time.perf_counter() >= self.due):
            self.save()
            mark = "  saved"
        print(
            f"{place:>7}{_loss(history.loss[-1]):>9}{_loss(history.val_loss[-1]):>10}"
            f"{history.val_accuracy[-1]:14.4f}{speed:11,.0f}{mark}",
            flush=True,
        )
        return self.interrupt.noted

    def close(self) -> None:
        """Take the progress bar away."""
        if self.bar:
            self.bar.close()

    def save(self) -> None:
        """Write the run, its best network and its history, if there is anything new."""
        place, best = _place(self.training.progress), self.training.best
        if not self.folder or place == self.saved:
            return
        start = time.perf_counter()
        save_training(self.training, self.folder / CHECKPOINT)
        self.saved = place
        if best.epoch > self.saved_best:
            network = copy.copy(self.training.network)
            best.restore(network)
            network.save(self.folder / MODEL)
            self.saved_best = best.epoch
        _record(self.training, self.folder)
        end = time.perf_counter()
        self.due = end + (end - start) / SAVING

    def kept(self) -> str:
        """Return what is left of a run that does not reach its end."""
        if not self.folder:
            return "; nothing was saved, as --out DIR does"
        return f"; {self.folder / CHECKPOINT} holds the run after {self.saved}"

    def way_on(self) -> str:
        """Return what is left of a run that does not reach its end, and how it goes on."""
        if not self.folder:
            return self.kept()
        return f"{self.kept()}, where cyconv train --resume {self.folder} goes on"
