"""PNG, JPEG, BMP and PGM files, and others under their names."""

import struct
import zlib

from tests.hostile import MIB, deflated

OTHER, DAMAGED, LARGE, BLANK = (
    "not a complete PNG, JPEG, BMP or PGM file",
    "the picture is damaged",
    "more than 50,000,000 pixels",
    "nothing is drawn on it",
)
PFM = "this is a PFM file"


def chunk(kind, content, size=None):
    """Return a chunk of a PNG file; its checksum is true, its size not if another is given."""
    size = len(content) if size is None else size
    return struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks, depth=8, colour=0, interlace=0):
    """Return a PNG file of these chunks."""
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(size):
    """Return the zlib stream of so many zeros."""
    return b"\x78\xda" + deflated(b"", size) + struct.pack(">I", zlib.adler32(bytes(size)))


def pixels(size):
    """Return a chunk with so many bytes of pixels, all zero."""
    return chunk(b"IDAT", zeros(size))


def bmp(width, height, pixels, compression=0, header=40, colours=2, start=62):
    """Return a BMP file of one byte a pixel and two colours."""
    fields = header, width, height, 1, 8, compression, 0, 0, 0, colours, 0
    start = struct.pack("<2s3I", b"BM", start + len(pixels), 0, start)
    return start + struct.pack("<IiiHH6I", *fields) + bytes(8) + pixels


def grey_map(*extents, pixels=b""):
    return b"P5 " + b" ".join(b"%d" % extent for extent in extents) + b"\n" + pixels


SMALL = pixels(7 * 9)
BOMB = b"a\0\0" + zeros(64 * MIB)
FILES = {
    "empty": (b"", OTHER),
    "GIF": (b"GIF89a" + bytes(20), OTHER),
    "TIFF": (b"II*\0\x08\0\0\0" + bytes(9), OTHER),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(trap) (w) file", OTHER),
    "JPEG: 20,000 scans": (b"\xff\xd8" + 20_000 * b"\xff\xda\0\0", "a JPEG of more scans"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", OTHER),
    "PNG: 4e18 pixels": (png(2**31 - 1, 2**31 - 1, SMALL), LARGE),
    "PNG: no width": (png(0, 7, SMALL), OTHER),
    "PNG: no palette": (png(8, 7, SMALL, colour=3), BLANK),
    "PNG: no pixels": (png(8, 7), DAMAGED),
    "PNG: depth of 3": (png(8, 7, SMALL, depth=3), OTHER),
    "PNG: pixels of 2 GiB": (png(8, 7, chunk(b"IDAT", zeros(63), 2**31)), f"{BLANK}|more memory"),
    "PNG: text of 2 GiB": (png(8, 7, chunk(b"tEXt", b"a\0b", 2**31), SMALL), DAMAGED),
    "PNG: text that unzips": (png(8, 7, chunk(b"zTXt", BOMB), SMALL), BLANK),
    "PNG: profile that unzips": (png(8, 7, chunk(b"iCCP", BOMB), SMALL), BLANK),
    "PNG: more pixels than promised": (png(8, 7, pixels(64 * MIB)), BLANK),
    "PNG: 50,000 chunks": (png(8, 7, *[chunk(b"tEXt", b"a\0b")] * 50_000, SMALL), BLANK),
    "PNG: 200,000 empty chunks": (
        png(8, 7, *[chunk(b"tEXt", b"")] * 200_000, SMALL),
        "too many parts",
    ),
    "PNG: as large as may be": (png(10_000, 5_000, pixels(10_001 * 5_000)), BLANK),
    "PNG: larger": (png(10_000, 5_001, SMALL), LARGE),
    "JPEG: nothing but its mark": (b"\xff\xd8\xff\xe0\x00\x10JFIF\0", DAMAGED),
    "BMP: a negative width": (bmp(-8, 8, bytes(64)), LARGE),
    "BMP: a header of 2 GiB": (bmp(8, 8, bytes(64), header=2**31), DAMAGED),
    "BMP: 2**31 colours": (bmp(8, 8, bytes(64), colours=2**31), DAMAGED),
    "BMP: pixels at 2 GiB": (bmp(8, 8, bytes(64), start=2**31), DAMAGED),
    "BMP: runs that jump": (bmp(50_000_000, 1, b"\0\2\0\xff" * 9, 1), BLANK),
    "BMP: runs that end": (bmp(10_000_000, 1, b"\1\0\0\0", 1), BLANK),
    "PGM: negative extents": (grey_map(-5, -5, 255, pixels=bytes(25)), OTHER),
    "PGM: 1e20 pixels": (grey_map(10**10 - 1, 10**10 - 1, 255), LARGE),
    "PGM: 5,000 digits": (grey_map(10**3999, 1, 255), DAMAGED),
    "PGM: pixels that are not there": (grey_map(7_000, 7_000, 254), DAMAGED),
    "PGM: an endless comment": (b"P5 #" + bytes(MIB), DAMAGED),
    "PGM: a million comments": (b"P5 " + b"#\n" * MIB, DAMAGED),
    "PGM: an endless number": (b"P2 8 8 255 " + b"1" * MIB, DAMAGED),
    "PFM: no numbers": (b"Pf 6 6 -1.0\n" + struct.pack("<f", float("nan")) * 36, PFM),
    "PFM: infinities": (b"Pf 6 6 -1.0\n" + struct.pack("<2f", 1e999, -1e999) * 18, PFM),
}
