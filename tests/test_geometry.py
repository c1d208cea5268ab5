"""The output-size rule: tested by what it means, not by its formula."""

import itertools
import math
import re

import pytest

import cyconv
from cyconv.geometry import Geometry, resolve
from tests.reference import random_cases, same_pads


def places(size, kernel, stride, before, after):
    """Return where a kernel can stand on a padded axis, and whether the last touches the end."""
    end = before + size + after
    starts = [start for start in range(0, end, stride) if start + kernel <= end]
    return starts, bool(starts) and starts[-1] + kernel == end


BOX = list(itertools.product(range(1, 8), range(1, 6), range(1, 5), range(4), range(4)))


def test_an_output_for_each_place_of_the_kernel_and_no_pixel_left_over():
    whole = 0
    for size, kernel, stride, before, after in BOX:
        starts, fits = places(size, kernel, stride, before, after)
        if fits:
            outputs = cyconv.conv_output_size(size, kernel, stride, (before, after))
            assert outputs == len(starts), (size, kernel, stride, before, after)
            whole += 1
        else:
            with pytest.raises(ValueError, match="conv_output_size: kernel"):
                cyconv.conv_output_size(size, kernel, stride, (before, after))
    assert 1000 < whole < len(BOX)


def test_same_gives_an_output_for_every_stride_begun():
    for size, kernel, stride in itertools.product(range(1, 30), range(1, 8), range(1, 6)):
        assert cyconv.conv_output_size(size, kernel, stride, "same") == math.ceil(size / stride)
        starts, _ = places(size, kernel, stride, *same_pads(size, kernel, stride))
        assert len(starts) == math.ceil(size / stride)


def test_forms_of_padding_mean_what_they_say():
    for case in random_cases(500, seed=1):
        _, H, W, C = case.x_shape
        expected = Geometry(
            H, W, C, *case.kernel, *case.outputs, *case.steps, case.pads[0][0], case.pads[1][0]
        )
        assert resolve((H, W, C), case.kernel, case.stride, case.padding, "test") == expected, case


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
        'use padding=((1, 0), (1, 0)) or "same"',
    ),
    (
        lambda: resolve((27, 28, 1), 3, 2, 1, "im2col"),
        "im2col: kernel 3, stride 2, padding 1 on width 28 leaves 14.5 output columns; "
        'use padding=((1, 1), (1, 0)) or "same"',
    ),
    (
        lambda: resolve((28, 28, 1), 3, 2, "valid", "conv2d"),
        "conv2d: kernel 3, stride 2, padding 0 on height 28 leaves 13.5 output rows; "
        'use padding=((0, 1), (0, 1)) or "same"',
    ),
    (
        lambda: cyconv.conv_output_size(28, 3, 3, (2, 1)),
        "conv_output_size: kernel 3, stride 3, padding (2, 1) on size 28 leaves 10.3333 output "
        'elements; use padding=(2, 0) or "same"',
    ),
    (
        lambda: resolve((5, 5, 1), 9, 1, 1, "Conv2D '3'"),
        "Conv2D '3': kernel 9 is larger than height 5 padded by 1 + 1; "
        "use a kernel of at most 7 or more padding",
    ),
]


@pytest.mark.parametrize(("call", "text"), TEXTS)
def test_errors_say_what_to_do(call, text):
    who = text.split(":")[0]
    with pytest.raises(ValueError, match=who) as error:
        call()
    assert str(error.value) == text


def test_the_padding_that_an_error_suggests_is_one_that_works():
    for size, kernel, stride, before, after in BOX:
        starts, fits = places(size, kernel, stride, before, after)
        if starts and not fits:
            with pytest.raises(ValueError, match="use padding") as error:
                cyconv.conv_output_size(size, kernel, stride, (before, after))
            numbers = re.search(r"use padding=\((\d+), (\d+)\)", str(error.value))
            suggested = tuple(map(int, numbers.groups()))
            assert cyconv.conv_output_size(size, kernel, stride, suggested) >= 1
