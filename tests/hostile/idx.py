"""IDX files and gzip files of them."""

import struct
import zlib

from tests.hostile import MIB, deflated

GOOD = struct.pack(">4I", 2051, 2, 3, 4) + bytes(24)


def header(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def zipped(content, flags=0, extra=b""):
    """Return a gzip file with flags in its header, and what they announce."""
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(content) + packer.flush()
    return b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + extra + body + checks(content)


def checks(content):
    """Return what comes behind a content in a gzip file."""
    return struct.pack("<II", zlib.crc32(content), len(content))


def zeros(start, mebibytes):
    """Return the gzip file of a start and so many zeros: a thousandth of their size."""
    content = start + bytes(mebibytes * MIB)
    return b"\x1f\x8b\x08" + bytes(7) + deflated(start, mebibytes * MIB) + checks(content)


FILES = {
    "empty": (b"", "begins with the number 2051"),
    "floats": (header(0x0D03, 2, 3, 4) + bytes(96), "begins with the number 2051"),
    "four extents": (header(2052, 2, 3, 4, 1) + bytes(24), "begins with the number 2051"),
    "little-endian": (struct.pack("<4I", 2051, 2, 3, 4) + bytes(24), "begins with the number 2051"),
    "no header": (header(2051, 2, 3), "the header takes 16 bytes"),
    "product of 2**64": (header(2051, 2**31, 2**31, 4), "at most 2147483648"),
    "product of 2**64 + 24": (header(2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "at most 2147483648"),
    "one byte too many": (header(2049, 2**31 + 1), "at most 2147483648"),
    "a promise of 2 GiB": (header(2049, 2**31) + bytes(24), "only 32"),
    "a minus": (header(2051, 2**32 - 2, 3, 4) + bytes(24), "at most 2147483648"),
    "an empty axis": (header(2051, 2, 0, 2**31), "at least 1"),
    "gzip of nothing": (zipped(b""), "begins with the number 2051"),
    "gzip of gzip": (zipped(zipped(GOOD)), "begins with the number 2051"),
    "a member too many": (zipped(GOOD) + zipped(b"\0"), "holds more"),
    "a member that is cut": (zipped(GOOD) + zipped(b"")[:-1], "end before their checksum"),
    "70,000 members": (zipped(b"") * 70_000 + zipped(GOOD), "more than 65536 members"),
    "padding and more": (zipped(GOOD) + bytes(512) + b"\x1f", "other bytes follow"),
    "endless padding": (zipped(GOOD) + bytes(17 * MIB), "other bytes follow"),
    "another checksum": (zipped(GOOD)[:-8] + bytes(8), "data are damaged"),
    "another length": (zipped(GOOD)[:-4] + bytes(4), "data are damaged"),
    "a name without an end": (zipped(GOOD, 8, b"a" * MIB)[: 10 + MIB], "end before their checksum"),
    "a field of 64 KiB": (zipped(GOOD, 4, b"\xff\xff" + bytes(999)), "end before their checksum"),
    "reserved flags": (zipped(GOOD, 0xE0), "data are damaged"),
    "another method": (b"\x1f\x8b\x07" + zipped(GOOD)[3:], "data are damaged"),
    "a window beyond the start": (b"\x1f\x8b\x08" + bytes(7) + b"\x4b\x04\x41\x00", "damaged"),
    "zlib": (zlib.compress(GOOD), "begins with the number 2051"),
    "zip": (b"PK\x03\x04" + bytes(30) + GOOD, "begins with the number 2051"),
    "a bomb of zeros": (zeros(b"", 64), "begins with the number 2051"),
    "a bomb behind the data": (zeros(GOOD, 64), "holds more"),
    "a bomb behind a label": (zeros(header(2049, 1), 64), "holds more"),
    "a bomb that promises 2 GiB": (zeros(header(2049, 2**31), 32), f"only {8 + 32 * MIB}"),
}
