"""More than one process, and other libraries' threads: the same bits, and nobody hangs."""

import hashlib
import importlib.util
import os
import platform

import numpy as np
import pytest

import cyconv
from cyconv import Adam, presets
from cyconv._core import LEVELS, cpu
from tests.zoo import batch

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
LIMIT = 30  # seconds after which a child that hangs is ended


class Run:
    """A training run, and after each step the digest of all its bits."""

    def __init__(self, preset="exercise", images=32):
        self.net, self.optimizer = getattr(presets, preset)(), Adam()
        self.x, self.labels = batch(self.net, images)

    def step(self):
        """Train, predict, and go forward and back by the layers."""
        net = self.net
        loss = net.train_step(self.x, self.labels, self.optimizer)
        y = net.forward(self.x)
        arrays = net._parameters, net.predict_proba(self.x), y, net.backward(np.ones_like(y))
        return hashlib.sha256(b"".join([np.float64(loss), *arrays])).digest()


def first_digests(steps=3):
    """Return the digests of a run's first steps, for a process that knows nothing else."""
    run = Run()
    return [run.step() for _ in range(steps)]


def forked(work):
    """Return the bytes that `work` returns in a forked child, which has `LIMIT` seconds for it."""
    import signal

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(LIMIT)
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = file.read()
    os.waitpid(child, 0)
    return result


@forks
@pytest.mark.parametrize(("preset", "children"), [("exercise", 25), ("wide", 2)])
def test_children_forked_between_the_steps_have_the_bits_of_their_parent(
    preset, children, python, count, figure
):
    rounds = count(1, 2, 40)
    for round_ in range(rounds):
        # In a new process: its threads, and the fate of a child that hangs, are its own.
        printed = python(
            f"""
            import cyconv
            from tests.test_processes import Run, forked
            cyconv.set_num_threads(2)
            run = Run({preset!r}, images={32 + round_})
            for _ in range({children}):
                run.step()
                theirs = forked(run.step)
                assert theirs == run.step(), theirs
            print("the same bits")
            """
        )
        assert printed == "the same bits\n"
    figure(f"forks after training, {preset} network, with the same bits", rounds * children)


@forks
def test_children_forked_while_other_python_threads_compute_have_the_same_bits(
    python, count, figure
):
    children = count(5, 20, 100)
    printed = python(
        f"""
        import threading
        import cyconv
        from tests.test_processes import Run, first_digests, forked
        cyconv.set_num_threads(2)
        expected, end = b"".join(first_digests()), threading.Event()

        def compute(run):
            while not end.is_set():
                run.step()

        threads = [threading.Thread(target=compute, args=[Run()]) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range({children}):
                assert forked(lambda: b"".join(first_digests())) == expected
        finally:
            end.set()
        print("the same bits")
        """
    )
    assert printed == "the same bits\n"
    figure("forks while four Python threads train, with the same bits", children)


@forks
@pytest.mark.parametrize("preset", ("exercise", "wide"))
def test_children_forked_while_a_thread_trains_a_network_can_train_it(
    preset, python, count, figure
):
    children = count(2, 6, 100)
    printed = python(
        f"""
        import threading
        import cyconv
        from tests.test_processes import Run, forked
        run, end = Run({preset!r}), threading.Event()

        def compute():
            while not end.is_set():
                run.net.train_step(run.x, run.labels, run.optimizer)

        def work():
            threads = [threading.Thread(target=run.step) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return run.step()

        thread = threading.Thread(target=compute)
        thread.start()
        try:
            for _ in range({children}):
                assert len(forked(work)) == 32
        finally:
            end.set()
        thread.join()
        run.step()
        print("nobody hung")
        """
    )
    assert printed == "nobody hung\n"
    figure(f"forks while a thread trains the {preset} network, which go on with it", children)


@pytest.mark.parametrize(
    "method", ("fork", "spawn", pytest.param("forkserver", marks=pytest.mark.long))
)
def test_worker_processes_have_the_bits_of_their_parent(method, python):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    printed = python(
        f"""
        import concurrent.futures, multiprocessing
        import cyconv
        from tests.test_processes import LIMIT, first_digests
        cyconv.set_num_threads(2)
        expected = first_digests()
        context = multiprocessing.get_context({method!r})
        with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
            jobs = [pool.submit(first_digests) for _ in range(4)]
            results = [job.result({LIMIT}) for job in jobs]
            print(all(result == expected for result in results))
            print(pool.submit(cyconv.get_num_threads).result() == 1)
        """,
        OMP_NUM_THREADS="3",  # a wish that only a process which may have threads can grant
    )
    assert printed.split() == ["True", str(method == "fork")]


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
@pytest.mark.parametrize("order", ("cyconv, torch", "torch, cyconv"))
def test_torch_may_be_imported_before_and_after(order, python):
    cyconv.set_num_threads(2)
    expected = [digest.hex() for digest in first_digests()]
    printed = python(
        f"""
        import {order}
        from tests.test_processes import Run
        cyconv.set_num_threads(2)
        run, matrix = Run(), torch.ones(300, 300)
        for _ in range(3):
            print(run.step().hex())
            threads = torch.get_num_threads()
            product = (matrix @ matrix).sum().item()  # torch's threads run between ours
            assert (product, torch.get_num_threads()) == (300.0**3, threads)
        """
    )
    assert printed.split() == expected


# The processors that OpenBLAS has kernels for, and the least level of those that run them.
PROCESSORS = {"Nehalem": "baseline", "Sandybridge": "v3", "Haswell": "v3", "SkylakeX": "v4"}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names of x86-64 processors"
)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_results_stay_within_their_bounds_with_the_blas_of_every_processor(
    processor, python, count, figure
):
    levels = LEVELS[: LEVELS.index(cpu.LEVEL) + 1]
    if PROCESSORS[processor] not in levels:
        pytest.skip(f"this machine cannot run what {processor} runs")
    levels = count([PROCESSORS[processor]], levels, levels)
    for level in levels:
        printed = python(
            """
            from cyconv.threads import scipy_blas
            from tests.reference import LARGE
            from tests.test_functional import (
                test_float32_is_within_the_bound_of_a_sum_of_products as sums_are_within_the_bound,
            )
            from tests.test_network import (
                test_a_training_step_is_forward_backward_and_adam as step_is_within_the_bound,
            )
            print(scipy_blas()[0].architecture)
            for case in LARGE:
                if case.groups == case.F:
                    continue  # depthwise: no BLAS takes part
                sums_are_within_the_bound(case)
            for name in ("exercise", "big Linear in the middle"):
                step_is_within_the_bound(name, 37)
            """,
            OPENBLAS_CORETYPE=processor,
            CYCONV_SIMD=level,
        )
        if printed.strip() != processor:
            pytest.skip(f"this BLAS has no kernels for {processor}: it took {printed.strip()}")
    figure(f"OPENBLAS_CORETYPE={processor}: levels of CYCONV_SIMD within the bounds", len(levels))
