"""Files made to do harm, by format: name -> (content, what the refusal must say)."""

import zlib

MIB = 2**20


def deflated(start, size):
    """Return a start and so many zeros, compressed: one mebibyte of them, again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    # After a full flush nothing refers to what came before.
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + zeros * (size // MIB) + packer.compress(bytes(size % MIB)) + packer.flush()
