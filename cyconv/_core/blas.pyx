"""One thread for BLAS while kernels run, which have threads of their own.

The limit belongs to the process, so entries are counted: the first one sets it and the last one
restores it. Both hold the GIL and run no Python code, so that Ctrl-C comes before or after.
"""

from libc.stdint cimport uintptr_t

ctypedef int (*Get)() noexcept nogil
ctypedef void (*Set)(int) noexcept nogil

cdef enum:
    MOST = 8   # BLAS libraries of a process

cdef Get get_threads[MOST]
cdef Set set_threads[MOST]
cdef int before[MOST]
cdef int count = -1    # libraries; below 0 before they are looked for
cdef int inside = 0
cdef object find = None


def look_with(finder):
    """Let `finder()` be asked, when BLAS is first used, for pairs of addresses.

    They are those of a library's functions that return and set its number of threads.
    """
    global find
    find = finder


def reset():
    """Forget who is inside: in a forked child nobody is."""
    global inside
    inside = 0


cdef int enter() except -1:
    global inside, count
    cdef int i
    if count < 0:
        pairs = list(find())[:MOST]
        for i in range(len(pairs)):
            get_threads[i] = <Get> <uintptr_t> pairs[i][0]
            set_threads[i] = <Set> <uintptr_t> pairs[i][1]
        count = <int> len(pairs)
    inside += 1
    if inside == 1:
        for i in range(count):
            before[i] = get_threads[i]()
            if before[i] != 1:
                set_threads[i](1)
    return 0


cdef void leave() noexcept:
    global inside
    cdef int i
    inside -= 1
    if inside == 0:
        for i in range(count):
            if before[i] != 1:
                set_threads[i](before[i])


cdef class OneThread:
    """The context in which BLAS has one thread, for code in Python."""

    def __enter__(self):
        enter()

    def __exit__(self, *_):
        leave()
