"""The sizes that were tuned, each with its reason and the script that measures it.

Those that only the kernels know are in _core/tuning.pxd.

Results have other bits with other sizes, but not with other numbers of threads.
"""

# Bytes of columns that one tile makes at once: they should stay in the second-level cache, beside
# the weights and the output (bench/tiles.py: half of it costs up to 12 % on a core with 1 MiB).
TILE_BYTES = 512 * 1024
# Accumulators of the gradients of a batch: no more threads than these have work.
ACCUMULATORS = 16
# But no more bytes than these, unless two accumulators have more: large weights have few, and are
# worth a thread's time with fewer images each.
ACCUMULATOR_BYTES = 64 * 1024 * 1024
# Smallest strip of output rows worth a thread: pixels and multiply-adds (bench/scaling.py).
MIN_PIXELS = 128
MIN_PRODUCTS = 1024 * 1024
# Inputs and outputs of the operations on a block of images: one core's second-level cache.
BLOCK_BYTES = 1024 * 1024
# More images in a block win nothing, and fewer blocks than threads lose (bench/tiles.py).
MAX_IMAGES_PER_BLOCK = 8
# Blocks in a batch, as long as each has an image.
MIN_BLOCKS = 4
# Weights of a linear layer that is a stage of its own: read once, not once for each block.
WHOLE_BATCH_BYTES = 256 * 1024
# Its tiles, which threads take in turn: enough to balance the load (bench/roofline.py).
LINEAR_TILES = 16
# Their width is a multiple of 64: the columns of a tile fill whole vectors at every level.
LINEAR_TILE_STEP = 64
# Images whose dx is computed at once: a tile's dxᵀ stays in the second-level cache.
LINEAR_DX_IMAGES = 64
