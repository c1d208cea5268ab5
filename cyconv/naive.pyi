from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray[Any, Any]

def im2col(x: ArrayLike, kernel_size: Any, stride: Any = 1, padding: Any = 0) -> Array: ...
def col2im(
    cols: ArrayLike, input_shape: Any, kernel_size: Any, stride: Any = 1, padding: Any = 0
) -> Array: ...
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
) -> Array: ...
def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    need_dx: bool = True,
) -> tuple[Array | None, Array, Array]: ...
