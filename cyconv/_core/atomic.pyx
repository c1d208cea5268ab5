"""What must happen as a whole: no Python code runs in between, in which Ctrl-C could come."""


def holding(lock, call, *arguments):
    """Return call(*arguments) while a lock is held, which is released whatever happens."""
    with lock:
        return call(*arguments)


def take_step(optimizer, arenas, state):
    """Let an optimizer move the parameters; then the state is `state`, and the step is counted.

    `arenas` has the arrays parameters, gradients, state and steps. All of it happens, or nothing.
    If an interrupt comes inside the optimizer, whose `t` has counted the step or has not, the rest
    goes with it.
    """
    parameters, gradients, kept, steps = arenas
    before = getattr(optimizer, "t", None)
    try:
        optimizer.step(parameters, gradients)
    except BaseException:
        if before is not None and optimizer.t != before:
            kept[...] = state
            steps += 1
        raise
    kept[...] = state
    steps += 1
