"""How fast does cyconv predict beside ONNX Runtime, OpenVINO and PyTorch on the CPU?

Labels of batches from one image up, cyconv's by `Network.predictor`. The two runtimes work on the
file that cyconv exports. Each side works in its own process, and they take turns, one at a time.
Before a case is timed, all must give the same labels. PyTorch runs each case in both memory
layouts, and its faster one is shown; a peer that is not installed is left out.

Times are medians of the turns; the ratio, the faster runtime over cyconv, is the median of the
ratios of neighbouring turns: above 1, cyconv is faster. "of peak" is the share of what the vector
units can do at most, multiply-adds in registers.
"""

from __future__ import annotations

from harness import begin, chosen, parser, write
from peers import OnnxRuntime, OpenVINO, PyTorch, compare

CASES = {
    f"predict {network} {images}": ("predict", images, network)
    for network, batches in (
        ("exercise", (1, 64, 1024)),
        ("wide", (1, 64, 512)),
        ("lenet5", (1, 64)),
        ("mnist_convnet", (1, 64)),
        ("resnet8", (1, 64)),
    )
    for images in batches
}


def main():
    """Measure, print the table, and write the records."""
    options = begin(parser(__doc__))
    cases = chosen(CASES, options.cases)
    if cases:
        write(options, *compare(cases, options, [OnnxRuntime, OpenVINO], [PyTorch]))


if __name__ == "__main__":
    main()
