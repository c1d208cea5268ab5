"""Checkpoints whose digest is true, whatever else is in them."""

import hashlib
import json
import re

DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
FLATTEN, SLOPE, IM2COL, LINEAR, SOFTMAX = (
    {"type": "Flatten"},
    {"type": "LeakyReLU"},
    {"type": "Im2Col", "kernel_size": 2**20},
    {"type": "Linear", "out_features": 2},
    {"type": "Softmax"},
)
HEADER = {
    "format": "cyconv network 1",
    "input_shape": [2, 1, 1],
    "seed": 0,
    "dtype": "float32",
    "layers": [FLATTEN, LINEAR, SOFTMAX],
}
TENSORS = {
    "1.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "1.bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
}


def seal(content):
    """Return a checkpoint with a true digest, if there is a place for one in its header."""
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    places = list(DIGEST.finditer(header))
    if not places:
        return content
    start, end = places[-1].span(1)
    digest = hashlib.sha256(content[:start] + b"0" * 64 + content[end:]).hexdigest()
    return content[:start] + digest.encode() + content[end:]


def checkpoint(header, tensors=TENSORS, data=bytes(24)):
    """Return a checkpoint; its header is a mapping or the text of one."""
    text = header if isinstance(header, str) else json.dumps(header)
    inner = f'{{"header": {text}, "sha256": "{"0" * 64}"}}'
    return container(json.dumps({"__metadata__": {"cyconv": inner}, **tensors}), data)


def container(text, data=b""):
    """Return a safetensors file with this text for a header."""
    text = text.encode() if isinstance(text, str) else text
    text += b" " * (-len(text) % 8)
    return seal(len(text).to_bytes(8, "little") + text + data)


def changed(**changes):
    return checkpoint({**HEADER, **changes})


def stored(name="1.bias", **changes):
    return checkpoint(HEADER, {**TENSORS, name: {**TENSORS[name], **changes}})


def without_parameters(*layers, input_shape):
    header = {**HEADER, "input_shape": input_shape, "layers": layers}
    return checkpoint(header, {}, b"")


def leaky(layers):
    return without_parameters(*layers, input_shape=[3])


def nested(depth):
    return "[" * depth + "]" * depth


GOOD = checkpoint(HEADER)
LENGTH = 8 + int.from_bytes(GOOD[:8], "little")
INCOMPLETE, INVALID, DAMAGED = (
    "not a complete safetensors file of cyconv",
    "the description in it is not valid",
    "its digest does not match",
)
FILES = {
    "empty": (b"", INCOMPLETE),
    "zeros": (bytes(64), INCOMPLETE),
    "no header": (container("{}"), INCOMPLETE),
    "a list for a header": (container("[]"), INCOMPLETE),
    "no text for a header": (container(b"\xff\xfe{}"), INCOMPLETE),
    "a deep header": (container('{"a":' + nested(100_000) + "}"), INCOMPLETE),
    "a header of 2**63 bytes": ((2**63).to_bytes(8, "little") + GOOD[8:], INCOMPLETE),
    "a header of 2**64 - 1 bytes": (b"\xff" * 8 + GOOD[8:], INCOMPLETE),
    "a header longer than the file": (len(GOOD).to_bytes(8, "little") + GOOD[8:], INCOMPLETE),
    "a header shorter than its JSON": ((LENGTH - 16).to_bytes(8, "little") + GOOD[8:], INCOMPLETE),
    "numbers for metadata": (container('{"__metadata__": {"cyconv": 5}}'), INCOMPLETE),
    "no JSON for metadata": (checkpoint('{"format": '), INCOMPLETE),
    "a number of 5,000 digits": (checkpoint('{"seed": ' + "9" * 5000 + "}"), INCOMPLETE),
    "a deep description": (checkpoint(nested(50_000)), INCOMPLETE),
    "a digest of other bytes": (GOOD[:-1] + b"\1", DAMAGED),
    "bytes behind the data": (seal(GOOD + b"\0"), INCOMPLETE),
    "tensors that overlap": (stored(data_offsets=[8, 16]), INCOMPLETE),
    "tensors with a hole": (stored(data_offsets=[20, 28]), INCOMPLETE),
    "offsets that go back": (stored(data_offsets=[24, 16]), INCOMPLETE),
    "offsets beyond the file": (stored(data_offsets=[16, 2**40]), INCOMPLETE),
    "a negative offset": (stored(data_offsets=[-8, 0]), INCOMPLETE),
    "a shape of 2**64 elements": (stored(shape=[2**32, 2**32]), INCOMPLETE),
    "a shape of 2**64 + 2 elements": (stored(shape=[2**63 + 1, 2]), INCOMPLETE),
    "a negative shape": (stored(shape=[-2]), INCOMPLETE),
    "an unknown element type": (stored(dtype="O"), INCOMPLETE),
    "another element type": (stored(dtype="I32"), INVALID),
    "NaN for a seed": (changed(seed=float("nan")), INVALID),
    "a truth for an extent": (changed(input_shape=[2, True, 1]), INVALID),
    "a fraction for an extent": (changed(input_shape=[2.0, 1, 1]), INVALID),
    "a deep extent": (changed(input_shape=[[[[2]]]]), INVALID),
    "2**62 inputs": (changed(input_shape=[2**62, 4, 1]), INVALID),
    "2**62 outputs": (changed(layers=[FLATTEN, {**LINEAR, "out_features": 2**62}]), INVALID),
    "100,000 layers": (changed(layers=[FLATTEN] * 100_000), INVALID),
    "10,001 layers": (leaky([SLOPE] * 10_001), INVALID),
    "10,001 layers inside others": (
        leaky([{"type": "Residual", "body": [SLOPE] * 10_000}]),
        INVALID,
    ),
    "a million layers": (leaky([SLOPE] * 10**6), INCOMPLETE),
    "an instruction for a layer": (changed(layers=[{"type": "os.system"}]), INVALID),
    "a special name for a layer": (changed(layers=[{"type": "__class__"}]), INVALID),
    "a module for a layer": (changed(layers=[{"type": "activations"}]), INVALID),
    "an argument that replaces self": (changed(layers=[{**FLATTEN, "self": 0}]), INVALID),
    "an attribute for an argument": (changed(layers=[{**LINEAR, "build": 0}]), INVALID),
    "an infinite slope": (
        changed(layers=[{"type": "LeakyReLU", "negative_slope": 1e999}]),
        INVALID,
    ),
    "half a character": (changed(layers=[{"type": "\ud800"}]), INVALID),
    "two formats": (checkpoint('{"format": "cyconv network 1", "format": "x"}'), "its format must"),
    "a format of a megabyte": (changed(format="x" * 2**20), "its format must"),
    "no format at all": (checkpoint("{}"), INCOMPLETE),
    "a huge input without parameters": (
        without_parameters(FLATTEN, input_shape=[2**31, 2**30, 1]),
        INVALID,
    ),
    "many columns without parameters": (
        without_parameters({**IM2COL, "padding": 2**20}, input_shape=[2**10, 2**10, 1]),
        INVALID,
    ),
}
