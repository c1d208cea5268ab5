"""The moving average of the weights: what it is, where it is seen, and that training goes on."""

import math

import numpy as np
import pytest

import cyconv
from cyconv import Network
from cyconv.averages import Average, arenas
from cyconv.optimizers import SGD
from cyconv.training import Callback, KeepBest, Progress, fit
from tests.test_resume import Run, Stop
from tests.test_training import small
from tests.zoo import batch


@pytest.fixture
def data():
    return batch(small(), 50)


class Weights(Callback):
    """Copy the weights after each step and at the end of each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_batch_end(self, network, batch, loss):
        self.steps.append(network._parameters.copy())

    def on_epoch_end(self, network, epoch, history):
        self.epochs.append(network._parameters.copy())


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_it_is_that_of_pytorch(dtype):
    swa_utils = pytest.importorskip("torch.optim.swa_utils")
    import torch

    model = torch.nn.Linear(50, 3).to(getattr(torch, np.dtype(dtype).name))
    theirs = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    ours, rng = Average(0.9), np.random.default_rng(0)
    for _ in range(20):
        arrays = tuple(rng.normal(size=size).astype(dtype) for size in (150, 3))
        with torch.no_grad():
            model.weight[...] = torch.from_numpy(arrays[0].reshape(3, 50))
            model.bias[...] = torch.from_numpy(arrays[1])
        theirs.update_parameters(model)
        ours.update(arrays)
    for mean, expected in zip(ours.mean, theirs.module.parameters(), strict=True):
        expected = expected.detach().numpy().ravel()
        np.testing.assert_allclose(mean, expected, rtol=0, atol=8 * np.finfo(dtype).eps)


def test_it_has_the_same_bits_for_any_number_of_threads():
    results = set()
    for threads in (1, 2, 3):
        cyconv.set_num_threads(threads)
        average, rng = Average(0.7), np.random.default_rng(0)
        for _ in range(3):
            average.update((rng.random(100_003, np.float32), np.zeros(0, np.float32)))
        results.add(average.mean[0].tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_training_is_as_without_it_and_the_network_is_seen_with_it(dtype):
    x, labels = batch(small(), 50)
    nets, progress, best = [small(0, dtype) for _ in range(2)], Progress(), KeepBest()
    plain, seen = Weights(), Weights()
    expected = fit(nets[0], x, labels, 3, 20, callbacks=[plain])
    history = fit(
        nets[1], x, labels, 3, 20, callbacks=[seen, best], validation_data=(x, labels),
        progress=progress, ema=0.8,
    )  # fmt: skip
    assert history.loss == expected.loss
    mean = plain.steps[0].astype(np.float64)
    means = [mean]
    for step, weights in enumerate(plain.steps):
        np.testing.assert_array_equal(weights, seen.steps[step])
        if step:
            mean = 0.8 * mean + 0.2 * weights
            means.append(mean)
    bound = 8 * np.finfo(dtype).eps
    for epoch, weights in enumerate(seen.epochs):
        np.testing.assert_allclose(weights, means[3 * epoch + 2], rtol=0, atol=bound)
        net = small(0, dtype)
        net._parameters[...] = weights
        measured = history.val_loss[epoch], history.val_accuracy[epoch]
        assert measured == net.evaluate(x, labels)
    np.testing.assert_array_equal(best.arrays[0], seen.epochs[best.epoch - 1])
    np.testing.assert_array_equal(nets[1]._parameters, seen.epochs[-1])
    np.testing.assert_array_equal(progress.average.raw[0], plain.steps[-1])


def test_a_run_ended_within_an_epoch_leaves_the_average_too():
    run, weights = Run(kind="AdamW"), Weights()
    run.train(callbacks=[weights, Stop(2)])
    average = run.progress.average
    np.testing.assert_array_equal(run.network._parameters, average.mean[0])
    np.testing.assert_array_equal(average.raw[0], weights.steps[-1])
    assert not np.array_equal(average.mean[0], average.raw[0])


@pytest.mark.parametrize("error", (KeyboardInterrupt, FloatingPointError))
def test_an_error_in_a_step_leaves_the_average_and_the_run_goes_on(error, data):
    class Fault(SGD):
        def step(self, parameters, gradients):
            if self.t == 5:
                raise error
            super().step(parameters, gradients)

    nets, progress, optimizer = (small(), small()), Progress(), Fault(0.1)
    with pytest.raises(error):
        fit(nets[0], *data, 3, 20, optimizer, progress=progress, ema=0.9)
    assert (progress.epoch, progress.batch) == (1, 2) and progress.average.raw
    optimizer.__class__ = SGD
    fit(nets[0], *data, 3, 20, optimizer, progress=progress, ema=0.9)
    fit(nets[1], *data, 3, 20, SGD(0.1), ema=0.9)
    np.testing.assert_array_equal(nets[0]._parameters, nets[1]._parameters)


def test_before_the_first_step_there_is_none(data):
    net, progress = small(), Progress()
    fit(net, *data, 0, ema=0.9, progress=progress)
    np.testing.assert_array_equal(net._parameters, small()._parameters)
    assert (progress.average.mean, progress.average.raw) == ((), ())


def test_putting_on_and_taking_off_are_each_done_once():
    average, arrays = Average(0.5), (np.ones(3),)
    average.wear(arrays)
    average.take_off(arrays)
    average.update(arrays)
    arrays[0][...] = 2
    average.update(arrays)
    average.wear(arrays)
    np.testing.assert_array_equal(arrays[0], np.full(3, 1.5))
    arrays[0][...] = 7  # whatever is done to the average
    average.wear(arrays)
    average.take_off(arrays)
    np.testing.assert_array_equal(arrays[0], np.full(3, 2))
    average.take_off(arrays)
    np.testing.assert_array_equal(arrays[0], np.full(3, 2))
    assert average.raw == ()


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (1, ValueError), (-0.5, ValueError), (1.5, ValueError),
     (math.nan, ValueError), (10**400, ValueError), ("0.9", TypeError), (True, TypeError),
     ([], TypeError)],
)  # fmt: skip
def test_a_decay_that_is_none_trains_nothing(value, error, data):
    net, progress = small(), Progress()
    with pytest.raises(error, match=r"^Network\.fit: ema must be"):
        fit(net, *data, ema=value, progress=progress)
    with pytest.raises(error, match=r"^Average: decay must be"):
        Average(value)
    np.testing.assert_array_equal(net._parameters, small()._parameters)
    assert progress.average is None


@pytest.mark.parametrize("value", (None, 0.9))
def test_a_run_goes_on_with_its_own_decay_only(value):
    run = Run(kind="AdamW")
    run.train(Stop(2))
    before = run.bits()
    with pytest.raises(ValueError, match=r"Network\.fit: ema must be 0.8, with which progress"):
        run.train(ema=value)
    assert run.bits() == before


def test_an_average_of_other_weights_is_refused(data):
    run = Run(kind="AdamW")
    run.train(Stop(2))
    other = Network([cyconv.layers.Flatten(), cyconv.layers.Linear(5), cyconv.layers.Softmax()],
                    (3, 3, 1))  # fmt: skip
    for net in (other, small(0, np.float64)):
        with pytest.raises(ValueError, match="progress has the average of another network's"):
            fit(net, *data, 3, 15, progress=run.progress, ema=0.8)
    assert not run.progress.average.fits(arenas(other))


@pytest.mark.parametrize("value", ("plain", 0.1, cyconv.losses.cross_entropy))
def test_what_is_not_a_loss_trains_nothing(value, data):
    net = small()
    with pytest.raises(TypeError, match=r"^Network\.fit: loss must be a CrossEntropy, got"):
        fit(net, *data, loss=value)
    for weight, text in (([1] * 5, "must have 4 numbers"), ([1e308] * 4, "a sum to divide by")):
        with pytest.raises(ValueError, match=rf"^Network\.fit: class_weight .*{text}"):
            fit(net, *data, loss=cyconv.losses.CrossEntropy(0, weight))
    np.testing.assert_array_equal(net._parameters, small()._parameters)


def test_a_batch_without_weight_is_not_a_step(data):
    x, labels = data
    net, loss = small(), cyconv.losses.CrossEntropy(0, [1, 0, 0, 0])
    with pytest.raises(ValueError, match="class_weight of the batch's labels must have a sum to"):
        fit(net, x[labels.argsort()[::-1]], np.sort(labels)[::-1], 1, 5, shuffle=False, loss=loss)
    np.testing.assert_array_equal(net._parameters, small()._parameters)
