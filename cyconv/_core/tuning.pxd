"""The sizes that the kernels were tuned to, each with its reason; cyconv/tuning.py has the others.

The products follow Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication",
and Van Zee & van de Geijn 2015, "BLIS: a framework for rapidly instantiating BLAS functionality": a
tile of the result stays in registers, a panel of the right-hand matrix in the first-level cache.
Convolution without columns follows Georganas et al. 2018, "Anatomy of high-performance deep
learning convolutions on SIMD architectures". A script that is named measures layers or steps as a
whole, with the number as it is: change it here, build, and compare.
"""

cdef enum:
    # Register tiles (bench/roofline.py). The row of a full tile has ROW_VECTORS vectors
    # (vectors.pxd: 4 with AVX-512, 2 with AVX2). Six rows, a row of the right-hand matrix and one
    # broadcast element take 24 + 4 + 1 of 32 registers, or 12 + 2 + 1 of 16.
    TILE_ROWS = 6
    # A narrow tile's row has fewer vectors, two or one, so that twice as many rows fit.
    NARROW_VECTORS = 2
    NARROW_TILE_ROWS = 12
    # If its rows are pixels, each needs a pointer, and there are 16 general registers.
    NARROW_TILE_PIXELS = 8
    # Taps of a window that a turn of the innermost loop takes: with one, moving the pointers to the
    # pixels takes as long as the products (bench/layers.py).
    TAPS = 4
    # The rows that are left over go through tiles of these heights, the last one through one of 1.
    FOUR_ROWS = 4
    TWO_ROWS = 2

    # Steps of a sum at a time: the panel's rows of the right-hand matrix, 128 of 64 floats at most,
    # fill a first-level cache of 32 KiB (bench/roofline.py).
    DEPTH = 128
    # Its rows are copied next to each other where so many rows of the other matrix meet them, if
    # they are so many floats apart or more: they would share few sets of the cache, and few pages
    # (bench/layers.py). The copy takes 32 KiB, or 16 where a row of a tile has two vectors.
    # Pixels that read windows are sorted once more for each copy, so it takes more of them.
    PACKED_ROWS = 24
    PACKED_STRIP = 128
    PACKED_PITCH = 64
    PANEL_FLOATS = 8192
    # Where the elements of the other matrix's row are as far apart, blocks of it are copied too, in
    # the order in which tiles read them: less than half a second-level cache of 256 KiB
    # (bench/layers.py --backward).
    BLOCK_FLOATS = 24 * 1024
    BLOCK_STEPS = 256
    # Steps that the copy asks the cache for ahead, and the floats of a line of the cache.
    PREFETCH_STEPS = 8
    LINE_FLOATS = 16
    # The same where a few rows, such as one image's, meet a large matrix, which is read once: as
    # many streams as the processor fetches ahead of.
    STREAM_DEPTH = 8

    # Convolution that reads windows: weights per pass, 512 KiB in float32, to stay in the
    # second-level cache; and taps of a kernel line per pass, however many filters there are.
    MAX_PASS_WEIGHTS = 128 * 1024
    MIN_PASS_TAPS = 128
    # Pixels at a time, if there are PACKED_PITCH filters or more: their image stays in the
    # second-level cache while panel after panel meets it (bench/layers.py --set resnet50).
    WINDOWS_PIXELS = 256

    # Winograd's way (bench/winograd.py): fewest channels or filters, shortest side of y, and their
    # least product. With 16 channels it is faster from 16x16 pixels on, with 32 from 8x8 on, with
    # 64 from 4x4 on; with half the pixels the transforms cost as much as they save.
    WINOGRAD_CHANNELS = 16
    WINOGRAD_SIDE = 4
    WINOGRAD_PRODUCT = 256
    # Floats of V and M, half a second-level cache of 512 KiB; but at least so many tiles, four
    # times the rows of a full register tile, for each of which all weights are read.
    WINOGRAD_FLOATS = 64 * 1024
    WINOGRAD_LEAST_TILES = 24

    # Convolution with 4 or 8 filters: pixels, or vectors of dw, at once. Each has an accumulating
    # register, and eight hide the latency of a multiply-add: 4 cycles, two in each.
    PACKED_TILE = 8
    # Pixels whose windows stay in the first-level cache while all vectors of dw go over them.
    PACKED_PIXELS = 64

    # Convolution by dot products, of so many filters at most: filters, and pixels at most, at once;
    # and what a line of the kernel and a sum cost, in vectors (bench/layers.py --set random).
    MAX_DOT_FILTERS = 8
    DOT_FILTERS = 4
    DOT_PIXELS = 8
    DOT_LINE = 2
    DOT_SUM = 22

    # The gradient of a weight that reads windows (bench/layers.py --backward): pixels that go by a
    # tile of dw, so that the panel of dy stays in the first-level cache, and taps of the tile.
    GRADIENT_PIXELS = 256
    GRADIENT_TAPS = 6

    # Depthwise convolution: pixels with the same taps at once, as many as hide the latency of a
    # multiply-add, and taps of dw at once, those of a 3x3 kernel and of one of its lines.
    DEPTHWISE_PIXELS = 8
    DEPTHWISE_TAPS = 9
    DEPTHWISE_LINE_TAPS = 3

    # Lengths of KW*C taps and numbers of filters that loops are compiled for: those of the four
    # layers of the exercise network, of which the last has as many filters as there are classes.
    EXERCISE_RUN_1 = 8
    EXERCISE_RUN_2 = 24
    EXERCISE_RUN_3 = 32
    EXERCISE_RUN_4 = 48
    EXERCISE_FILTERS_1 = 4
    EXERCISE_FILTERS_2 = 8
    EXERCISE_FILTERS_3 = 16

    # conv2d outside a network (bench/scaling.py): parts of a batch per thread balance the load, and
    # the images of a part hold enough pixels with equal taps to fill register tiles.
    PARTS_PER_THREAD = 4
    MAX_IMAGES_PER_PART = 16

    # Multiply-adds of vectors in an operation on one image that threads share, where blocks of
    # images are fewer than threads: with less, starting them costs more (bench/predict.py).
    SPLIT_PRODUCTS = 32 * 1024

    # Elements that a thread takes at once: 64 KiB in float32, so that starting threads costs less
    # than they save (bench/scaling.py).
    CHUNK = 16 * 1024
    # Values of a channel that are summed in float before the sum goes to a double.
    MOMENT_PIXELS = 256
