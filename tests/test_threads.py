"""How many threads there are, who decides it, that BLAS gets its own back, and the same bits."""

import concurrent.futures
import os
import threading
import types

import numpy as np
import pytest
import threadpoolctl

import cyconv
from cyconv import threads
from tests import reference
from tests.zoo import ALL_NETWORKS, batch, network

CORES = os.cpu_count() or 1
COUNTS = range(1, min(8, 4 * CORES) + 1)


@pytest.fixture
def alone(monkeypatch):
    """Let nothing but the machine decide: no wish in the environment."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize("n", sorted({1, 2, 4 * CORES}))
def test_a_count_that_was_set_is_the_count(n):
    cyconv.set_num_threads(n)
    assert cyconv.get_num_threads() == n


def test_numpy_integers_are_counts():
    cyconv.set_num_threads(np.int64(2))
    assert cyconv.get_num_threads() == 2
    assert type(cyconv.get_num_threads()) is int


@pytest.mark.parametrize(
    "n", (0, -1, 4 * CORES + 1, 10**5, 10**30, True, False, "2", 1.0, float("nan"), [2], b"2")
)
def test_every_other_count_is_refused_and_changes_nothing(n):
    cyconv.set_num_threads(2)
    with pytest.raises(ValueError, match=r"set_num_threads: n must be"):
        cyconv.set_num_threads(n)
    assert cyconv.get_num_threads() == 2


def automatic():
    cyconv.set_num_threads(None)
    return cyconv.get_num_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_none_respects_the_affinity(alone):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert automatic() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= automatic() <= len(before)


PINNED = {  # what lets OpenMP pin the first thread to one core when it is loaded
    **{f"OMP_PROC_BIND={value}": CORES for value in ("true", "close", "spread", "master")},
    "OMP_PLACES=threads": CORES,
    f"GOMP_CPU_AFFINITY=0-{CORES - 1}": CORES,
    "GOMP_CPU_AFFINITY=0": 1,
}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
@pytest.mark.skipif(automatic() != CORES, reason="this process may not use all cores")
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(setting, marks=pytest.mark.long if index % 3 else ())
        for index, setting in enumerate(PINNED)
    ],
)
def test_none_counts_the_cores_that_openmp_may_use_and_not_the_one_it_pins_a_thread_to(
    setting, alone, python
):
    name, _, value = setting.partition("=")
    code = "import cyconv; from cyconv.threads import available_cores as cores"
    printed = python(f"{code}\nprint(cyconv.get_num_threads(), cores())", **{name: value})
    assert printed.split() == [str(PINNED[setting])] * 2


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("max 100000\n", 64),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("6400000 100000\n", 64),
        ("nonsense", 64),
        ("", 64),
    ],
)
def test_none_respects_the_quota_of_a_container(text, most, alone, monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "Path", lambda path: tmp_path / os.path.basename(path))
    monkeypatch.setattr(threads.cpu, "openmp_cores", lambda: 64)
    assert automatic() == most


@pytest.mark.parametrize(
    ("wish", "count"), [("1", 1), ("2,4", 2), ("0", None), ("-3", None), ("many", None), ("", None)]
)
def test_omp_num_threads_is_a_wish(wish, count, alone, monkeypatch):
    without = automatic()
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert automatic() == (without if count is None else count)


def test_a_wish_that_would_end_the_interpreter_is_cut(alone, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert 1 <= automatic() <= 4 * CORES


def test_the_environment_is_read_without_being_asked(python):
    code = "import cyconv; print(cyconv.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="1") == "1\n"


@pytest.mark.parametrize(("limit", "count"), [("1", 1), ("2", 2), ("0", 3), ("many", 3), ("", 3)])
def test_no_count_is_more_than_openmp_gives_the_process(limit, count, python):
    code = "import cyconv; cyconv.set_num_threads(3); print(cyconv.get_num_threads())"
    assert python(code, OMP_THREAD_LIMIT=limit) == f"{count}\n"


@pytest.mark.skipif(CORES == 1, reason="one thread anyway")
@pytest.mark.parametrize("n", (None, 2, 2 * CORES))
def test_a_limit_of_threadpoolctl_holds_while_it_lasts(n, alone):
    cyconv.set_num_threads(n)
    before = cyconv.get_num_threads()
    with threadpoolctl.threadpool_limits(1):
        assert cyconv.get_num_threads() == 1
        cyconv.set_num_threads(n)
        assert cyconv.get_num_threads() == 1
    assert cyconv.get_num_threads() == before
    with threadpoolctl.threadpool_limits(4 * CORES):
        assert cyconv.get_num_threads() == before


# BLAS: one thread inside, what it had before outside.


def blas_threads():
    """Return the number of threads of every BLAS in this process, as an outsider sees it."""
    return [
        (library["filepath"], library["num_threads"])
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]


def work():
    net = network("big Linear in the middle")
    x, labels = batch(net)
    net.train_step(x, labels, cyconv.Adam())
    net.predict(x)
    net.backward(np.ones_like(net.forward(x)))


def in_a_thread(function):
    """Call a function in a Python thread of its own and return what it returns or raises."""
    result = types.SimpleNamespace(value=None, error=None)

    def run():
        try:
            result.value = function()
        except BaseException as error:
            result.error = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if result.error is not None:
        raise result.error
    return result.value


def inside():
    """Return the threads of SciPy's BLAS while a kernel would run."""
    with threads.one_blas_thread():
        return [count for path, count in blas_threads() if "scipy" in os.path.dirname(path)]


def test_blas_has_its_threads_back_after_a_step():
    before = blas_threads()
    work()
    assert blas_threads() == before


def test_blas_has_its_threads_back_after_an_error():
    before = blas_threads()
    with pytest.raises(ValueError, match="stop"), threads.one_blas_thread():
        raise ValueError("stop")
    assert blas_threads() == before


def test_blas_has_one_thread_inside():
    assert set(inside()) <= {1}


@pytest.mark.parametrize("order", (1, -1))
def test_blas_has_one_thread_inside_in_every_python_thread(order, python):
    # In a new process: which Python thread is the first to set a limit must not matter.
    code = f"""
        from tests.test_threads import blas_threads, in_a_thread, inside
        before = blas_threads()
        counts = [call() for call in (inside, lambda: in_a_thread(inside))[::{order}]]
        print([set(count) <= {{1}} for count in counts], blas_threads() == before)
    """
    assert python(code) == "[True, True] True\n"


def test_blas_has_its_threads_back_whichever_python_thread_leaves_last():
    before = blas_threads()
    context, entered, leave = threads.one_blas_thread(), threading.Event(), threading.Event()

    def other():
        with context:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with context:
        thread.start()
        assert entered.wait(30)
    leave.set()
    thread.join(30)
    assert blas_threads() == before


def test_a_step_has_the_same_bits_in_another_python_thread():
    def bits():
        net = network("big Linear in the middle")
        x, labels = batch(net, 300)
        loss = net.train_step(x, labels, cyconv.Adam())
        return loss, net._parameters.tobytes(), net.forward(x).tobytes()

    assert in_a_thread(bits) == bits()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_keeps_to_one_thread_and_says_why(python):
    code = """
        import os, cyconv
        cyconv.set_num_threads(2)
        cyconv.presets.exercise().predict([[[0.0] * 28] * 28])
        if os.fork() == 0:
            counts = [cyconv.get_num_threads()]
            for n in (1, None):
                cyconv.set_num_threads(n)
                counts.append(cyconv.get_num_threads())
            try:
                cyconv.set_num_threads(2)
            except RuntimeError as error:
                os._exit(0 if counts == [1, 1, 1] and "spawn" in str(error) else 3)
            os._exit(4)
        print(os.waitstatus_to_exitcode(os.wait()[1]), cyconv.get_num_threads())
    """
    assert python(code) == "0 2\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("cyconv.get_num_threads()", 0),
        ("cyconv.set_num_threads(1); work()", 0),
        ("work()", 1),
        *(
            pytest.param(call, 1, marks=pytest.mark.long)
            for call in (
                "cyconv.presets.exercise().predict(np.zeros((9, 28, 28), np.float32))",
                "cyconv.im2col(np.ones((9, 9, 9, 1), np.float32), 3)",
                "cyconv.losses.cross_entropy(np.ones((9, 9), np.float32), np.zeros(9, int))",
            )
        ),
    ],
)
def test_a_child_has_threads_if_it_asks_for_them_and_no_kernel_had_them_before(
    before, code, python
):
    printed = python(
        f"""
        import os
        import numpy as np
        import cyconv

        def work():
            net, optimizer = cyconv.presets.exercise(), cyconv.Adam()
            net.train_step(np.ones((64, 28, 28), np.float32), np.zeros(64, int), optimizer)
            return net._parameters.tobytes()

        cyconv.set_num_threads(2)
        {before}
        child = os.fork()
        if child == 0:
            assert cyconv.get_num_threads() == 1
            bits = work()
            try:
                cyconv.set_num_threads(2)
            except RuntimeError as error:
                os._exit("spawn" in str(error))
            os._exit(0 if cyconv.get_num_threads() == 2 and work() == bits else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert printed == f"{code}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_children_of_a_fork_server_that_has_only_imported_cyconv_may_have_threads(python):
    printed = python(
        """
        import concurrent.futures, multiprocessing
        import cyconv
        multiprocessing.set_forkserver_preload(["cyconv"])
        context = multiprocessing.get_context("forkserver")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            pool.submit(cyconv.set_num_threads, 2).result(30)
            print(pool.submit(cyconv.get_num_threads).result(30))
        """
    )
    assert printed == "2\n"


# The same bits on 1 to 8 threads, of the kernels and of everything that a network does.


def bits_by_count(work, counts):
    """Return the set of the bits of the arrays that `work` returns, over counts of threads."""
    found = set()
    for n in counts:
        cyconv.set_num_threads(n)
        found.add(b"".join(array.tobytes() for array in work()))
    return found


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("case", reference.LARGE, ids=str)
def test_kernels_have_the_same_bits_on_1_to_8_threads(case, dtype, count):
    rng = np.random.default_rng(8)
    given = reference.arrays(case, rng, lambda rng, shape: rng.normal(size=shape), dtype)
    counts = count(COUNTS[::3], COUNTS, COUNTS)
    assert len(bits_by_count(lambda: reference.everything(cyconv, case, *given), counts)) == 1


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_networks_have_the_same_bits_on_1_to_8_threads(name, dtype, count):
    images, steps = (100, 2) if name == "exercise" else (37, count(1, 1, 3))

    def everything():
        net, optimizer = network(name, dtype=dtype), cyconv.Adam()
        x, labels = batch(net, images)
        losses = [net.train_step(x, labels, optimizer) for _ in range(steps)]
        y = net.forward(x)
        arrays = net._parameters, y, net.backward(y), net._gradients, net.predict_proba(x)
        return np.array([*losses, *net.evaluate(x, labels)]), *arrays

    assert len(bits_by_count(everything, count(COUNTS[::3], COUNTS, COUNTS))) == 1


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_threads_that_share_the_work_on_an_image_give_its_bits(name, dtype, count):
    net = network(name, dtype=dtype)
    x, _ = batch(net, 9)

    def everything():
        return [net.forward(x[:1]), *(net.predict_proba(x[:images]) for images in (1, 2, 5))]

    assert len(bits_by_count(everything, count(COUNTS[::3], COUNTS, COUNTS))) == 1


@pytest.mark.parametrize("name", ("mnist_convnet", "resnet8", "wide"))
def test_threads_do_share_the_work_on_an_image(name):
    program = network(name)._passes.program(np.dtype(np.float32))
    blocks = [stage for stage in program.stages if hasattr(stage, "block")]
    assert any(op.splits for stage in blocks for op in stage.stage.ops)
    assert all(stage.cut(1, 2).split and not stage.cut(1, 1).split for stage in blocks)


def test_thirty_two_python_threads_predict_on_one_network_with_eight_threads_each(count, figure):
    net = network("big Linear in the middle")
    x, _ = batch(net, 64)
    expected = net.predict_proba(x).tobytes()
    cyconv.set_num_threads(COUNTS[-1])
    predictions = count(100, 1000, 10_000)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        results = [pool.submit(net.predict_proba, x) for _ in range(predictions)]
        assert {result.result(60).tobytes() for result in results} == {expected}
    figure("predictions of 32 Python threads on one network, with the same bits", predictions)
