"""Pictures of a digit: the same digit in any format, on any ground, or an error that helps."""

import io
import math
import random
import struct
import sys
import zlib

import numpy as np
import pytest

import cyconv
from cyconv import Adam, DataFormatError, images, presets
from cyconv.images import read_digit, read_drawing

pytest.importorskip("PIL", reason="needs the extra image")
from PIL import Image, ImageDraw, ImageFilter, ImageOps


def arc(x, y, width, height, first, last):
    """Return points of an ellipse about (x, y), between two angles in degrees."""
    angles = (math.radians(first + (last - first) * step / 24) for step in range(25))
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


# The strokes of each digit, as a hand draws them: points with y from 0 to 1, downward.
STROKES = [
    [arc(0.3, 0.5, 0.3, 0.5, -90, 270)],
    [[(0.12, 0.2), (0.32, 0), (0.28, 1)]],
    [[*arc(0.3, 0.27, 0.28, 0.27, 190, 375), (0.02, 0.98), (0.62, 0.96)]],
    [[*arc(0.28, 0.25, 0.27, 0.25, 200, 440), *arc(0.28, 0.73, 0.32, 0.27, -80, 150)]],
    [[(0.35, 0), (0, 0.62), (0.62, 0.58)], [(0.5, 0.3), (0.44, 1)]],
    [
        [(0.1, 0.02), (0.06, 0.45), *arc(0.26, 0.69, 0.32, 0.3, -110, 140)],
        [(0.1, 0.02), (0.56, 0)],
    ],
    [[(0.44, 0), *arc(0.35, 0.65, 0.33, 0.6, -110, -180), *arc(0.3, 0.72, 0.28, 0.28, 180, -170)]],
    [[(0, 0.05), (0.58, 0.02), (0.2, 1)]],
    [
        [
            *arc(0.3, 0.25, 0.25, 0.25, -60, -270),
            *arc(0.3, 0.75, 0.3, 0.25, -90, 270),
            *arc(0.3, 0.25, 0.25, 0.25, 90, -60),
        ]
    ],
    [[*arc(0.3, 0.28, 0.27, 0.28, -20, -370), (0.5, 1)]],
]


def drawn(digit, pen=12, ink=0, paper=255, size=(240, 300), corner=(60, 70), height=160):
    """Return a grey picture of a digit, drawn in strokes as wide as the pen."""
    picture = Image.new("L", size, paper)
    pencil = ImageDraw.Draw(picture)
    for stroke in STROKES[digit]:
        points = [(corner[0] + height * x, corner[1] + height * y) for x, y in stroke]
        pencil.line(points, ink, pen, joint="curve")
        for x, y in (points[0], points[-1]):
            pencil.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), ink)
    return picture


FIVE = drawn(5)
GREY = np.asarray(FIVE)


@pytest.fixture
def read(tmp_path):
    """Return f(picture, format, options of its encoder), which saves a picture and reads it."""

    def save_and_read(picture, kind="PNG", **options):
        picture.save(tmp_path / "digit", kind, **options)
        return read_digit(tmp_path / "digit")

    return save_and_read


def assert_alike(image, other):
    """Check that two images are equal but for some grey levels on the edges of strokes."""
    assert image.shape == other.shape == (28, 28) and image.dtype == other.dtype == np.uint8
    assert abs(image.astype(int) - other).mean() < 3  # 31 is the mean of MNIST


def test_a_digit_is_framed_as_in_mnist(read):
    for digit in range(10):
        for pen in (16, 26):  # two and three of twenty pixels
            image = read(drawn(digit, pen))
            rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
            assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)  # 21: between two pixels
            for axis in (0, 1):
                mass = image.sum(axis=1 - axis)
                assert abs(mass @ np.arange(28) / mass.sum() - 13.5) < 0.05
            assert image.max() == 255
            assert not image[[0, -1]].any() and not image[:, [0, -1]].any()


def test_an_image_of_mnist_stays_as_it_is(read, mnist):
    x, _ = mnist[1]
    differences = [abs(read(Image.fromarray(image)).astype(int) - image).mean() for image in x[:50]]
    assert np.mean(differences) < x.mean() / 2  # most of it from moves by less than a pixel


def test_place_size_and_grey_levels_do_not_matter(read):
    expected = read(FIVE)
    assert_alike(read(drawn(5, 12, 255, 0)), expected)
    assert_alike(read(drawn(5, 12, 90, 140)), expected)
    assert_alike(read(drawn(5, 12, 140, 90)), expected)
    assert_alike(read(drawn(5, 12, size=(300, 250), corner=(180, 20))), expected)
    assert_alike(read(drawn(5, 96, size=(1500, 2000), corner=(150, 300), height=1280)), expected)
    assert_alike(read(FIVE.resize((80, 100), Image.Resampling.BOX)), expected)


def palette():
    """Return a picture whose indices are the opposite of its grey levels."""
    picture = Image.fromarray((GREY < 128).astype(np.uint8))
    picture.putpalette([255, 250, 200, 0, 0, 90])
    return picture


def transparent(colour):
    """Return a picture that has its digit in the opacity only."""
    picture = Image.new("RGBA", FIVE.size, colour)
    picture.putalpha(Image.fromarray(255 - GREY))
    return picture


def card(ink, paper):
    """Return a picture on a card with round corners and a transparent margin."""
    picture, mask = drawn(5, 12, ink, paper).convert("RGBA"), Image.new("L", FIVE.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((25, 25, 214, 274), 50, 255)
    picture.putalpha(mask)
    return picture


SIXTEEN = GREY.astype(np.uint16) * 257
PICTURES = {
    "PNG of 1 bit": (lambda: FIVE.convert("1"), "PNG", {}),
    "PNG of 16 bits": (lambda: Image.fromarray(SIXTEEN), "PNG", {}),
    "PNG of 16 bits, faint": (lambda: Image.fromarray(SIXTEEN // 8 + 40_000), "PNG", {}),
    "PNG in colour": (lambda: FIVE.convert("RGB"), "PNG", {}),
    "PNG with a palette": (palette, "PNG", {}),
    "PNG with a transparent colour": (palette, "PNG", {"transparency": 0}),
    "PNG with a transparent grey": (lambda: FIVE, "PNG", {"transparency": 255}),
    "PNG, black on transparent": (lambda: transparent((0, 0, 0, 0)), "PNG", {}),
    "PNG, white on transparent": (lambda: transparent((255, 255, 255, 0)), "PNG", {}),
    "PNG, a dark card": (lambda: card(255, 140), "PNG", {}),
    "PNG, a light card": (lambda: card(0, 225), "PNG", {}),
    "JPEG": (lambda: FIVE, "JPEG", {}),
    "JPEG in colour": (lambda: FIVE.convert("RGB"), "JPEG", {"progressive": True}),
    "JPEG for print": (lambda: FIVE.convert("CMYK"), "JPEG", {}),
    "BMP": (lambda: FIVE, "BMP", {}),
    "BMP in colour": (lambda: FIVE.convert("RGB"), "BMP", {}),
    "BMP with a palette": (palette, "BMP", {}),
    "PBM": (lambda: FIVE.convert("1"), "PPM", {}),
    "PGM": (lambda: FIVE, "PPM", {}),
    "PGM of 16 bits": (lambda: Image.fromarray(SIXTEEN.astype(np.int32)), "PPM", {}),
    "PPM": (lambda: FIVE.convert("RGB"), "PPM", {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_format_gives_the_same_image(name, read):
    picture, kind, options = PICTURES[name]
    assert_alike(read(picture(), kind, **options), read(FIVE))


@pytest.mark.parametrize("kind", ("PNG", "JPEG"))
def test_the_orientation_that_a_camera_notes_is_obeyed(kind, read):
    turns = Image.Transpose
    for tag, turn in ((3, turns.ROTATE_180), (6, turns.ROTATE_90), (8, turns.ROTATE_270)):
        exif = Image.Exif()
        exif[0x0112] = tag
        assert_alike(read(FIVE.transpose(turn), kind, exif=exif), read(FIVE))


def photograph(digit, seed=0):
    """Return a digit in pencil on paper half in shade, on a dark desk, with noise."""
    rng = np.random.default_rng(seed)
    ink = 1 - np.asarray(drawn(digit, size=(640, 480), corner=(250, 150))) / 255
    y, x = np.mgrid[:480, :640]
    light = 210 - 0.1 * x - 0.1 * y
    light *= 1 - 0.3 / (1 + np.exp((x + 0.4 * y - 400) / 15))  # the edge of a shadow
    scene = np.where(x + y > 880, 45, light * (1 - 0.5 * ink))
    noisy = scene + rng.normal(0, 6, scene.shape)
    picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(1))


NOTES = {  # a chunk's name, its content, and what its CRC differs by
    "a profile that unzips": (b"iCCP", b"p\0\0" + zlib.compress(bytes(2**21)), 0),
    "a text that unzips": (b"zTXt", b"t\0\0" + zlib.compress(bytes(2**21)), 0),
    "a text of another CRC": (b"tEXt", b"a\0b", 1),
    "EXIF that ends too soon": (b"eXIf", b"\0\x08\0\2\1\x12\0\3", 0),
    "EXIF of another CRC": (b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0", 1),
    "a size without a unit": (b"pHYs", b"", 0),
    "an unknown one": (b"noTe", b"", 7),
}


@pytest.mark.parametrize("name", NOTES)
def test_no_note_that_no_pixel_needs_prevents_reading(name, read, tmp_path):
    expected = read(FIVE)
    data = (tmp_path / "digit").read_bytes()
    kind, content, change = NOTES[name]
    crc = zlib.crc32(kind + content) ^ change
    note = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
    for place in (33, len(data) - 12):  # behind the header, and before the end
        (tmp_path / "digit").write_bytes(data[:place] + note + data[place:])
        np.testing.assert_array_equal(read_digit(tmp_path / "digit"), expected)


@pytest.mark.parametrize(
    "content", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"ICC_PROFILE\0"]
)
def test_no_damaged_note_of_a_jpeg_prevents_reading(content, read, tmp_path):
    expected = read(FIVE, "JPEG")
    data = (tmp_path / "digit").read_bytes()
    marker = b"\xff\xe2" if content[:1] == b"I" else b"\xff\xe1"
    note = marker + struct.pack(">H", len(content) + 2) + content
    (tmp_path / "digit").write_bytes(data[:2] + note + data[2:])
    np.testing.assert_array_equal(read_digit(tmp_path / "digit"), expected)


def test_transparency_and_palette_are_notes_that_pixels_need(read):
    colours = Image.fromarray(np.where(GREY < 128, 0, 1).astype(np.uint8), "P")
    colours.putpalette([90, 90, 90, 90, 90, 90])
    assert_alike(read(colours, transparency=1), read(FIVE))


@pytest.mark.parametrize("digit", range(10))
def test_a_photograph_of_paper_gives_the_digit_alone(digit, read):
    clean = read(drawn(digit)).astype(int)
    difference = abs(read(photograph(digit), "JPEG", quality=80) - clean).mean()
    assert difference < clean.mean() / 3  # to another digit, it is 0.68 and more


def test_specks_and_a_dark_border_are_left_out(read):
    picture = drawn(5)
    pencil = ImageDraw.Draw(picture)
    pencil.rectangle((0, 0, 239, 6), 20)
    pencil.line((232, 0, 239, 299), 20, 5)
    for x, y in ((20, 270), (220, 40), (30, 30)):
        pencil.ellipse((x, y, x + 4, y + 4), 0)
    assert_alike(read(picture), read(FIVE))


@pytest.mark.parametrize(
    "border", [1, 2, 5, 10, (3, 8, 1, 20), (6, 0, 0, 0), (0, 12, 9, 0)], ids=str
)
@pytest.mark.parametrize("grey", (0, 60, 110))
def test_a_frame_is_left_out(border, grey, read):
    for pixels, frame in ((GREY, grey), (255 - GREY, 255 - grey)):
        picture = Image.fromarray(pixels)
        assert_alike(read(ImageOps.expand(picture, border, frame)), read(picture))
        soft = ImageOps.expand(picture, border, frame).filter(ImageFilter.GaussianBlur(1.5))
        assert_alike(
            read(soft, "JPEG"), read(picture.filter(ImageFilter.GaussianBlur(1.5)), "JPEG")
        )


@pytest.mark.parametrize("angle", (-8, 1.5, 5))
def test_a_frame_that_is_not_upright_is_left_out(angle, read):
    framed = ImageOps.expand(Image.fromarray(GREY), 10, 0).rotate(
        angle, Image.Resampling.BICUBIC, True
    )
    white = FIVE.rotate(angle, Image.Resampling.BICUBIC, True, fillcolor=255)
    assert_alike(read(framed), read(white))


@pytest.mark.parametrize("pen", (12, 26))
@pytest.mark.parametrize("digit", range(10))
def test_a_picture_may_end_where_its_digit_does(digit, pen, read):
    picture = drawn(digit, pen)
    crop = picture.crop(ImageOps.invert(picture).getbbox())
    small = crop.resize((crop.width // 6, crop.height // 6), Image.Resampling.BOX)
    expected = read(picture)
    for invert in (lambda each: each, ImageOps.invert):
        assert_alike(read(invert(crop)), expected)
        difference = abs(read(invert(small)).astype(int) - expected).mean()
        assert difference < expected.mean() / 3  # to another digit, it is 0.68 and more


def test_ink_may_fill_most_of_a_picture(read, mnist):
    differences = []
    for image in mnist[1][0][:200]:
        ink, whole = Image.fromarray(image), read(Image.fromarray(image)).astype(int)
        for picture in (ink.crop(ink.getbbox()), ImageOps.invert(ink.crop(ink.getbbox()))):
            differences.append(abs(read(picture) - whole).mean() / whole.mean())
    assert np.mean(np.array(differences) < 0.2) >= 0.98


def test_a_speck_in_a_loop_is_left_out(read):
    picture = drawn(0)
    ImageDraw.Draw(picture).ellipse((104, 146, 110, 152), 0)
    assert read(drawn(0))[12:16].any() and not read(picture)[12:16, 12:16].any()


def test_a_digit_that_reaches_the_border_is_read(read):
    tight = FIVE.crop((64, 64, 165, 236))
    assert tight.getextrema() == (0, 255) and np.asarray(tight)[:, [0, -1]].min() == 0
    assert_alike(read(tight), read(FIVE))


def beside(*digits, gap=40):
    """Return a picture of digits side by side, of different heights."""
    inks = [ImageOps.invert(drawn(digit)) for digit in digits]
    inks = [ink.crop(ink.getbbox()).resize((70, 150 - 50 * (i % 2))) for i, ink in enumerate(inks)]
    row = Image.new("L", (40 + (70 + gap) * len(inks), 200), 0)
    for i, ink in enumerate(inks):
        row.paste(ink, (40 + (70 + gap) * i, 25 + 5 * i))
    return ImageOps.invert(row)


@pytest.mark.parametrize("gap", (10, 40, 150))
@pytest.mark.parametrize("first", range(10))
def test_digits_side_by_side_are_several(first, gap, tmp_path):
    for digits in ((first, (first + 3) % 10), (first, 1, (first + 5) % 10)):
        picture = beside(*digits, gap=gap)
        for each in (picture, ImageOps.invert(picture)):
            each.save(tmp_path / "digits.png")
            image, several = read_drawing(tmp_path / "digits.png")
            assert several
            np.testing.assert_array_equal(image, read_digit(tmp_path / "digits.png"))


def broken():
    """Yield pictures of one digit in parts: a loose bar, and strokes that do not meet."""
    for x, y, right in ((120, 65, 200), (140, 40, 220), (150, 90, 230)):
        five = Image.new("L", (300, 300), 255)
        pencil = ImageDraw.Draw(five)
        pencil.line([(110, 80), (105, 140), *arc(130, 180, 50, 45, -100, 140)], 0, 12)
        pencil.line([(x, y), (right, y - 5)], 0, 12)
        yield five
    for gap in (0, 5):
        four = Image.new("L", (300, 300), 255)
        pencil = ImageDraw.Draw(four)
        pencil.line([(130, 60), (80, 160), (170 - gap, 155)], 0, 12)
        pencil.line([(180 + gap, 100), (165 + gap, 250)], 0, 12)
        yield four


def test_one_digit_is_not_several(tmp_path):
    path = tmp_path / "digit.png"
    pictures = [drawn(digit, pen) for digit in range(10) for pen in (4, 12, 26)]
    for picture in (*pictures, *map(photograph, range(10)), *broken()):
        picture.save(path)
        assert not read_drawing(path)[1]


def test_digits_of_mnist_are_not_several(tmp_path, mnist):
    found = 0
    for image in mnist[1][0][:2000]:
        Image.fromarray(image).save(tmp_path / "digit.bmp")
        found += read_drawing(tmp_path / "digit.bmp")[1]
    assert found < 20


def png(width, height):
    """Return the beginning of a PNG file that promises a picture of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum
    return start + struct.pack(">I", 2**31 - 1) + b"IDAT"


def encoded(picture, kind):
    """Return the content of a file."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow warns of such a size before we refuse it
@pytest.mark.parametrize("size", ((50_001, 1000), (9_000, 9_000), (2**31 - 1, 2**31 - 1)))
def test_a_huge_picture_is_refused_before_it_is_decoded(size, tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png(*size))
    with pytest.raises(DataFormatError, match=r"huge\.png: .* more than 50,000,000 pixels; make"):
        read_digit(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not a complete PNG, JPEG, BMP or PGM file; save"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not a complete PNG, JPEG, BMP or PGM file; save"),
        (encoded(FIVE, "GIF"), "not a complete PNG, JPEG, BMP or PGM file; save"),
        (png(100, 100)[:33], "not a complete PNG, JPEG, BMP or PGM file; save"),
        (png(100, 100), "damaged"),
        (b"P5 20 20 255\n" + bytes(399), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(content, text, tmp_path):
    path = tmp_path / "other.png"
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=rf"other\.png: .*{text}"):
        read_digit(path)


def test_a_picture_that_takes_too_much_memory_is_refused(read, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(DataFormatError, match=r"digit: .* more memory than there is"):
        read(FIVE)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(DataFormatError, match="this is a folder"):
        read_digit(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_digit(tmp_path / "none.png")


def speck():
    picture = Image.new("L", (100, 80), 255)
    ImageDraw.Draw(picture).ellipse((60, 30, 62, 33), 0)
    return picture


def noise(sigma, size=(200, 200)):
    grey = np.random.default_rng(0).normal(200, sigma, size)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (100, 80), 255),
        Image.new("L", (1, 1), 0),
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)),
        Image.new("RGBA", (50, 50), (0, 0, 0, 255)),
        Image.linear_gradient("L"),
        speck(),
        noise(5),
        noise(10, (900, 900)),
    ],
    ids=("white", "one pixel", "transparent", "opaque", "gradient", "speck", "noise", "more noise"),
)
def test_an_empty_picture_is_refused(picture, read):
    with pytest.raises(DataFormatError, match="digit: nothing is drawn on it"):
        read(picture)


@pytest.mark.parametrize("kind", ("PNG", "JPEG", "BMP", "PPM"))
def test_a_damaged_picture_is_an_image_or_a_data_format_error(kind, tmp_path):
    path, rng, refused = tmp_path / "digit", random.Random(0), 0
    drawn(5, 5, size=(60, 70), corner=(10, 10), height=48).save(path, kind)
    data = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(data[: rng.choice((len(data), rng.randrange(len(data))))])
        for _ in range(rng.randrange(4) if damaged else 0):
            place = rng.randrange(min(len(damaged), rng.choice((60, 9999))))
            damaged[place] ^= rng.randrange(256)
        path.write_bytes(damaged)
        try:
            assert read_digit(path).shape == (28, 28)
        except DataFormatError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_without_pillow_the_command_that_installs_it_is_named(monkeypatch, tmp_path):
    FIVE.save(tmp_path / "digit", "PNG")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"read_digit: needs PIL .*'cyconv\[image\]'"):
        read_digit(tmp_path / "digit")


def test_drawn_digits_are_recognised(read, mnist):
    (x, labels), _ = mnist
    cyconv.set_num_threads(2)
    network = presets.wide()
    network.fit(x[:10_000], labels[:10_000], epochs=1, optimizer=Adam(1e-3))
    pictures = [
        read(drawn(digit, pen, ink, 255 - ink, (400, 300), (210, 40), 200))
        for pen in (3, 30)
        for ink in (0, 255)
        for digit in range(10)
    ]
    right = network.predict(np.array(pictures)) == np.tile(np.arange(10), 4)
    assert right.sum() >= 36
    photographs = np.array([read(photograph(digit), "JPEG") for digit in range(10)])
    assert (network.predict(photographs) == np.arange(10)).sum() >= 9


def test_the_limit_is_below_that_at_which_pillow_warns():
    assert images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS
