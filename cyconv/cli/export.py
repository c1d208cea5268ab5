"""cyconv export: a trained network as an ONNX file, for other runtimes and languages."""

from __future__ import annotations

import argparse

from cyconv.cli.options import add_command, add_model_argument, file_path
from cyconv.export import interface, to_onnx
from cyconv.network import Network

EXAMPLE = """\
example:
  cyconv train --out run
  cyconv export run/model.safetensors digits.onnx

In Python, for uint8 images of shape (N, 28, 28, 1):
  session = onnxruntime.InferenceSession("digits.onnx")
  probabilities, = session.run(None, {"input": images.astype("float32") / 255})
"""


def add(commands) -> None:
    parser = add_command(
        commands,
        "export",
        run,
        "write a trained network to an ONNX file",
        "Write a trained network to an ONNX file (extra onnx).",
        EXAMPLE,
    )
    add_model_argument(parser)
    parser.add_argument("file", metavar="FILE.onnx", type=_onnx_file, help="the file to write")


def run(args) -> int:
    """Write the file, and print what it takes and returns."""
    network = Network.load(args.model)
    to_onnx(network, args.file)
    print(f"wrote {args.file}\n{interface(network)}")
    return 0


def _onnx_file(text: str) -> str:
    """Parse the name of the file to write: two arguments in the wrong order cost no network."""
    if not text.endswith(".onnx"):
        raise argparse.ArgumentTypeError(f"must end with .onnx, got {text!r}")
    return file_path(text)
