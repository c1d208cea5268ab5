"""A program as users write them, with types: mypy accepts it, and every wheel must run it."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cyconv
from cyconv.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Softmax,
)
from cyconv.losses import CrossEntropy
from cyconv.training import History

Floats = NDArray[np.float32]


class Negative(Layer):
    def forward(self, x: Floats) -> Floats:
        return -x

    def backward(self, dy: Floats) -> Floats:
        return -dy


class Doubled(Layer):
    def forward(self, x: Floats, training: bool = False) -> Floats:
        self.factor = np.float32(2 if training else 1)
        return self.factor * x

    def backward(self, dy: Floats) -> Floats:
        return self.factor * dy


class Descent:
    def step(self, weights: Floats, gradients: Floats) -> None:
        weights -= 0.1 * gradients


def report(network: cyconv.Network, epoch: int, history: History) -> None:
    print(f"{len(network.layers)} layers, epoch {epoch}, loss {history.loss[-1]:.3f}")


rng = np.random.default_rng(0)
images: Floats = rng.random((2, 6, 5, 3), np.float32)
weight: Floats = rng.random((3, 2, 3, 4), np.float32)
y = cyconv.conv2d(images, weight, padding="same")
cols = cyconv.im2col(images, (3, 2), padding="same")
assert np.allclose(y.reshape(-1, 4), cols @ weight.reshape(-1, 4), atol=1e-5)
assert np.allclose(y, cyconv.naive.conv2d(images, weight, padding=((1, 1), (0, 1))), atol=1e-5)
dx, dweight, dbias = cyconv.conv2d_backward(y, images, weight, padding="same")
assert dx.shape == images.shape and dweight.shape == weight.shape and dbias.shape == (4,)
outputs: int = cyconv.conv_output_size(28, 4, stride=4)

cyconv.set_num_threads(1)
(x, labels), test = cyconv.datasets.load_digits()
layers = [Conv2D(16, 4, stride=4), LeakyReLU(), Negative(), Flatten(), Linear(10), Softmax()]
net = cyconv.Network(layers, input_shape=(28, 28, 1), seed=0)
loss: float = net.train_step(x[:64], labels[:64], Descent())
net.fit(x, labels, epochs=9, optimizer=cyconv.Adam(5e-3), validation_data=test, callbacks=[report])
accuracy: float = net.evaluate(*test)[1]
assert accuracy > 0.8
body = [Conv2D(8, 3, padding="same", bias=False), BatchNorm(), ReLU(), Doubled()]
deep = cyconv.Network(
    [
        MaxPool2D(2),
        Conv2D(8, 1),
        Residual(body),
        Dropout(0.1),
        GlobalAvgPool2D(),
        Linear(10),
        Softmax(),
    ]
)
loss = deep.train_step(x[:64], labels[:64], cyconv.SGD(0.1, momentum=0.9), CrossEntropy(0.1))
probabilities: Floats = deep.forward(x[:9], training=True)
assert list(deep.state()) == ["2.body.1.running_mean", "2.body.1.running_var"]
pooled: Floats = cyconv.max_pool2d(images, (2, 1), rounding="floor")
small = cyconv.presets.resnet8(input_shape=(8, 8, 3), classes=4)
assert small.predict_proba(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 4)
preset = cyconv.presets.exercise(seed=1)
with tempfile.TemporaryDirectory() as folder:
    preset.save(Path(folder, "model.safetensors"))
    copy = cyconv.Network.load(Path(folder, "model.safetensors"))
assert np.array_equal(copy.predict(x[:9]), preset.predict(x[:9]))
print(f"accuracy {accuracy:.3f}")
