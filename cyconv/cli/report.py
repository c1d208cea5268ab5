"""What a training run shows and writes on its way."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from cyconv import __version__
from cyconv.cli.options import HISTORY
from cyconv.files import replacement
from cyconv.runs import Training, save_training
from cyconv.threads import get_num_threads
from cyconv.training import Callback, Progress

SAVING = 0.01  # largest share of the run spent saving, first and last save excepted
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"


class Interrupt:
    """The first Ctrl-C is noted, the second one ends the program at once."""

    def __init__(self) -> None:
        self.noted = False

    def __enter__(self) -> Interrupt:
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


class Report(Callback):
    """A progress bar on a terminal, one line for each epoch, and the files of the run."""

    def __init__(self, training, folder: Path | None, interrupt: Interrupt, images: int) -> None:
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
        if self.folder and (is_finished(self.training) or time.perf_counter() >= self.due):
            self.save()
            mark = "  saved"
        print(
            f"{place:>7}{loss_text(history.loss[-1]):>9}{loss_text(history.val_loss[-1]):>10}"
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
        place, best = place_of(self.training.progress), self.training.best
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
        record_run(self.training, self.folder)
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


def is_finished(training: Training) -> bool:
    progress, best = training.progress, training.best
    patient = best.patience is None or progress.epoch - best.epoch < best.patience
    return progress.epoch >= training.settings["epochs"] or not patient


def place_of(progress: Progress) -> str:
    """Return the last step that was done, as a person counts."""
    if progress.batch:
        return f"epoch {progress.epoch + 1}, step {progress.batch}"
    return f"epoch {progress.epoch}"


def loss_text(value: float) -> str:
    """Return a loss that leaves a gap to its neighbours in the table."""
    return f"{value:.4f}" if value < 1000 else f"{value:.2e}"


def record_run(training: Training, folder: Path, accuracy: float | None = None) -> None:
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
