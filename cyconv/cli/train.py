"""cyconv train: train a network on handwritten digits and tell how well it reads them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from cyconv import __version__, datasets, presets
from cyconv.cli.options import positive_number, thread_count, whole_number
from cyconv.files import replacement
from cyconv.optimizers import Adam
from cyconv.threads import get_num_threads, set_num_threads
from cyconv.training import Callback

EXAMPLE = """\
examples:
  cyconv train                                     MNIST if it can be had, else small digits
  cyconv train --preset wide --epochs 3            the larger network
  cyconv train --data ~/mnist --out run            your copy of MNIST; writes run/
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network on handwritten digits",
        description="Train a network on handwritten digits and tell how well it reads them.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "--preset",
        choices=("exercise", "wide"),
        default="exercise",
        help="4,934 parameters, or 3.3 million (default: %(default)s)",
    )
    option(
        "--epochs",
        type=whole_number(1),
        default=20,
        metavar="N",
        help="passes over the training images (default: %(default)s)",
    )
    option(
        "--batch-size",
        type=whole_number(1),
        default=64,
        metavar="N",
        help="images in a step (default: %(default)s)",
    )
    option(
        "--learning-rate",
        type=positive_number,
        default=2e-3,
        metavar="X",
        help="Adam's step size (default: %(default)s)",
    )
    option(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="decides weights and order of the images (default: %(default)s)",
    )
    option("--threads", type=thread_count, metavar="N", help="default: the cores that may be used")
    option(
        "--dataset",
        choices=("auto", "mnist", "digits"),
        default="auto",
        help="auto: MNIST, or the small embedded digits (default: %(default)s)",
    )
    option(
        "--data",
        metavar="DIR",
        help="folder with the four files of MNIST (default: $CYCONV_DATA, cache, download)",
    )
    option("--out", metavar="DIR", type=Path, help="folder for history.json and model.safetensors")
    parser.set_defaults(run=run, parser=parser)


def run(args) -> int:
    """Train as the arguments say, and print what a person wants to know."""
    if args.data and args.dataset == "digits":
        args.parser.error("--data is a folder of MNIST: it does not go with --dataset digits")
    if args.threads:
        set_num_threads(args.threads)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    data = datasets.load(args.dataset, args.data)
    if data.note:
        print(f"{data.note}\nMNIST is not to be had, so this trains on the small digits.\n")
    x, labels = data.train
    network = getattr(presets, args.preset)(seed=args.seed)
    print(
        f"cyconv {__version__}, {get_num_threads()} threads, {data.name}: "
        f"{len(x):,} training and {len(data.test[0]):,} test images\n"
    )
    print(network.summary() + "\n")
    history = network.fit(
        x,
        labels,
        args.epochs,
        args.batch_size,
        Adam(args.learning_rate),
        validation_data=data.test,
        seed=args.seed,
        callbacks=[_Report(args.epochs, len(x))],
    )
    accuracy = history.val_accuracy[-1]
    if args.out:
        record = {
            "cyconv": __version__,
            "dataset": data.name,
            **{
                name: getattr(args, name)
                for name in ("preset", "epochs", "batch_size", "learning_rate", "seed")
            },
            "threads": get_num_threads(),
            "history": vars(history),
            "test_accuracy": accuracy,
        }
        path = args.out / "history.json"
        with replacement(path) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())
        network.save(args.out / "model.safetensors")
        print(f"wrote {path} and {args.out / 'model.safetensors'}")
    print(f"test accuracy {accuracy:.4f}")
    return 0


class _Report(Callback):
    """A progress bar on a terminal, and one line for each epoch."""

    def __init__(self, epochs: int, images: int):
        self.epochs, self.images = epochs, images

    def on_epoch_begin(self, network, epoch, batches):
        self.bar = tqdm(
            total=batches,
            desc=f"epoch {epoch}/{self.epochs}",
            unit="step",
            leave=False,
            disable=None,
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def on_batch_end(self, network, batch, loss):
        self.bar.update()

    def on_epoch_end(self, network, epoch, history):
        self.bar.close()
        width = len(str(self.epochs))
        print(
            f"epoch {epoch:{width}}/{self.epochs}   loss {history.loss[-1]:.4f}   "
            f"test loss {history.val_loss[-1]:.4f}   test accuracy {history.val_accuracy[-1]:.4f}"
            f"   {self.images / history.seconds[-1]:,.0f} images/s",
            flush=True,
        )
