"""How fast does cyconv train networks beside PyTorch on the CPU, and with how much memory?

Training steps with Adam of the presets and of a stack of depthwise-separable layers, and the peak
memory of a training process. Each side works in its own process, and they take turns, one at a
time. Before a case is timed, both sides must agree in the losses of five Adam steps from the same
weights and data. PyTorch runs each case in both memory layouts and both forms of Adam, and the
fastest counts.

Times are medians of the turns; the ratio is the median of the ratios of neighbouring turns: above
1, cyconv is faster. "of peak" is the share of what the vector units can do at most, multiply-adds
in registers.
"""

from __future__ import annotations

from itertools import product

from harness import Worker, begin, chosen, parser, print_table, write
from peers import Cyconv, PyTorch, compare

STRAIGHT = "exercise", "wide"
ZOO = "lenet5", "mnist_convnet", "vgg_small", "resnet8", "resnet20", "separable"
MEMORY = {f"memory {network} 512": (512, network) for network in STRAIGHT}
STEPS = {
    f"step {network} {images}": ("step", images, network)
    for network, images in [*product(STRAIGHT, (64, 512)), *product(ZOO, (64, 256))]
}
MEMORY_COLUMNS = {
    "PyTorch MB": "{pytorch_mb:.0f}",
    "cyconv MB": "{cyconv_mb:.0f}",
    "ratio": "{ratio:.2f}",
    "over imports: PyTorch": "{pytorch_growth_mb:.0f}",
    "cyconv": "{cyconv_growth_mb:.0f}",
    "ratio of these": "{growth_ratio:.2f}",
}


def compare_memory(case, threads):
    """Return the record of a memory case, from fresh processes."""
    images, name = case

    def measure(side, *args):
        worker = Worker(side, threads)
        before, after = worker.call("memory", *args)
        shape, layers, _ = worker.call("network", name) if side is Cyconv else (None,) * 3
        worker.close()
        return after, after - before, (shape, layers, {})

    *ours, network = measure(Cyconv, images, name)
    theirs = min(
        measure(PyTorch, variant, images, network)[:2] for variant in PyTorch.variants["memory"]
    )
    return {
        "pytorch_mb": theirs[0],
        "cyconv_mb": ours[0],
        "ratio": theirs[0] / ours[0],
        "pytorch_growth_mb": theirs[1],
        "cyconv_growth_mb": ours[1],
        "growth_ratio": theirs[1] / ours[1],
    }


def main():
    """Measure, print the tables, and write the records."""
    options = begin(parser(__doc__))
    memory, steps = (chosen(cases, options.cases) for cases in (MEMORY, STEPS))
    about, records = "", {}
    # Memory first: a process inherits the peak of the one that starts it, which grows with data.
    if memory:
        records |= print_table(
            memory, lambda case: compare_memory(case, options.threads), MEMORY_COLUMNS
        )
        print()
    if steps:
        about, timed = compare(steps, options, [PyTorch])
        records |= timed
    write(options, about, records)


if __name__ == "__main__":
    main()
