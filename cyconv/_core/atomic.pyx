"""What must happen as a whole: no Python code runs in between, in which Ctrl-C could come."""

import os
import threading
from time import perf_counter

get_ident, getpid = threading.get_ident, os.getpid


cdef class Turn:
    """A lock that lets threads take their steps one after another.

    It knows its process, since in a forked child no thread is left that would release it, and its
    thread, which would wait for itself for ever.
    """

    cdef object lock, process, thread

    def take(self, who, call, *arguments):
        """Return call(*arguments) when it is this thread's turn, which ends whatever happens.

        Raises
        ------
        RuntimeError
            If it is this thread's turn already.
        """
        process, thread = getpid(), get_ident()
        if self.process != process:
            self.lock, self.process, self.thread = threading.Lock(), process, None
        if self.thread == thread:
            raise RuntimeError(
                f"{who}: a step of this network is under way in this thread, and an optimizer, a "
                "layer or a signal handler asks for another; take it when that one is done, or "
                "train a copy: copy.deepcopy(network)"
            )
        with self.lock:
            self.thread = thread
            try:
                return call(*arguments)
            finally:
                self.thread = None


def take_step(optimizer, arenas, state, loss=None, rate=None, then=None):
    """Let an optimizer move the parameters; then the state is `state`, and the step is counted.

    All of it happens, or nothing. If an interrupt comes inside the optimizer, whose `t` has counted
    the step or has not, the rest goes with it.

    Parameters
    ----------
    arenas : Arenas
    state : ndarray
        The new one.
    loss : float
        For `then`.
    rate : (str, float), optional
        An attribute of the optimizer, and its value in this step.
    then : callable, optional
        `then(loss)` is part of the step: compiled code too.
    """
    parameters, gradients, kept, steps = arenas
    before = getattr(optimizer, "t", None)
    usual = None if rate is None else getattr(optimizer, rate[0])
    taken = False
    try:
        if rate is not None:
            setattr(optimizer, *rate)
        optimizer.step(parameters, gradients)
        taken = True
    except BaseException:
        taken = before is not None and optimizer.t != before
        raise
    finally:
        if taken:
            kept[...] = state
            steps += 1
            if then is not None:
                then(loss)
        if rate is not None:
            setattr(optimizer, rate[0], usual)


def count_step(progress, images, start, take_in, loss):
    """Let a `Progress` know of a step, and its average, by take_in(), if it has one."""
    if take_in is not None:
        take_in()
    progress.batch += 1
    progress.loss += loss * images
    progress.seconds += perf_counter() - start
    progress._news = 0, "on_batch_end", (progress.batch, loss)


def count_epoch(progress, measured):
    """Let a `Progress` know of an epoch: `measured` has lists of its history, and what is new."""
    for numbers, number in measured:
        numbers.append(number)
    progress.epoch += 1
    progress.batch, progress.loss, progress.seconds = 0, 0.0, 0.0
    progress._news = 0, "on_epoch_end", (progress.epoch, progress.history)


def tell(progress, callback, network):
    """Tell a callback the news of a `Progress`, and note that it has heard them."""
    heard, name, arguments = progress._news
    call, repeats = getattr(callback, name), callback.repeats
    after = heard + 1, name, arguments
    if not repeats:
        progress._news = after
    answer = call(network, *arguments)
    progress._news = after
    return answer


def take_in(average, arenas, mean, blends):
    """Let an `Average` have a mean, of which `blends` are calls (kernel, arguments), or begin."""
    if not average.mean:
        copy(arenas, mean)
        average.mean = mean
        return
    for kernel, arguments in blends:
        kernel(*arguments)


def wear(average, arenas, raw):
    """Let arrays have an `Average`, and `raw` their own content."""
    copy(arenas, raw)
    average.raw = raw
    copy(average.mean, arenas)


def take_off(average, arenas):
    """Let arrays have their own content back."""
    copy(average.raw, arenas)
    average.raw = ()


cdef copy(sources, targets):
    for source, target in zip(sources, targets):
        target[...] = source
