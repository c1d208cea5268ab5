"""Files with a call in them, for a reader that would make it, or with another file's name."""

import gzip
import io
import os
import pickle

import numpy as np


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(path):
    """Return files by name that make a folder, if they are believed."""
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    files = {f"protocol {protocol}": pickle.dumps(Trap(path), protocol) for protocol in protocols}
    array = np.array([Trap(path)], object)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, array, allow_pickle=True)
    np.savez(npz, images=array, labels=array)
    zipped = gzip.compress(files["protocol 2"])
    return {**files, "gzip": zipped, "npy": npy.getvalue(), "npz": npz.getvalue()}


def onnx_elsewhere(name):
    """Return an ONNX model, the weights of which are in a file of the same folder."""

    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    place = field(13, field(1, b"location") + field(2, name.encode()))
    weights = b"\x08\x04\x10\x01" + field(8, b"w") + place + b"\x70\x01"  # of 4 floats, elsewhere
    node = field(1, b"w") + field(2, b"y") + field(4, b"Identity")
    output = field(1, b"y") + field(2, b"\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x04")
    graph = field(1, node) + field(2, b"g") + field(5, weights) + field(12, output)
    return b"\x08\x0e" + field(7, graph) + field(8, b"\x10\x1c")
