"""Room in the address space for the threads of a parallel region, and for BLAS.

Where there is none, OpenMP ends the process and OpenBLAS tries for ever. So both take what a region
needs before it begins, after a look for room, while this thread has the GIL and no other can take
it. OpenMP keeps a team for each thread that opens regions, and only one that grows needs room.
"""

import os
import re

from cyconv._core.tuning cimport CHUNK

cdef extern from *:
    """
    /* Let OpenMP start a team, and return how many threads it has. */
    static int cyconv_start(int threads)
    {
        int started = 0;
        #pragma omp parallel num_threads(threads) reduction(+:started)
        started += 1;
        return started;
    }

    #ifdef _MSC_VER
    static __declspec(thread) int cyconv_team = 1;
    #else
    static __thread int cyconv_team = 1;   /* threads of this thread's last region with some */
    #endif

    #ifdef _WIN32
    static int cyconv_has_room(size_t size) { return 1; }
    static size_t cyconv_stack(void) { return 0; }
    #else
    #include <pthread.h>
    #include <sys/mman.h>
    #ifndef MAP_ANONYMOUS
    #define MAP_ANONYMOUS MAP_ANON
    #endif
    #ifndef MAP_NORESERVE
    #define MAP_NORESERVE 0
    #endif
    static int cyconv_has_room(size_t size)
    {
        /* Address space, not memory: stacks may be larger than that. */
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return at != MAP_FAILED && munmap(at, size) == 0;
    }
    static size_t cyconv_stack(void)
    {
        pthread_attr_t attributes;
        size_t size = 0;
        pthread_attr_init(&attributes);
        pthread_attr_getstacksize(&attributes, &size);
        pthread_attr_destroy(&attributes);
        return size;
    }
    #endif
    """
    int cyconv_start(int threads)
    int cyconv_team
    bint cyconv_has_room(size_t size)
    size_t cyconv_stack()

cdef enum:
    GUARD = 64 * 1024      # beside a stack: a page that cannot be touched, 64 KiB on some machines
    ACCOUNT = 1024 * 1024  # what OpenMP and the system allocate for a team besides


def _openmp_stack():
    """Return the bytes of a stack that the environment asks of OpenMP, or 0."""
    wish = os.environ.get("OMP_STACKSIZE") or os.environ.get("GOMP_STACKSIZE") or ""
    found = re.fullmatch(r"\s*(\d+)\s*([BKMG]?)\s*", wish.upper())
    return int(found[1]) << {"B": 0, "M": 20, "G": 30}.get(found[2], 10) if found else 0


cdef size_t STACK = min(max(cyconv_stack(), _openmp_stack()), 1 << 40) + GUARD


cdef bint has_room(size_t size) noexcept:
    """Tell whether so many bytes can be mapped now."""
    return cyconv_has_room(size)


cdef size_t stacks(int threads) noexcept:
    """Return the bytes that so many new threads take."""
    return threads * STACK + ACCOUNT


cdef int no_room(str what, str instead) except -1:
    """Raise a MemoryError that says for what there is no room, and how to have fewer threads."""
    raise MemoryError(
        f"cyconv: the limit on address space (ulimit -v) leaves no room for {what}; raise it"
        + (f", or use fewer threads: {instead}" if instead else "")
    )


cdef int team(int threads) except -1:
    """Return `threads`, of a region that begins now, once they are there.

    Raises
    ------
    MemoryError
        If there is no room for them.
    """
    global cyconv_team
    cdef int more = threads - cyconv_team
    if more > 0:
        if not has_room(stacks(more)):
            no_room(f"the stacks of new threads, {more * STACK >> 20} MiB",
                    "cyconv.set_num_threads(1)")
        cyconv_start(threads)
    if threads > 1:   # a region of one leaves the team as it is
        cyconv_team = threads
    return threads


cdef int team_for(Py_ssize_t size, int threads) except -1:
    """Return how many threads take chunks of so many elements: one if they are few."""
    return team(threads) if size > 4 * CHUNK else 1
