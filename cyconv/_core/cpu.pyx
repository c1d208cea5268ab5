"""What the processor and the compiler have."""

cdef extern from *:
    """
    #ifdef _OPENMP
    #define CYCONV_OPENMP 1
    #else
    #define CYCONV_OPENMP 0
    #endif

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

HAS_OPENMP = CYCONV_OPENMP
LEVEL = {1: "baseline", 3: "v3", 4: "v4"}[cyconv_level()]   # the highest this processor can run
