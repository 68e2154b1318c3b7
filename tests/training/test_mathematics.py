"""Forward propagation, back-propagation and gradient descent, written out in NumPy and compared with the compiled step.

Everything between the imports and the tests is the theory: float64, from the equations, without TensorFlow.
A gradient ∂L/∂A is written dA. n is the index of an image in a batch of N, and the loss L is the batch mean.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view

from cnn_trainer.data import Split
from cnn_trainer.network.logits import build_logits

# Differences are relative to the largest entry of their array.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def sigmoid(z):
    """σ(z) = 1 / (1 + e⁻ᶻ)."""
    return 1 / (1 + np.exp(-z))


def sigmoid_backward(da, z):
    """dz = da σ(z) (1 − σ(z))."""
    return da * sigmoid(z) * (1 - sigmoid(z))


def relu(z):
    """max(z, 0)."""
    return np.maximum(z, 0)


def relu_backward(da, z):
    """dz = da where z > 0, else 0."""
    return da * (z > 0)


ACTIVATIONS = {"sigmoid": (sigmoid, sigmoid_backward), "relu": (relu, relu_backward)}


def softmax(z):
    """p_c = exp(z_c) / Σ_k exp(z_k); subtracting the largest z_c first changes nothing but the rounding."""
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(z, labels):
    """L = −1/N Σ_n ln p_{n, y_n} with p = softmax(z); dz = (p − onehot(y)) / N."""
    p, rows = softmax(z), np.arange(len(z))
    return -np.log(p[rows, labels]).mean(), (p - np.eye(z.shape[1])[labels]) / len(z)


def mean_squared_error(z, labels):
    """L = 1/(N C) Σ_n Σ_c (p_nc − onehot(y_n)_c)².

    dp = 2 (p − onehot(y)) / (N C), and through softmax, whose Jacobian is ∂p_c/∂z_k = p_c (δ_ck − p_k),
    dz_k = p_k (dp_k − Σ_c dp_c p_c).
    """
    p = softmax(z)
    difference = p - np.eye(z.shape[1])[labels]
    dp = 2 * difference / difference.size
    return np.square(difference).mean(), p * (dp - (dp * p).sum(axis=1, keepdims=True))


LOSSES = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared_error}


def dense(a, w, b):
    """z_nj = Σ_i a_ni w_ij + b_j."""
    return a @ w + b


def dense_backward(dz, a, w):
    """da = dz wᵀ; dw = aᵀ dz; db = Σ_n dz_n."""
    return dz @ w.T, a.T @ dz, dz.sum(axis=0)


def convolution(x, w, b):
    """z_{n,i,j,f} = Σ_{u,v,c} x_{n,i+u,j+v,c} w_{u,v,c,f} + b_f, wherever the kernel lies within the image."""
    patches = sliding_window_view(x, w.shape[:2], axis=(1, 2))  # n, i, j, c, u, v
    return np.einsum("nijcuv,uvcf->nijf", patches, w, optimize=True) + b


def convolution_backward(dz, x, w):
    """dw_{u,v,c,f} = Σ_{n,i,j} x_{n,i+u,j+v,c} dz_{n,i,j,f}; db_f = Σ_{n,i,j} dz_{n,i,j,f}.

    x_{n,i+u,j+v,c} took part in z_{n,i,j,f} through w_{u,v,c,f}, so dx_{n,i+u,j+v,c} is the sum of all
    dz_{n,i,j,f} w_{u,v,c,f}.
    """
    height, width = dz.shape[1:3]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for u in range(w.shape[0]):
        for v in range(w.shape[1]):
            dw[u, v] = np.tensordot(x[:, u : u + height, v : v + width], dz, axes=([0, 1, 2], [0, 1, 2]))
            dx[:, u : u + height, v : v + width] += dz @ w[u, v].T
    return dx, dw, dz.sum(axis=(0, 1, 2))


def max_pool(a, size):
    """m_{n,i,j,c} = max over 0 ≤ u, v < size of a_{n, size i + u, size j + v, c}; what is left over is dropped."""
    height, width = a.shape[1] // size, a.shape[2] // size
    m = np.full((len(a), height, width, a.shape[3]), -np.inf)
    for u in range(size):
        for v in range(size):
            m = np.maximum(m, a[:, u : u + size * height : size, v : v + size * width : size])
    return m


def max_pool_backward(dm, a, m, size):
    """da is dm at the first largest value of each window, row by row, and 0 everywhere else."""
    height, width = m.shape[1:3]
    da, open_windows = np.zeros_like(a), np.ones(m.shape, bool)
    for u in range(size):
        for v in range(size):
            place = np.s_[:, u : u + size * height : size, v : v + size * width : size]
            chosen = open_windows & (a[place] == m)
            da[place] = dm * chosen
            open_windows &= ~chosen
    return da


@dataclass(frozen=True)
class Theory:
    """One pass forward and back: the loss, logits (N, C), and the gradient of every weight in the weights' order."""

    loss: float
    logits: np.ndarray
    gradients: list[np.ndarray]


def mlp(images, labels, weights, activation, loss):
    """a⁰ = pixels / 255; zˡ = aˡ⁻¹ wˡ + bˡ; aˡ = f(zˡ); the last z are the logits; back by the chain rule."""
    f, f_backward = ACTIVATIONS[activation]
    a, kernels, biases = [images.reshape(len(images), -1) / 255], weights[0::2], weights[1::2]
    z = []
    for w, b in zip(kernels, biases, strict=True):
        z.append(dense(a[-1], w, b))
        a.append(f(z[-1]))
    value, dz = LOSSES[loss](z[-1], labels)
    gradients = []
    for layer in reversed(range(len(kernels))):
        da, dw, db = dense_backward(dz, a[layer], kernels[layer])
        gradients = [dw, db, *gradients]
        if layer:
            dz = f_backward(da, z[layer - 1])
    return Theory(value, z[-1], gradients)


def cnn(images, labels, weights, activation="relu", loss="cross_entropy"):
    """The documented network, one line per layer, forward and back."""
    w1, b1, w2, b2, w3, b3, w4, b4 = weights
    f, f_backward = ACTIVATIONS[activation]
    x = images / 255
    z1 = convolution(x, w1, b1)
    m1 = max_pool(f(z1), 2)
    z2 = convolution(m1, w2, b2)
    m2 = max_pool(f(z2), 2)
    flat = m2.reshape(len(m2), -1)
    z3 = dense(flat, w3, b3)
    z4 = dense(f(z3), w4, b4)
    value, dz4 = LOSSES[loss](z4, labels)
    da3, dw4, db4 = dense_backward(dz4, f(z3), w4)
    dflat, dw3, db3 = dense_backward(f_backward(da3, z3), flat, w3)
    dz2 = f_backward(max_pool_backward(dflat.reshape(m2.shape), f(z2), m2, 2), z2)
    dm1, dw2, db2 = convolution_backward(dz2, m1, w2)
    dz1 = f_backward(max_pool_backward(dm1, f(z1), m1, 2), z1)
    _, dw1, db1 = convolution_backward(dz1, x, w1)
    return Theory(value, z4, [dw1, db1, dw2, db2, dw3, db3, dw4, db4])


NETWORKS = {
    "sigmoid mlp": ({"builder": "mlp", "hidden_units": [32, 16], "activation": "sigmoid"}, mlp, "mean_squared_error"),
    "relu mlp": ({"builder": "mlp", "hidden_units": [64]}, mlp, "cross_entropy"),
    "documented cnn": ({"builder": "cnn"}, cnn, "cross_entropy"),
}


def theory_of(network, weights, images, labels):
    settings, passes, loss = NETWORKS[network]
    weights = [weight.astype(np.float64) for weight in weights]
    activation = settings["activation"] if "activation" in settings else "relu"
    return passes(images.astype(np.float64), labels, weights, activation, loss)


@pytest.fixture
def start(make_experiment, make_trainer):
    """A function that builds one of NETWORKS with biases that are not 0, unlike initial ones."""

    def make(network, split, precision, towers, learning_rate, batch_size):
        settings, _, loss = NETWORKS[network]
        plain = {"optimizer": "sgd", "learning_rate": learning_rate, "batch_size": batch_size, "loss": loss}
        trainer = make_trainer(make_experiment(settings, plain, precision), split, towers)
        random = np.random.default_rng(3)
        for variable in trainer.model.trainable_variables:
            if len(variable.shape) == 1:
                variable.assign(random.normal(0, 0.1, variable.shape))
        return trainer

    return make


def assert_close(found, wanted, tolerance):
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 0
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("precision", "towers"), [("float64", 1), ("float64", 2), ("float32", 2)])
def test_the_compiled_step_is_the_mathematics(network, precision, towers, start, digits):
    split, rate = Split(digits.images[:33], digits.labels[:33]), 16.0  # 33 images: two towers get 16 and 17
    trainer = start(network, split, precision, towers, rate, len(split))
    before, tolerance = trainer.weights(), TOLERANCE[precision]
    theory = theory_of(network, before, split.images, split.labels)
    assert before[0].dtype == precision
    assert_close(trainer.model(split.images.astype(precision)).numpy(), softmax(theory.logits), tolerance)
    logits = build_logits(trainer.model, towers)(trainer.model.trainable_variables, split.images)
    assert_close(logits, theory.logits, tolerance)

    sums = trainer.train()
    assert sums.examples == 33
    assert sums.loss / 33 == pytest.approx(theory.loss, rel=tolerance)
    assert sums.correct == (theory.logits.argmax(axis=1) == split.labels).sum()
    for was, now, gradient in zip(before, trainer.weights(), theory.gradients, strict=True):
        assert_close((was.astype(np.float64) - now) / rate, gradient, tolerance)  # every gradient
        assert_close(now, was - rate * gradient, tolerance)  # one update: θ ← θ − η∇L


@pytest.mark.parametrize("network", NETWORKS)
def test_an_epoch_of_gradient_descent_is_the_mathematics(network, start, digits):
    """Three steps, the last with a partial batch of 6 images; batches of 32 do not divide evenly by three towers."""
    rate = 0.5
    trainer = start(network, digits, "float64", 3, rate, 32)
    weights = trainer.weights()
    order = np.random.default_rng(1).permutation(70)
    total = 0.0
    for chosen in (order[:32], order[32:64], order[64:]):
        theory = theory_of(network, weights, digits.images[chosen], digits.labels[chosen])
        weights = [weight - rate * gradient for weight, gradient in zip(weights, theory.gradients, strict=True)]
        total += theory.loss * len(chosen)
    sums = trainer.train(order=order)
    assert sums.loss == pytest.approx(total, rel=1e-9)
    for found, wanted in zip(trainer.weights(), weights, strict=True):
        assert_close(found, wanted, 1e-9)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_written_out_gradients_are_the_slopes_of_the_loss(network, start, digits):
    """Central differences, (L(w + h) − L(w − h)) / 2h, for the two weights with the largest gradient in each array."""
    batch = digits.images[:4], digits.labels[:4]
    weights = start(network, Split(*batch), "float64", 1, 1.0, 4).weights()
    h = 1e-6
    for weight, gradient in zip(weights, theory_of(network, weights, *batch).gradients, strict=True):
        for place in np.argsort(-np.abs(gradient), axis=None)[:2]:
            value = weight.flat[place]
            weight.flat[place] = value + h
            above = theory_of(network, weights, *batch).loss
            weight.flat[place] = value - h
            below = theory_of(network, weights, *batch).loss
            weight.flat[place] = value
            assert (above - below) / (2 * h) == pytest.approx(gradient.flat[place], rel=1e-5, abs=1e-9)


def test_one_and_two_towers_agree(start, digits):
    """Up to rounding: the sums over a batch are taken in another order."""
    one, two = (start("documented cnn", digits, "float64", towers, 0.5, 33) for towers in (1, 2))
    sums = [trainer.train() for trainer in (one, two)]
    assert sums[0].loss == pytest.approx(sums[1].loss, rel=1e-12)
    assert sums[0].correct == sums[1].correct
    for first, second in zip(one.weights(), two.weights(), strict=True):
        assert_close(first, second, 1e-12)


def test_the_numpy_convolution_is_the_sum_that_it_is_defined_as():
    random = np.random.default_rng(0)
    x, w, b = random.normal(size=(2, 5, 6, 3)), random.normal(size=(2, 3, 3, 4)), random.normal(size=4)
    z = convolution(x, w, b)
    assert z.shape == (2, 4, 4, 4)
    for n, i, j, f in np.ndindex(z.shape):
        terms = (x[n, i + u, j + v, c] * w[u, v, c, f] for u, v, c in np.ndindex(2, 3, 3))
        assert z[n, i, j, f] == pytest.approx(b[f] + sum(terms), rel=1e-12)
    assert np.allclose(z, tf.nn.conv2d(x, w, 1, "VALID").numpy() + b, rtol=1e-12)
