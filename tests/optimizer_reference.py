"""Optimizers as their papers and PyTorch print them, in NumPy."""

import numpy as np


class Adam:
    """Algorithm 1 of Kingma & Ba (2014), as printed."""

    def __init__(self, size, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.m, self.v, self.t = np.zeros(size), np.zeros(size), 0
        self.learning_rate, (self.beta1, self.beta2), self.eps = learning_rate, betas, eps

    def step(self, theta, g):
        """Return the next theta."""
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return theta - self.learning_rate * m_hat / (np.sqrt(v_hat) + self.eps)


class AdamW(Adam):
    """Algorithm 2 of Loshchilov & Hutter (2019), the decay times the rate as in PyTorch."""

    def __init__(self, size, weight_decay=0.01, **others):
        super().__init__(size, **others)
        self.weight_decay = weight_decay

    def step(self, theta, g):
        """Return the next theta."""
        return super().step(theta * (1 - self.learning_rate * self.weight_decay), g)


class SGD:
    """The algorithm in PyTorch's documentation of torch.optim.SGD, dampening 0."""

    def __init__(self, size, learning_rate, momentum=0, nesterov=False, weight_decay=0):
        self.b, self.learning_rate, self.momentum = None, learning_rate, momentum
        self.nesterov, self.weight_decay = nesterov, weight_decay

    def step(self, theta, g):
        """Return the next theta."""
        g = g + self.weight_decay * theta
        if self.momentum:
            self.b = g if self.b is None else self.momentum * self.b + g
            g = g + self.momentum * self.b if self.nesterov else self.b
        return theta - self.learning_rate * g


def clipped(g, max_norm):
    """Return g scaled as torch.nn.utils.clip_grad_norm_ does."""
    return g if max_norm is None else g * min(1, max_norm / (np.linalg.norm(g) + 1e-6))
