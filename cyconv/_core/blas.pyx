"""One thread for BLAS while kernels run, which have threads of their own, and a buffer for each.

The limit belongs to the process, so entries are counted: the first one sets it and the last one
restores it. Both hold the GIL and run no Python code, so that Ctrl-C comes before or after.

OpenBLAS maps buffers when it first needs them, and keeps them. Where there is no room for one it
tries for ever, so an entry takes as many as all threads inside may need, and gives them back. It
holds one for each of its own threads; those beyond its limit are free.
"""

from libc.stdint cimport uintptr_t

from cyconv._core.team cimport has_room, no_room, stacks, team

ctypedef int (*Get)() noexcept nogil
ctypedef void (*Set)(int) noexcept nogil
ctypedef void* (*Allocate)(int) noexcept nogil
ctypedef void (*Free)(void*) noexcept nogil

cdef enum:
    MOST = 8                   # BLAS libraries of a process
    MOST_BUFFERS = 64          # at once: OpenBLAS may have as few as 128
    BUFFER = 32 * 1024 * 1024  # bytes, as SciPy builds OpenBLAS

cdef struct Library:
    Get get_threads
    Set set_threads
    Allocate allocate   # NULL, as is `free`, if it is not OpenBLAS
    Free free
    int before

cdef Library libraries[MOST]
cdef int count = -1      # libraries; below 0 before they are looked for
cdef int inside = 0      # entries
cdef int users = 0       # threads of all entries
cdef int buffers = 0     # of each OpenBLAS that there are for users
cdef bint forked = False
cdef object find = None


def look_with(finder):
    """Let `finder()` be asked, when BLAS is first used, for the functions of each library.

    They are four addresses: of what returns and sets its number of threads, and of what allocates
    and frees a buffer, or 0.
    """
    global find
    find = finder


def after_fork(bint child):
    """Note that OpenBLAS has ended its threads, in both processes; nobody is inside in a child."""
    global forked, inside, users, buffers
    forked = True
    if child:
        inside = users = buffers = 0


cdef int look() except -1:
    """Fill in the libraries."""
    global count
    cdef int i
    found = list(find())[:MOST]
    for i, (get_threads, set_threads, allocate, free) in enumerate(found):
        libraries[i].get_threads = <Get> <uintptr_t> get_threads
        libraries[i].set_threads = <Set> <uintptr_t> set_threads
        libraries[i].allocate = <Allocate> <uintptr_t> allocate
        libraries[i].free = <Free> <uintptr_t> free
    count = <int> len(found)
    return 0


cdef bint map_buffers(const Library* library, int wanted) noexcept:
    """Let a library have so many buffers besides those it holds; tell whether there is room."""
    cdef void* taken[MOST_BUFFERS]
    cdef int n = 0
    cdef bint room
    if library.allocate == NULL:
        return True
    wanted = min(wanted, MOST_BUFFERS)
    while n < wanted and has_room(BUFFER):
        taken[n] = library.allocate(0)
        n += 1
    room = n == wanted
    while n > 0:
        n -= 1
        library.free(taken[n])
    return room


cdef int start_again() except -1:
    """Let each library start the threads that a fork has ended, if there is room for them."""
    global forked
    cdef int i, n
    for i in range(count):
        n = libraries[i].get_threads()
        if n > 1:
            if not map_buffers(&libraries[i], n) or not has_room(stacks(n - 1)):
                no_room(f"the {n} threads of BLAS, {BUFFER >> 20} MiB and a stack each",
                        "OPENBLAS_NUM_THREADS=1")
            libraries[i].set_threads(n)
    forked = False
    return 0


cdef int enter(int threads) except -1:
    """Begin a region of so many threads, each of which may use BLAS.

    Raises
    ------
    MemoryError
        If there is no room for them or for their buffers.
    """
    global inside, users, buffers
    cdef int i
    if count < 0:
        look()
    team(threads)
    if forked and inside == 0:
        start_again()
    inside += 1
    users += threads
    if inside == 1:
        for i in range(count):
            libraries[i].before = libraries[i].get_threads()
            if libraries[i].before != 1:
                libraries[i].set_threads(1)
    if users > buffers:
        for i in range(count):
            if not map_buffers(&libraries[i], users):
                leave(threads)
                no_room(f"BLAS, {BUFFER >> 20} MiB in each thread",
                        "cyconv.set_num_threads(1)" if threads > 1 else None)
        buffers = users
    return 0


cdef void leave(int threads) noexcept:
    """End a region that so many threads entered."""
    global inside, users
    cdef int i
    inside -= 1
    users -= threads
    if inside == 0:
        for i in range(count):
            if libraries[i].before != 1:
                libraries[i].set_threads(libraries[i].before)


cdef class OneThread:
    """The context in which BLAS has one thread, for code in Python."""

    def __enter__(self):
        enter(1)

    def __exit__(self, *_):
        leave(1)
