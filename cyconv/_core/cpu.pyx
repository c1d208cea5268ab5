"""What the processor and the compiler have."""

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define CYCONV_OPENMP 1
    #else
    #define CYCONV_OPENMP 0
    static int omp_get_max_threads(void) { return 1; }
    static int omp_get_num_procs(void) { return 0; }
    #endif

    /* Not those of the affinity that OpenMP itself gives a thread. */
    static int cyconv_cores(void)
    {
        int cores = omp_get_num_procs();
    #if defined(_OPENMP) && _OPENMP >= 201511
        int places = omp_get_num_places(), inside = 0, place;
        for (place = 0; place < places; place++)
            inside += omp_get_place_num_procs(place);
        if (places > 0 && inside < cores)
            cores = inside;
    #endif
        return cores;
    }

    /* The levels that setup.py builds, each with exactly these instruction sets. */
    static int cyconv_level(void)
    {
    #if defined(__x86_64__) && defined(__GNUC__)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
                return 4;
            return 3;
        }
    #endif
        return 1;
    }
    """
    const bint CYCONV_OPENMP
    int cyconv_level()
    int omp_get_max_threads()
    int cyconv_cores()

HAS_OPENMP = CYCONV_OPENMP
LEVEL = {1: "baseline", 3: "v3", 4: "v4"}[cyconv_level()]   # the highest this processor can run


def openmp_threads():
    """Return how many threads OpenMP would take now, in this thread: a limit, if it is lowered."""
    return omp_get_max_threads()


def openmp_cores():
    """Return the cores that OpenMP may use: those of this thread's affinity; 0 without OpenMP.

    Where OMP_PROC_BIND or GOMP_CPU_AFFINITY lets OpenMP pin this thread to one core, those of all.
    """
    return cyconv_cores()
