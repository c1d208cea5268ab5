from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv.geometry import Padding, Pair, Rounding

def im2col(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
def col2im(
    cols: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    rounding: Rounding = "exact",
    *,
    winograd: bool = True,
) -> np.ndarray: ...
def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Pair = 1,
    padding: Padding = 0,
    need_dx: bool = True,
    dilation: Pair = 1,
    groups: int = 1,
    rounding: Rounding = "exact",
    *,
    winograd: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray, np.ndarray]: ...
def max_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
def avg_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
def avg_pool2d_backward(
    dy: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray: ...
