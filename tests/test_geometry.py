"""The output-size rule: tested by what it means, not by its formula."""

import itertools
import math
import re

import pytest

import cyconv
from cyconv.geometry import Geometry, pooling_window, resolve
from tests.reference import random_cases, same_pads


def places(size, kernel, stride, before, after, dilation=1):
    """Return where a kernel can stand on a padded axis, and whether the last touches the end."""
    end = before + size + after
    taps = range(0, kernel * dilation, dilation)
    starts = [start for start in range(0, end, stride) if start + taps[-1] < end]
    return starts, bool(starts) and starts[-1] + taps[-1] == end - 1


BOX = list(
    itertools.product(range(1, 8), range(1, 5), range(1, 5), range(4), range(4), range(1, 4))
)


def test_an_output_for_each_place_of_the_kernel_and_no_pixel_left_over():
    whole = 0
    for size, kernel, stride, before, after, dilation in BOX:
        starts, fits = places(size, kernel, stride, before, after, dilation)
        arguments = size, kernel, stride, (before, after), dilation
        if fits:
            assert cyconv.conv_output_size(*arguments) == len(starts), arguments
            whole += 1
        else:
            with pytest.raises(ValueError, match="conv_output_size: kernel"):
                cyconv.conv_output_size(*arguments)
    assert 1000 < whole < len(BOX)


def test_rounded_down_an_output_for_each_place_of_the_kernel():
    placed = 0
    for size, kernel, stride, before, after, dilation in BOX:
        starts, _ = places(size, kernel, stride, before, after, dilation)
        arguments = size, kernel, stride, (before, after), dilation, "floor"
        if starts:
            assert cyconv.conv_output_size(*arguments) == len(starts), arguments
            placed += 1
        else:
            with pytest.raises(ValueError, match="is larger than size"):
                cyconv.conv_output_size(*arguments)
    assert 3000 < placed < len(BOX)


def test_same_gives_an_output_for_every_stride_begun():
    box = itertools.product(range(1, 30), range(1, 8), range(1, 6), range(1, 4))
    for size, kernel, stride, dilation in box:
        outputs = math.ceil(size / stride)
        for rounding in ("exact", "floor"):
            arguments = size, kernel, stride, "same", dilation, rounding
            assert cyconv.conv_output_size(*arguments) == outputs
        pads = same_pads(size, (kernel - 1) * dilation + 1, stride)
        assert len(places(size, kernel, stride, *pads, dilation)[0]) == outputs


def test_a_dilated_kernel_is_a_larger_one_with_gaps():
    for size, kernel, stride, before, after, dilation in BOX:
        for rounding in ("exact", "floor"):
            try:
                wide = (kernel - 1) * dilation + 1
                expected = cyconv.conv_output_size(
                    size, wide, stride, (before, after), rounding=rounding
                )
            except ValueError:
                continue
            assert expected == cyconv.conv_output_size(
                size, kernel, stride, (before, after), dilation, rounding
            )


def test_forms_of_arguments_mean_what_they_say():
    for case in random_cases(1000, seed=1, varied=True):
        _, H, W, C = case.x_shape
        (top, bottom), (left, right) = case.pads
        expected = Geometry(
            *(H, W, C, *case.kernel, *case.outputs, *case.steps, top, left),
            *(*case.apart, bottom, right, C),
        )
        geometry = resolve(
            (H, W, C), case.kernel, case.stride, case.padding, "test", case.dilation, case.rounding
        )
        assert geometry == expected, case
        assert geometry.groups == 1


def test_same_leaves_pixels_in_every_window_of_a_pooling():
    assert pooling_window(2, None, "same", "test") == ((2, 2), (2, 2), "same")


def test_one_pixel_is_its_own_window():
    pixel = Geometry.pixel(7)
    assert (pixel.C, pixel.pitch, pixel.taps, pixel.groups) == (7, 7, 7, 1)
    assert {pixel.H, pixel.W, pixel.KH, pixel.KW, pixel.OH, pixel.OW, *pixel[7:9]} == {1}


def test_lists_mean_what_tuples_mean():
    for padding in (1, [1, 1], [[1, 1], [1, 1]], [(1, 1), [1, 1]]):
        assert resolve((6, 6, 2), [3, 3], [1, 1], padding, "test") == resolve(
            (6, 6, 2), 3, 1, ((1, 1), (1, 1)), "test"
        )


def test_the_course_s_network():
    sizes = [28]
    for kernel, stride in ((8, 2), (6, 1), (4, 1), (3, 1)):
        sizes.append(cyconv.conv_output_size(sizes[-1], kernel, stride, 0))
    assert sizes == [28, 11, 6, 3, 1]


TEXTS = [
    (
        lambda: resolve((28, 28, 1), 3, 2, 1, "conv2d"),
        "conv2d: kernel 3, stride 2, padding 1 on height 28 leaves 14.5 output rows; "
        'use padding=((1, 0), (1, 0)), padding="same" or rounding="floor"',
    ),
    (
        lambda: resolve((27, 28, 1), 3, 2, 1, "im2col"),
        "im2col: kernel 3, stride 2, padding 1 on width 28 leaves 14.5 output columns; "
        'use padding=((1, 1), (1, 0)), padding="same" or rounding="floor"',
    ),
    (
        lambda: resolve((28, 28, 1), 3, 2, "valid", "conv2d"),
        "conv2d: kernel 3, stride 2, padding 0 on height 28 leaves 13.5 output rows; "
        'use padding=((0, 1), (0, 1)), padding="same" or rounding="floor"',
    ),
    (
        lambda: cyconv.conv_output_size(28, 3, 3, (2, 1)),
        "conv_output_size: kernel 3, stride 3, padding (2, 1) on size 28 leaves 10.3333 output "
        'elements; use padding=(2, 0), padding="same" or rounding="floor"',
    ),
    (
        lambda: resolve((5, 5, 1), 9, 1, 1, "Conv2D '3'"),
        "Conv2D '3': kernel 9 is larger than height 5 padded by 1 + 1; "
        "use a kernel of at most 7 or more padding",
    ),
    (
        lambda: resolve((28, 27, 1), (3, 2), 2, 1, "conv2d", (2, 3)),
        "conv2d: kernel 3 with dilation 2, stride 2, padding 1 on height 28 leaves 13.5 output "
        'rows; use padding=((1, 0), (1, 0)), padding="same" or rounding="floor"',
    ),
    (
        lambda: resolve((5, 5, 1), 4, 1, 1, "conv2d", 3),
        "conv2d: kernel 4 with dilation 3 is larger than height 5 padded by 1 + 1; "
        "use a kernel of at most 3 or more padding",
    ),
    (
        lambda: resolve((5, 5, 1), 1, 1, 0, "im2col", (1, 0)),
        "im2col: dilation[1] must be at least 1, got 0",
    ),
    (
        lambda: resolve((5, 5, 1), 1, 1, 0, "im2col", 1, "ceil"),
        'im2col: rounding must be "exact" or "floor", got \'ceil\'',
    ),
    (
        lambda: pooling_window(2, None, (1, 2), "max_pool2d"),
        "max_pool2d: padding must be smaller than kernel_size 2, so that every window holds a "
        "pixel, got (1, 2)",
    ),
]


@pytest.mark.parametrize(("call", "text"), TEXTS)
def test_errors_say_what_to_do(call, text):
    who = text.split(":")[0]
    with pytest.raises(ValueError, match=who) as error:
        call()
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [("dilation", True), ("dilation", 1.0), ("dilation", "1"), ("dilation", (1, None))]
    + [("rounding", value) for value in (None, True, 1, b"floor", ["floor"])],
)
def test_arguments_of_a_wrong_kind_are_refused(name, value):
    with pytest.raises(TypeError, match=rf"^test: {name}(\[1\])? must be"):
        resolve((5, 5, 1), 1, 1, 0, "test", **{name: value})
    if value != (1, None):
        with pytest.raises(TypeError, match=f"^conv_output_size: {name} must be"):
            cyconv.conv_output_size(5, 1, **{name: value})


@pytest.mark.parametrize("size", (2**62, 2**70))
def test_sizes_beyond_64_bits_are_refused(size):
    with pytest.raises(OverflowError, match="must be at most"):
        cyconv.conv_output_size(5, 3, dilation=size)
    with pytest.raises(OverflowError, match="must be at most"):
        resolve((5, 5, 1), 3, 1, "same", "test", size)


def test_the_padding_that_an_error_suggests_is_one_that_works():
    for size, kernel, stride, before, after, dilation in BOX:
        starts, fits = places(size, kernel, stride, before, after, dilation)
        if starts and not fits:
            with pytest.raises(ValueError, match="use padding") as error:
                cyconv.conv_output_size(size, kernel, stride, (before, after), dilation)
            numbers = re.search(r"use padding=\((\d+), (\d+)\)", str(error.value))
            suggested = tuple(map(int, numbers.groups()))
            assert cyconv.conv_output_size(size, kernel, stride, suggested, dilation) >= 1
