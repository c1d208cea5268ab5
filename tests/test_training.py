"""The fit loop: what it measures, what it calls, and that a seed decides everything."""

import math
from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network
from cyconv.layers import BatchNorm, Flatten, Linear, Softmax
from cyconv.training import Callback, History, KeepBest, Progress
from tests.zoo import batch


def small(seed=0, dtype=np.float32):
    return Network([Flatten(), Linear(4), Softmax()], (3, 3, 1), seed, dtype)


@pytest.fixture
def data():
    """Return 50 images and labels of a network with 9 pixels and 4 classes."""
    return batch(small(), 50)


def test_history_has_a_number_for_each_epoch(data):
    history = small().fit(*data, epochs=3, batch_size=16, validation_data=data)
    assert isinstance(history, History)
    for numbers in (history.loss, history.val_loss, history.val_accuracy, history.seconds):
        assert len(numbers) == 3
        assert all(type(number) is float and number >= 0 for number in numbers)
    assert history.loss[2] < history.loss[0]
    without = small().fit(*data, epochs=2)
    assert (len(without.loss), without.val_loss, without.val_accuracy) == (2, [], [])


def test_fit_is_train_step_on_consecutive_batches(data):
    x, labels = data
    nets, optimizers = (small(), small()), (Adam(), Adam())
    history = nets[0].fit(
        x, labels, epochs=2, batch_size=16, optimizer=optimizers[0], shuffle=False,
        validation_data=(x[:7], labels[:7]),
    )  # fmt: skip
    for epoch in range(2):
        losses = [
            nets[1].train_step(x[first : first + 16], labels[first : first + 16], optimizers[1])
            for first in (0, 16, 32, 48)
        ]
        sizes = [16, 16, 16, 2]
        assert history.loss[epoch] == pytest.approx(np.average(losses, weights=sizes), rel=1e-12)
    np.testing.assert_array_equal(nets[0]._parameters, nets[1]._parameters)
    assert (history.val_loss[1], history.val_accuracy[1]) == nets[1].evaluate(x[:7], labels[:7])


def test_an_epoch_shows_every_image_once_with_its_label():
    x = np.arange(50, dtype=np.float32).reshape(50, 1)
    labels = np.arange(50) % 4
    seen = []

    class Spy(Network):
        def _step(self, x, labels, *others, **named):
            seen.append((x[:, 0].copy(), labels.copy()))
            return super()._step(x, labels, *others, **named)

    Spy([Linear(4), Softmax()], (1,)).fit(x, labels, epochs=2, batch_size=16, seed=1)
    assert [len(each) for each, _ in seen] == [16, 16, 16, 2] * 2
    epochs = [np.concatenate([each for each, _ in seen[k : k + 4]]) for k in (0, 4)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), x[:, 0])
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], x[:, 0])
    for images, answers in seen:
        np.testing.assert_array_equal(answers, images % 4)


def test_a_seed_decides_all_bits(data):
    def bits(net_seed, seed, threads):
        cyconv.set_num_threads(threads)
        net = small(net_seed)
        history = net.fit(*data, epochs=3, batch_size=16, seed=seed)
        return history.loss, net._parameters.tobytes()

    assert bits(0, 0, 1) == bits(0, 0, 1) == bits(0, 0, 3)
    assert bits(0, 0, 1) != bits(0, 1, 1)
    assert bits(0, 0, 1) != bits(1, 0, 1)


def test_the_data_stay_as_they_are(data):
    kept = [array.copy() for array in data]
    for array in data:
        array.flags.writeable = False
    small().fit(*data, epochs=2, validation_data=data)
    for array, copy in zip(data, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_callbacks_are_told_epochs_batches_and_losses(data):
    told = []

    class Listener(Callback):
        def on_epoch_begin(self, network, epoch, batches):
            told.append(("begin", epoch, batches))

        def on_batch_end(self, network, batch, loss):
            assert math.isfinite(loss)
            told.append(("batch", batch))

        def on_epoch_end(self, network, epoch, history):
            assert len(history.loss) == len(history.val_loss) == epoch
            told.append(("end", epoch))

    net = small()
    net.fit(*data, epochs=2, batch_size=20, callbacks=[Listener()], validation_data=data)
    one = [("batch", 1), ("batch", 2), ("batch", 3)]
    assert told == [("begin", 1, 3), *one, ("end", 1), ("begin", 2, 3), *one, ("end", 2)]


def test_a_true_result_ends_the_training_and_every_callback_hears_the_last_epoch(data):
    heard = []
    history = small().fit(
        *data,
        epochs=9,
        callbacks=[
            lambda network, epoch, history: epoch == 3,
            lambda network, epoch, history: heard.append(epoch),
        ],
    )
    assert len(history.loss) == 3
    assert heard == [1, 2, 3]


def test_no_epochs_train_nothing(data):
    net, before = small(), small()._parameters
    assert net.fit(*data, epochs=0).loss == []
    np.testing.assert_array_equal(net._parameters, before)


def test_a_batch_larger_than_the_data_is_all_of_it(data):
    one, two = small(), small()
    one.fit(*data, epochs=1, batch_size=1000, shuffle=False)
    two.train_step(*data, Adam())
    np.testing.assert_array_equal(one._parameters, two._parameters)


def test_the_optimizer_goes_on_where_it_was(data):
    x, labels = data
    nets, optimizers = (small(), small()), (Adam(), Adam())
    nets[0].fit(x, labels, epochs=2, optimizer=optimizers[0], shuffle=False)
    for _ in range(2):
        nets[1].fit(x, labels, epochs=1, optimizer=optimizers[1], shuffle=False)
    np.testing.assert_array_equal(nets[0]._parameters, nets[1]._parameters)


@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_data_that_are_not_finite_stop_the_training_and_name_epoch_and_step(value):
    x, labels = batch(small(), 50)
    x = x / np.float32(255)
    x[40] = value
    with pytest.raises(FloatingPointError, match=r"Network\.fit: .*nan at epoch 1, step 3"):
        small().fit(x, labels, batch_size=20, shuffle=False)


def test_a_loss_that_diverges_names_its_epoch(data):
    def poison(network, epoch, history):
        if epoch == 2:
            network.parameters()["1.bias"][0] = np.nan

    with pytest.raises(FloatingPointError, match=r"Network\.fit: .*epoch 3, step 1"):
        small().fit(*data, epochs=5, callbacks=[poison])


@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "a parameter is NaN"), (3e38, "the loss of the validation data is")],
)
def test_weights_that_diverge_in_the_last_step_of_an_epoch_are_found(value, what, data):
    class Poison(Callback):
        def on_batch_end(self, network, batch, loss):
            if batch == 3 and progress.epoch == 1:
                network.parameters()["1.weight"][...] = value

    progress = Progress()
    with pytest.raises(FloatingPointError, match=f"{what}.* after epoch 2, step 3;"):
        small().fit(
            *data, epochs=5, batch_size=20, validation_data=data, callbacks=[Poison()],
            progress=progress,
        )  # fmt: skip
    assert (progress.epoch, progress.batch) == (1, 3)
    assert {len(numbers) for numbers in vars(progress.history).values()} == {1}


@pytest.fixture
def accuracies(monkeypatch):
    """Return a list of the validation accuracies that the next epochs have."""
    numbers = []
    monkeypatch.setattr(Network, "evaluate", lambda *_: (1.0, numbers.pop(0)))
    return numbers


def test_keep_best_has_the_first_of_the_best_epochs(data, accuracies):
    accuracies += [0.25, 0.75, 0.5, 0.75]
    net, best, seen = small(), KeepBest(), []
    assert (best.epoch, best.arrays) == (0, ())
    best.restore(net)
    np.testing.assert_array_equal(net._parameters, small()._parameters)
    callbacks = [best, lambda network, *_: seen.append(network._parameters.copy())]
    net.fit(*data, epochs=4, validation_data=data, callbacks=callbacks)
    assert (best.epoch, best.accuracy, best.steps) == (2, 0.75, net.steps * 2 // len(seen))
    np.testing.assert_array_equal(best.arrays[0], seen[1])
    np.testing.assert_array_equal(net._parameters, seen[3])
    best.restore(net)
    np.testing.assert_array_equal(net._parameters, seen[1])


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 5), (3, 6), (None, 7)])
def test_patience_ends_the_training_after_so_many_epochs_without_a_better_one(
    patience, epochs, data, accuracies
):
    accuracies += [0.5, 0.5, 0.75, 0.5, 0.75, 0.5, 0.5]
    best = KeepBest(patience)
    history = small().fit(*data, epochs=7, validation_data=data, callbacks=[best])
    assert len(history.loss) == epochs


def test_an_accuracy_of_0_is_better_than_none(data, accuracies):
    accuracies += [0.0]
    best = KeepBest()
    small().fit(*data, epochs=1, validation_data=data, callbacks=[best])
    assert (best.epoch, best.accuracy) == (1, 0.0)


def test_keep_best_restores_the_network_it_has_seen_or_one_like_it_and_no_other(data):
    best = KeepBest()
    small().fit(*data, epochs=1, validation_data=data, callbacks=[best])
    best.restore(small())
    larger = Network([Flatten(), Linear(5), Softmax()], (3, 3, 1))
    stateful = Network([BatchNorm(), Flatten(), Linear(4), Softmax()], (3, 3, 1))
    for other in (small(dtype=np.float64), larger, stateful):
        before = other._parameters.copy()
        with pytest.raises(ValueError, match="KeepBest: network must have the layers"):
            best.restore(other)
        np.testing.assert_array_equal(other._parameters, before)


def test_keep_best_needs_validation_data_and_a_patience_it_can_count(data):
    with pytest.raises(ValueError, match="KeepBest: fit must be given validation_data"):
        KeepBest().on_epoch_end(small(), 1, History())
    for patience, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="KeepBest: patience must be"):
            KeepBest(patience)


REFUSED = {
    "labels": lambda x, labels: labels + 1,
    "validation_data": lambda x, labels: (x, labels + 1),
    "callbacks": lambda x, labels: [5],
    "batch_size": lambda x, labels: 0,
    "epochs": lambda x, labels: 1.5,
    "optimizer": lambda x, labels: "adam",
    "seed": lambda x, labels: -1,
    "schedule": lambda x, labels: "steep",
    "progress": lambda x, labels: History(),
    r"progress\.batch must be": lambda x, labels: Progress(batch=-1),
    r"progress\.batch is": lambda x, labels: Progress(batch=2),
    r"progress\.epoch must be": lambda x, labels: Progress(epoch=-1),
    r"progress\.epoch": lambda x, labels: Progress(epoch="1"),
}


class Deaf(Callback):
    def on_epoch_end(self, network):
        """Cannot be called as `fit` does."""


class Later(Callback):
    def on_batch_end(self, network, batch, loss, *, more):
        """Cannot be called as `fit` does."""


UNFIT = {
    r"KeepBest: fit must be given validation_data": [KeepBest(), KeepBest().on_epoch_end],
    r"Network.fit: callbacks must be made, as KeepBest\(\)": [KeepBest, Deaf, dict],
    r"Network.fit: callbacks must be Callback, or callable with 3 arguments": [
        *(Deaf(), Later(), lambda: None, lambda network, epoch: None, Deaf().on_epoch_end),
    ],
}


@pytest.mark.parametrize(
    ("text", "callback"), [(text, each) for text, callbacks in UNFIT.items() for each in callbacks]
)
def test_a_callback_that_cannot_hear_of_the_epoch_is_refused_before_it(text, callback, data):
    net = small()
    with pytest.raises((TypeError, ValueError), match=text):
        net.fit(*data, callbacks=[callback])
    assert net.steps == 0


def test_what_takes_three_arguments_hears_of_the_epoch(data):
    heard = []
    callbacks = [
        lambda *all: heard.append(all[1]),
        lambda network, epoch, history, more=0: heard.append(epoch),
        partial(lambda more, network, epoch, history: heard.append(epoch), 0),
        max,  # whose signature nobody knows
    ]
    with pytest.raises(TypeError, match="not supported between"):
        small().fit(*data, epochs=1, callbacks=callbacks)
    assert heard == [1, 1, 1]


@pytest.mark.parametrize(("images", "size"), [(65, 64), (9, 4), (1, 64), (3, 1)])
def test_a_batch_that_is_too_small_for_a_layer_is_found_before_the_first_step(images, size):
    net = Network([Linear(3), BatchNorm(), Softmax()], (4,))
    x, labels = batch(net, images)
    with pytest.raises(ValueError, match=r"Network.fit: .*BatchNorm '1': training needs 2 values"):
        net.fit(x, labels, batch_size=size)
    assert net.steps == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_argument_trains_nothing(name, data):
    x, labels = data
    net = small()
    with pytest.raises((TypeError, ValueError), match=name):
        argument = name.partition("\\")[0]
        net.fit(**{"x": x, "labels": labels, argument: REFUSED[name](x, labels)})
    np.testing.assert_array_equal(net._parameters, small()._parameters)


def test_weights_that_diverge_in_the_last_step_are_found_without_validation():
    net = Network([Linear(4), Linear(3), Softmax()], (2,))
    first, second = net.parameters()["0.weight"], net.parameters()["1.weight"]
    first[...] = 0  # the loss is finite, the gradient of the first weight is not
    second *= 100
    with pytest.raises(
        FloatingPointError, match="a parameter is NaN or infinite after epoch 1, step 1"
    ):
        net.fit(np.full((4, 2), 1e38, np.float32), [0, 1, 2, 0], epochs=1)
