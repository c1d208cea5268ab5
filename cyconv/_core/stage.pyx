"""A stage of a program: blocks of images go through a run of operations, and back.

One parallel region: a thread takes a block through all operations forward, or back, or both, while
intermediate results stay in its core's cache. A block's gradients and sums go into an accumulator.
Blocks and accumulators are fixed by shapes, so the bits of the result are the same for any number
of threads.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free

from cyconv._core cimport pointwise
from cyconv._core.blas cimport enter, leave
from cyconv._core.op cimport BACKWARD, FORWARD, Op, Pass
from cyconv._core.products cimport has_vectors
from cyconv._core.real cimport real
from cyconv._core.team cimport team, team_for
from cyconv._core.tuning cimport CHUNK

cdef enum:
    # Where an array of floats is, of which each image has its share.
    NOWHERE   # it is not needed
    INPUT     # the images that the pass was given
    HELD      # of the whole batch, `at` floats per image behind the beginning
    FRAME     # of the block, in its frame
    SCRATCH   # of the block, in its thread's scratch memory

PLACES = {"nowhere": NOWHERE, "input": INPUT, "held": HELD, "frame": FRAME, "scratch": SCRATCH}


cdef struct Place:
    int where
    Py_ssize_t at, size   # floats before it, and per image


cdef struct Node:
    # An operation of a stage, where its arrays are, and its own memory in that of the pass.
    void* op
    Place x, x2, y, dy, dy2, dx, dx2
    Py_ssize_t accumulator, shared, sums
    bint backward   # whether there is anything to do


cdef Place as_place(place):
    where, at, size = place
    return Place(where, at, size)


cdef class Batch:
    """The arrays that a program's stages work on for one number of images.

    Parameters
    ----------
    parameters, gradients, state : ndarray
        The network's arenas.
    memory : ndarray
        All working memory; the program knows what is where in it.
    sums : ndarray of float64, of shape (accumulators, n)
    images, threads : int
    """

    cdef readonly Py_ssize_t images
    cdef readonly int threads
    cdef readonly real[::1] parameters, gradients, state, memory
    cdef readonly double[:, ::1] sums
    cdef const real[:, ::1] x
    cdef const unsigned char[:, ::1] pixels
    cdef const Py_ssize_t[::1] labels
    cdef const double[::1] class_weight
    cdef Pass template

    def __init__(
        self, real[::1] parameters, real[::1] gradients, real[::1] state, real[::1] memory,
        double[:, ::1] sums, Py_ssize_t images, int threads,
    ):
        self.parameters, self.gradients, self.state = parameters, gradients, state
        self.memory, self.sums, self.images, self.threads = memory, sums, images, threads
        self.template.parameters = &parameters[0] if parameters.shape[0] else NULL
        self.template.gradients = &gradients[0] if gradients.shape[0] else NULL
        self.template.state = &state[0] if state.shape[0] else NULL
        self.template.batch = images

    def take(self, const real[:, ::1] x, const unsigned char[:, ::1] pixels):
        """Take the images of a pass: numbers, or else pixels that are to be divided by 255."""
        self.x, self.pixels = x, pixels

    def is_finite(self):
        """Tell whether the images hold neither NaN nor infinity; pixels never do."""
        if self.x is None:
            return True
        return not pointwise.not_finite(&self.x[0, 0], self.x.shape[0] * self.x.shape[1])

    def holds_finite(self, Py_ssize_t begin, Py_ssize_t size):
        """Tell whether so many floats of the memory hold neither NaN nor infinity."""
        return not pointwise.not_finite(&self.memory[begin], size)

    def take_labels(
        self, const Py_ssize_t[::1] labels, double scale, double smoothing,
        const double[::1] class_weight,
    ):
        """Take what the loss of a pass is computed from."""
        self.labels, self.class_weight = labels, class_weight
        self.template.labels = &labels[0]
        self.template.loss_scale, self.template.label_smoothing = scale, smoothing
        self.template.class_weight = NULL
        if class_weight is not None:
            self.template.class_weight = &class_weight[0]

    def count(self, unsigned long long seed, unsigned long long step):
        """Take the key and the step of the random numbers of a pass."""
        self.template.seed, self.template.step = seed, step


cdef class Cut:
    """Into what a stage cuts a batch, and what that takes of the batch's memory.

    Parameters
    ----------
    block : int
        Images of a block.
    accumulators : int
        Which take the blocks in turn.
    keep : bool
        Each block has a frame of its own, else each thread.
    split : bool
        All threads share the work on a block.
    frames, scratch, gradients : int
        Floats that all frames take, the scratch memory of all threads, and all accumulators.
    """

    cdef readonly Py_ssize_t block, accumulators, frames, scratch, gradients
    cdef readonly bint keep, split
    cdef Py_ssize_t frames_at, scratch_at, gradients_at, shared_at

    def __init__(
        self, *, Py_ssize_t block, Py_ssize_t accumulators, bint keep, bint split,
        Py_ssize_t frames, Py_ssize_t scratch, Py_ssize_t gradients,
    ):
        self.block, self.accumulators, self.keep, self.split = block, accumulators, keep, split
        self.frames, self.scratch, self.gradients = frames, scratch, gradients

    def place(
        self, *, Py_ssize_t frames, Py_ssize_t scratch, Py_ssize_t gradients, Py_ssize_t shared,
    ):
        """Take where these begin in the batch's memory, and the operations' shared memory."""
        self.frames_at, self.scratch_at = frames, scratch
        self.gradients_at, self.shared_at = gradients, shared


cdef struct Task:
    # What a stage's accumulators share during a pass.
    Pass template
    const real* x
    const unsigned char* pixels
    const real* held
    real* frames
    real* scratch
    real* accumulators
    real* shared
    double* sums
    Py_ssize_t sums_pitch, block, accumulators_count, images
    int phases, parts   # threads that share the work on a block
    bint keep   # each block has a frame of its own, else each thread


cdef class Stage:
    """A run of operations.

    Parameters
    ----------
    nodes : sequence of (Op, seven places, three offsets, bool)
        The fields of `Node`, a place being (where, at, size).
    inputs : int
        Floats of an image, of which the scratch memory holds a block where it is given as pixels.
    frame, scratch, gradients : int
        Floats of a frame, of a thread's scratch memory, of an accumulator.
    columns : int
        Where in the scratch memory that of the operations begins.
    segments : sequence of (begin in an accumulator, begin in the arena, size)
        Where the gradients go.
    """

    cdef readonly tuple ops   # keeps them alive: calling through pointers counts no references
    cdef readonly Py_ssize_t inputs, frame, scratch, gradients, columns
    cdef readonly tuple segments
    cdef bint converts
    cdef Py_ssize_t count
    cdef Node* node

    def __cinit__(
        self, nodes, Py_ssize_t inputs, Py_ssize_t frame, Py_ssize_t scratch, Py_ssize_t gradients,
        Py_ssize_t columns, segments,
    ):
        cdef Node* node
        self.ops = tuple(op for op, *_ in nodes)
        self.inputs, self.frame, self.scratch = inputs, frame, scratch
        self.gradients, self.columns, self.segments = gradients, columns, tuple(segments)
        self.count = len(nodes)
        self.node = <Node*> calloc(max(1, self.count), sizeof(Node))
        if self.node == NULL:
            raise MemoryError(f"Stage: no memory for {self.count} operations")
        for i, (op, places, offsets, backward) in enumerate(nodes):
            node = self.node + <Py_ssize_t> i
            node.op = <void*> <Op?> op
            x, x2, y, dy, dy2, dx, dx2 = places
            node.x, node.x2, node.y = as_place(x), as_place(x2), as_place(y)
            node.dy, node.dy2 = as_place(dy), as_place(dy2)
            node.dx, node.dx2 = as_place(dx), as_place(dx2)
            node.accumulator, node.shared, node.sums = offsets
            node.backward = backward
            self.converts |= node.x.where == INPUT or node.x2.where == INPUT

    def __dealloc__(self):
        free(self.node)

    def run(self, Batch batch, int phases, Cut cut):
        """Take all blocks of a batch forward (1), backward (2) or both ways (3).

        Going backward, or both ways, the gradients of the operations' parameters are written to the
        network's arena.
        Writes: outputs, gradients, sums, frames.   Aliasing: as the program has it.
        Parallel over: accumulators, or parts.      Retains: nothing.
        """
        cdef Task task
        cdef Py_ssize_t i, index, accumulators = cut.accumulators
        cdef bint split = cut.split, blas = phases & BACKWARD or not has_vectors()
        cdef Pass p
        task.template, task.phases = batch.template, phases
        task.block, task.keep = cut.block, cut.keep
        task.x, task.pixels, task.images = NULL, NULL, batch.images
        task.parts = batch.threads if split else 1
        if batch.x is not None:
            task.x = &batch.x[0, 0]
        elif self.converts:
            task.pixels = &batch.pixels[0, 0]
        task.held = &batch.memory[0]
        task.frames = &batch.memory[cut.frames_at]
        task.scratch = &batch.memory[cut.scratch_at]
        task.accumulators = &batch.memory[cut.gradients_at]
        task.shared = &batch.memory[cut.shared_at]
        task.sums = &batch.sums[0, 0]
        task.sums_pitch, task.accumulators_count = batch.sums.shape[1], accumulators
        for i in range(self.count):
            p = task.template
            self.place(&task, &self.node[i], &p, task.frames, task.scratch)
            (<Op> self.node[i].op).prepare(&p, phases)
        cdef int threads = <int> batch.threads if split else min(batch.threads, accumulators)
        if blas:
            enter(threads)
        else:
            team(threads)
        if split:
            with nogil:
                for index in range(accumulators):
                    self.run_accumulator(&task, index, 0)
        else:
            for index in prange(accumulators, nogil=True, schedule="dynamic", num_threads=threads):
                self.run_accumulator(&task, index, threadid())
        if blas:
            leave(threads)
        for i in range(self.count):
            p = task.template
            self.place(&task, &self.node[i], &p, task.frames, task.scratch)
            if phases & FORWARD and (<Op> self.node[i].op).sums:
                (<Op> self.node[i].op).finish(
                    &p, task.sums + self.node[i].sums, task.sums_pitch, accumulators)
        if phases & BACKWARD:
            for begin, to, size in self.segments:
                self.add_gradients(&task, begin, batch.gradients, to, size, batch.threads)

    cdef int add_gradients(
        self, const Task* task, Py_ssize_t begin, real[::1] gradients, Py_ssize_t to,
        Py_ssize_t size, int threads,
    ) except -1:
        cdef Py_ssize_t chunk, offset
        threads = team_for(size, threads)
        for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                            num_threads=threads):
            offset = chunk * CHUNK
            pointwise.add_up(
                task.accumulators + begin + offset, &gradients[to + offset],
                min(<Py_ssize_t> CHUNK, size - offset), task.accumulators_count, self.gradients)

    cdef inline real* locate(
        self, const Task* task, const Place* place, Py_ssize_t begin, real* frame, real* scratch,
    ) noexcept nogil:
        """Return where the share of a block is that begins with the image `begin`."""
        if place.where == HELD:
            return <real*> task.held + place.at * task.images + begin * place.size
        if place.where == FRAME:
            return frame + place.at
        if place.where == SCRATCH:
            return scratch + place.at
        if place.where == INPUT:
            return <real*> task.x + begin * place.size if task.pixels == NULL else scratch
        return NULL

    cdef inline void place(
        self, const Task* task, const Node* node, Pass* p, real* frame, real* scratch,
    ) noexcept nogil:
        """Fill in where the arrays of an operation are for the block that `p` speaks of."""
        p.x = self.locate(task, &node.x, p.begin, frame, scratch)
        p.x2 = self.locate(task, &node.x2, p.begin, frame, scratch)
        p.y = self.locate(task, &node.y, p.begin, frame, scratch)
        p.dy = self.locate(task, &node.dy, p.begin, frame, scratch)
        p.dy2 = self.locate(task, &node.dy2, p.begin, frame, scratch)
        p.dx = self.locate(task, &node.dx, p.begin, frame, scratch)
        p.dx2 = self.locate(task, &node.dx2, p.begin, frame, scratch)
        p.scratch = scratch + self.columns
        p.shared = task.shared + node.shared

    cdef void forward_parts(self, const Task* task, const Node* node, const Pass* p) noexcept nogil:
        """One operation on one block, a part of it for each thread."""
        cdef int part
        for part in prange(task.parts, schedule="static", num_threads=task.parts):
            self.forward_part(task, node, p, part)

    cdef void forward_part(
        self, const Task* task, const Node* node, const Pass* shared, int part,
    ) noexcept nogil:
        cdef Pass p = shared[0]
        p.scratch = task.scratch + part * self.scratch + self.columns
        (<Op> node.op).forward_part(&p, part, task.parts)

    cdef void run_accumulator(self, const Task* task, Py_ssize_t index, int thread) noexcept nogil:
        """The blocks index, index + accumulators, ... in this order."""
        cdef Py_ssize_t b = index, i
        cdef Pass p = task.template
        cdef const Node* node
        cdef real* frame
        cdef real* scratch = task.scratch + thread * self.scratch
        cdef real* accumulator = task.accumulators + index * self.gradients
        cdef double* sums = task.sums + index * task.sums_pitch
        while b * task.block < task.images:
            p.begin = b * task.block
            p.images = min(task.block, task.images - p.begin)
            p.accumulate = b != index
            if task.template.labels != NULL:
                p.labels = task.template.labels + p.begin
            frame = task.frames + (b if task.keep else thread) * self.frame
            if task.pixels != NULL:
                pointwise.from_pixels(
                    task.pixels + p.begin * self.inputs, scratch, p.images * self.inputs)
            if task.phases & FORWARD:
                for i in range(self.count):
                    node = &self.node[i]
                    self.place(task, node, &p, frame, scratch)
                    p.sums = sums + node.sums
                    if task.parts > 1 and (<Op> node.op).splits:
                        self.forward_parts(task, node, &p)
                    else:
                        (<Op> node.op).forward(&p)
            if task.phases & BACKWARD:
                i = self.count - 1
                while i >= 0:
                    node = &self.node[i]
                    if node.backward:
                        self.place(task, node, &p, frame, scratch)
                        p.accumulator = accumulator + node.accumulator
                        p.sums = sums + node.sums
                        (<Op> node.op).backward(&p)
                    i -= 1
            b += task.accumulators_count
