"""How large should blocks and tiles be?

The training step with blocks of other sizes, and single convolutions with other tiles, each as a
factor over the size that the package has. All results are the same to rounding, which is checked.
"""

from __future__ import annotations

import argparse

import numpy as np

import cyconv
from cyconv import tuning
from cyconv.measure import STILL
from cyconv.timing import interleave, print_row, seconds_each

WIDTHS = 34, 9, 9, 9, 9, 9, 9
BLOCKS = (1, 2, 4, 8, 16, 32)
TILES = (32, 64, 128, 256, 512, 1024)
LAYERS = (
    (512, (28, 28, 1), (8, 8, 4), 2, 0),
    (512, (11, 11, 4), (6, 6, 8), 1, 0),
    (128, (14, 14, 32), (6, 6, 64), 2, 2),
    (16, (28, 28, 128), (3, 3, 128), 1, 1),
)


def step_tasks(make, batch):
    """Return the training step's task for each number of images in a block."""
    rng = np.random.default_rng(0)
    x, labels = rng.random((batch, 28, 28, 1), np.float32), rng.integers(0, 10, batch)
    tasks, losses, most = [], [], tuning.MAX_IMAGES_PER_BLOCK
    for images in BLOCKS:
        tuning.MAX_IMAGES_PER_BLOCK = images
        net, adam = make(), cyconv.Adam(STILL)
        tasks.append(lambda net=net, adam=adam: net.train_step(x, labels, adam))
        losses.append(tasks[-1]())
    tuning.MAX_IMAGES_PER_BLOCK = most
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    return tasks


def layer_tasks(batch, image, filters, stride, padding):
    """Return the task, forward and backward, of a layer for each size of its tiles."""
    rng = np.random.default_rng(0)
    x, w = (
        rng.integers(-4, 5, shape).astype(np.float32)
        for shape in ((batch, *image), (*filters[:2], image[2], filters[2]))
    )

    def task(kilobytes):
        tuning.TILE_BYTES, before = kilobytes * 1024, tuning.TILE_BYTES
        try:
            y = cyconv.conv2d(x, w, None, stride, padding)
            return y, cyconv.conv2d_backward(y, x, w, stride, padding)[1]
        finally:
            tuning.TILE_BYTES = before

    first = task(TILES[0])
    for kilobytes in TILES[1:]:
        np.testing.assert_allclose(task(kilobytes)[0], first[0])
        np.testing.assert_allclose(task(kilobytes)[1], first[1], rtol=1e-4)
    return [lambda kilobytes=kilobytes: task(kilobytes) for kilobytes in TILES]


def print_factors(name, tasks, base, turns):
    """Time the tasks in turns; print each one's median over that of number `base`."""
    runs = [lambda n, task=task: seconds_each(task, n) for task in tasks]
    medians = np.median(interleave(runs, turns, 0.02), axis=0)
    print_row((name, *(f"{each / medians[base]:.2f}" for each in medians)), WIDTHS)


def main():
    """Check, time, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--turns", type=int, default=9, help="of each size (default: 9)")
    options = parser.parse_args()
    cyconv.set_num_threads(options.threads)
    print_row(("step: images in a block, at most", *BLOCKS), WIDTHS)
    for batch in (64, 512):
        tasks = step_tasks(cyconv.presets.exercise, batch)
        print_factors(
            f"exercise, batch {batch}",
            tasks,
            BLOCKS.index(tuning.MAX_IMAGES_PER_BLOCK),
            options.turns,
        )
    print_row(("layer: KiB of columns in a tile", *TILES), WIDTHS)
    base = TILES.index(tuning.TILE_BYTES // 1024)
    for layer in LAYERS:
        (H, W, C), (KH, KW, F) = layer[1:3]
        name = f"{layer[0]} of {H}x{W}x{C}, {KH}x{KW}x{F}"
        print_factors(name, layer_tasks(*layer), base, options.turns)


if __name__ == "__main__":
    main()
