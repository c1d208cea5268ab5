"""How fast are cyconv's layers beside PyTorch's on the CPU?

Single convolutions of one of the sets below, or linear layers, the latter as a network of one, by
`Network.forward` and `backward`. With --backward they are timed forward and backward together, dx
included. Each side works in its own process, and they take turns, one at a time. Before a case is
timed, outputs and gradients must agree within the bound of float32. PyTorch runs each convolution
in both memory layouts, and the faster one counts.

Times are medians of the turns; the ratio is the median of the ratios of neighbouring turns: above
1, cyconv is faster. "of peak" is the share of what the vector units can do at most, multiply-adds
in registers, of the operations of the formula.
"""

from __future__ import annotations

import math

import numpy as np
from harness import begin, chosen, parser, write
from peers import PyTorch, compare


def conv(size, C, F, kernel, stride=1, padding=0, groups=1):
    """Return image, filters and window of a convolution; sizes that do not fit are rounded down."""
    H, W = size if isinstance(size, tuple) else (size, size)
    KH, KW = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    window = {"stride": stride, "padding": padding, "rounding": "floor"}
    if groups > 1:
        window["groups"] = groups
    return (H, W, C), (KH, KW, C // groups, F), window


def residual(*layers):
    """Return convolutions of a residual network: padding keeps the size but for the stride."""
    return [conv(H, C, F, K, stride, K // 2) for H, C, F, K, stride in layers]


COURSE = [  # images and convolution: the layers of the two networks, and three larger ones
    (512, conv(28, 1, 4, 8, 2)),
    (512, conv(11, 4, 8, 6)),
    (512, conv(6, 8, 16, 4)),
    (512, conv(3, 16, 10, 3)),
    (512, conv(28, 1, 32, 6, 2, 2)),
    (512, conv(14, 32, 64, 6, 2, 2)),
    (64, conv(28, 32, 64, 3, 1, 1)),
    (32, conv(56, 64, 64, 3, 1, 1)),
    (32, conv(28, 128, 128, 3, 1, 1)),
]
RESNET50 = residual(  # version 1.5 (He et al. 2015): the stride is in the 3x3 convolution
    (224, 3, 64, 7, 2),
    (56, 64, 64, 1, 1), (56, 64, 64, 3, 1), (56, 64, 256, 1, 1), (56, 256, 64, 1, 1),
    (56, 256, 128, 1, 1), (56, 128, 128, 3, 2), (56, 256, 512, 1, 2),
    (28, 128, 512, 1, 1), (28, 512, 128, 1, 1), (28, 128, 128, 3, 1),
    (28, 512, 256, 1, 1), (28, 256, 256, 3, 2), (28, 512, 1024, 1, 2),
    (14, 256, 1024, 1, 1), (14, 1024, 256, 1, 1), (14, 256, 256, 3, 1),
    (14, 1024, 512, 1, 1), (14, 512, 512, 3, 2), (14, 1024, 2048, 1, 2),
    (7, 512, 2048, 1, 1), (7, 2048, 512, 1, 1), (7, 512, 512, 3, 1),
)  # fmt: skip
VGG = residual(  # VGG-16 (Simonyan & Zisserman 2014)
    (224, 3, 64, 3, 1), (224, 64, 64, 3, 1), (112, 64, 128, 3, 1), (112, 128, 128, 3, 1),
    (56, 128, 256, 3, 1), (56, 256, 256, 3, 1), (28, 256, 512, 3, 1), (28, 512, 512, 3, 1),
    (14, 512, 512, 3, 1),
)  # fmt: skip
MOBILENET = [  # the depthwise layers of MobileNet (Howard et al. 2017)
    conv(size, C, C, 3, stride, 1, groups=C)
    for size, C, stride in (
        (112, 32, 1), (112, 64, 2), (56, 128, 1), (56, 128, 2), (28, 256, 1), (28, 256, 2),
        (14, 512, 1), (14, 512, 2), (7, 1024, 1),
    )
]  # fmt: skip
DEEPBENCH = [  # speech and text in pictures, of Baidu's DeepBench
    conv((700, 161), 1, 32, (20, 5), 2),
    conv((341, 79), 32, 32, (10, 5), 2),
    conv((480, 48), 1, 16, 3, 1, 1),
    conv((240, 24), 16, 32, 3, 1, 1),
    conv((120, 12), 32, 64, 3, 1, 1),
    conv((60, 6), 64, 128, 3, 1, 1),
]
WINOGRAD = residual((28, 128, 128, 3, 1), (56, 64, 64, 3, 1), (14, 256, 256, 3, 1))

# What `random` draws from. Windows: of ResNet, Inception, LeNet, AlexNet, YOLO, ConvNeXt, vision
# transformers, networks that play Atari's games, and of speech.
WINDOWS = [  # kernel, stride, padding
    *((1, 1, 0), (1, 2, 0), (2, 2, 0), (3, 1, 1), (3, 1, 0), (3, 2, 1), (3, 2, 0), (3, 3, 0)),
    *((4, 2, 0), (4, 4, 0), (5, 1, 2), (5, 1, 0), (5, 2, 2), (6, 2, 2), (7, 1, 3), (7, 2, 3)),
    *((8, 4, 0), (11, 4, 2), (16, 16, 0)),
    *(((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0)), ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))),
    *((3, (2, 1), 1), (3, (1, 2), 1), ((20, 5), 2, 0), ((10, 4), 2, (4, 1)), ((5, 3), (3, 1), 0)),
]
SIDES = [
    *(7, 8, 9, 13, 14, 16, 17, 20, 27, 28, 32, 35, 55, 56, 64, 71, 84, 112, 149, 224, 299),
    *((49, 10), (98, 40), (480, 48), (161, 700), (79, 341), (24, 240), (12, 120), (6, 60)),
]
CHANNELS = 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512
MOST_OPERATIONS, MOST_VALUES = 2e8, 2e6  # of an image, of its input and output together


def drawn(count=200, seed=0):
    """Return convolutions with the sizes of real networks, an eighth of them depthwise."""
    rng, found = np.random.default_rng(seed), []

    def pick(values):
        return values[rng.integers(len(values))]

    while len(found) < count:
        size, C, F, depthwise = pick(SIDES), pick(CHANNELS), pick(CHANNELS), rng.random() < 1 / 8
        one = conv(size, C, C if depthwise else F, *pick(WINDOWS), C if depthwise else 1)
        try:
            values, operations = work(one)
        except ValueError:  # the kernel is larger than the image
            continue
        if values <= MOST_VALUES and operations <= MOST_OPERATIONS and one not in found:
            found.append(one)
    return found


def work(convolution):
    """Return the numbers in the input and output of an image, and the operations on it."""
    from cyconv.measure import Convolution  # here: PyTorch's process imports this file

    image, filters, window = convolution
    sizes = Convolution(image, filters, **window)
    geometry = sizes.geometry
    return math.prod(image) + geometry.OH * geometry.OW * filters[3], sizes.operations


LINEAR = [(3136, 1024)]  # the large one of the wide network
SETS = {  # pairs of a number of images and a layer
    "course": COURSE,
    "resnet50": [(16, each) for each in RESNET50],
    "vgg": [(16, each) for each in VGG],
    "mobilenet": [(16, each) for each in MOBILENET],
    "deepbench": [(16, each) for each in DEEPBENCH],
    "winograd": [(images, each) for images in (16, 32) for each in WINOGRAD],
    "linear": [(images, each) for images in (1, 64, 512) for each in LINEAR],
    "random": None,  # what `drawn` returns, 8 images of each
}


def cases(name, images=None, backward=False):
    """Return the cases of a set by their names, all with this number of images if it is given."""
    from cyconv.measure import Convolution

    found = {}
    for usual, layer in SETS[name] or [(8, each) for each in drawn()]:
        number = images or usual
        if name == "linear":
            text, kind = "{} to {}".format(*layer), "linear"
        else:
            shown = {key: value for key, value in layer[2].items() if key != "rounding"}
            text, kind = str(Convolution(*layer[:2], **shown)), "conv"
        found[f"{number} of {text}"] = (kind, number, *layer, backward)
    return found


def main():
    """Measure, print the table and the summary, and write the records."""
    options = parser(__doc__)
    options.add_argument("--set", choices=SETS, default="course", help="(default: course)")
    options.add_argument("--batch", type=int, metavar="N", help="images (default: the set's own)")
    options.add_argument("--backward", action="store_true", help="forward and backward")
    given = begin(options)
    every = chosen(cases(given.set, given.batch, given.backward), given.cases)
    if every:
        print(f"{given.set}, {'forward and backward' if given.backward else 'forward'}")
        write(given, *compare(every, given, [PyTorch]))


if __name__ == "__main__":
    main()
