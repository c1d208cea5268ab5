"""Little address space: a result is right or a MemoryError says what is missing, and nobody hangs.

Without a look for room, OpenMP ends the process where it cannot start a thread, and OpenBLAS tries
for ever where it cannot map a buffer.
"""

import concurrent.futures
import contextlib
import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

import cyconv
from tests.test_processes import forked
from tests.zoo import batch, network

STATM = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="needs Linux's /proc")


def convolutions(dtype):
    x, weight = np.ones((9, 12, 12, 3), dtype), np.ones((3, 3, 3, 5), dtype)
    y = cyconv.conv2d(x, weight)
    return y, *cyconv.conv2d_backward(y, x, weight)


def training_step():
    net = network("exercise")
    net.train_step(*batch(net, 40), cyconv.Adam())
    return [net._parameters]


def predictions():
    net = network("exercise")
    return net.predict_proba(batch(net, 40)[0]), net.forward(batch(net, 9)[0])


def no_blas():
    x = np.ones((40, 28, 28, 3))
    return cyconv.im2col(x, 3), cyconv.max_pool2d(x, 2)


CALLS = {
    "conv2d": lambda: convolutions(np.float32),
    "conv2d in float64": lambda: convolutions(np.float64),
    "train_step": training_step,
    "predict": predictions,
    "im2col and pooling": no_blas,
}


def digest(call):
    bits = hashlib.sha256()
    for array in CALLS[call]():
        bits.update(np.ascontiguousarray(array))
    return bits.hexdigest()


@contextlib.contextmanager
def room(mebibytes):
    """Leave this process so much more address space."""
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(STATM.read_text().split()[0])
    limit = pages * resource.getpagesize() + int(mebibytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def outcome(call, threads, mebibytes, callers=0):
    """Return the bits of a call with little room, or its MemoryError, and those of the next one.

    The call is the main thread's or that of so many Python threads at once.
    """
    cyconv.set_num_threads(threads)
    here = threading.Barrier(max(1, callers))
    with concurrent.futures.ThreadPoolExecutor(max(1, callers)) as pool:
        list(pool.map(lambda _: here.wait(), range(callers)))  # they start while there is room
        calls = [pool.submit] * callers or [at_once]
        with room(mebibytes):
            futures = [submit(digest, call) for submit in calls]
            concurrent.futures.wait(futures)
    return [future.exception() or future.result() for future in futures], digest(call)


def at_once(function, argument):
    """Return a future, as `submit` does, of a call in this thread."""
    future = concurrent.futures.Future()
    try:
        future.set_result(function(argument))
    except BaseException as error:
        future.set_exception(error)
    return future


def sweep(seed, children):
    """Yield, for each of some children, what it was asked and whether all its results were right.

    Half of them are forked before a kernel runs in their parent, half after that.
    """
    rng = np.random.default_rng(seed)
    right = {call: forked(lambda call=call: digest(call).encode()).decode() for call in CALLS}
    for child in range(children):
        if child == children // 2:
            cyconv.set_num_threads(1)
            for call in CALLS:
                digest(call)
        call, most = str(rng.choice(list(CALLS))), int(rng.choice([50, 50, 200]))
        asked = (
            call,
            int(rng.choice([1, 2, 4])),
            round(float(rng.uniform(0.5, most)), 2),
            int(rng.choice([0, 1, 3])),
        )

        def work(asked=asked):
            results, later = outcome(*asked)
            short = [result for result in results if isinstance(result, MemoryError)]
            wrong = {later, *results} - {right[asked[0]], *short}
            return f"{wrong or 'defined'}, {len(short)} errors".encode()

        yield asked, forked(work).decode()


def test_whatever_room_there_is_a_call_is_right_or_a_memory_error(python, count, figure):
    rounds, children = count(1, 4, 40), 40
    short = 0
    for round_ in range(rounds):
        printed = python(
            f"""
            from tests.test_address_space import sweep
            for asked, result in sweep({round_}, {children}):
                print(asked, result, sep=": ")
            """
        )
        for line in printed.splitlines():
            assert ": defined, " in line, line
            short += not line.endswith(" 0 errors")
    assert 0 < short < rounds * children
    figure("calls with little address space, each right or a MemoryError", rounds * children)


@pytest.mark.parametrize(
    ("call", "threads", "mebibytes", "environment", "lacks"),
    [
        ("train_step", 2, 30, {"GOMP_STACKSIZE": "33000"}, "the stacks of new threads, 32 MiB"),
        (
            "im2col and pooling",
            2,
            60,
            {"OMP_STACKSIZE": "77 m"},
            "the stacks of new threads, 77 MiB",
        ),
        ("conv2d in float64", 1, 20, {}, "BLAS, 32 MiB in each thread"),
    ],
)
def test_the_first_call_of_a_process_says_what_it_lacks(
    call, threads, mebibytes, environment, lacks, python
):
    printed = python(
        f"""
        from tests.test_address_space import digest, outcome
        [error], later = outcome({call!r}, {threads}, {mebibytes})
        print(repr(error), later == digest({call!r}))
        """,
        **environment,
    )
    assert printed.startswith("MemoryError('cyconv: the limit on address space (ulimit -v)")
    assert f"no room for {lacks}; raise it" in printed
    assert ("set_num_threads(1)" in printed) == (threads > 1)
    assert printed.endswith(" True\n")
