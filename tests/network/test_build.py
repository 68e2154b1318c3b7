"""The networks that the builder builds."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.network.build import build_model


@pytest.fixture
def build(make_experiment):
    """A function that builds the Keras model for MNIST's images from the model section and the seed."""

    def make(model=None, seed=1, precision="float32", shape=(28, 28, 1), num_classes=10):
        return build_model(make_experiment(model, None, precision, seed), shape, num_classes)

    return make


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_the_documented_network_layer_for_layer(build):
    model = build()
    assert model.count_params() == 121_930
    assert [(type(layer).__name__, layer.output.shape[1:]) for layer in model.layers] == [
        ("Rescaling", (28, 28, 1)),
        ("Conv2D", (26, 26, 32)),
        ("MaxPooling2D", (13, 13, 32)),
        ("Conv2D", (11, 11, 64)),
        ("MaxPooling2D", (5, 5, 64)),
        ("Flatten", (1600,)),
        ("Dense", (64,)),
        ("Dense", (10,)),
    ]
    assert [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")] == [
        "relu",
        "relu",
        "relu",
        "softmax",
    ]
    assert [layer.count_params() for layer in model.layers if layer.weights] == [320, 18_496, 102_464, 650]
    assert model.layers[0].scale == 1 / 255
    assert model.input_shape == (None, 28, 28, 1)
    assert all(layer.__module__.startswith("keras.") for layer in model.layers)


def test_initial_weights_are_glorot_uniform_and_biases_zero(build):
    """Uniform within ±√(6 / (fan in + fan out)): Glorot and Bengio (2010), equation 16."""
    for layer, fans in zip([x for x in build().layers if x.weights], [297, 864, 1664, 74], strict=True):
        kernel, bias = (variable.numpy() for variable in layer.weights)
        bound = np.sqrt(6 / fans)
        assert 0.9 * bound < np.abs(kernel).max() <= bound
        assert not bias.any()


def test_a_seed_gives_the_same_weights_and_another_seed_different_ones(build):
    one, again, other = ([variable.numpy() for variable in build(seed=seed).weights] for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a.ndim > 1)


def test_layers_of_the_same_shape_start_with_different_weights(build):
    model = build({"builder": "mlp", "hidden_units": [8, 8, 8]})
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert not np.array_equal(kernels[1], kernels[2])


def test_the_largest_seed_builds(build):
    assert build(seed=2**31 - 1).count_params() == 121_930


def test_the_mlp_is_fully_connected(build):
    model = build({"builder": "mlp", "hidden_units": [32, 16], "activation": "tanh"})
    assert kinds(model) == ["Rescaling", "Flatten", "Dense", "Dense", "Dense"]
    assert [layer.units for layer in model.layers[2:]] == [32, 16, 10]
    assert [layer.activation.__name__ for layer in model.layers[2:]] == ["tanh", "tanh", "softmax"]
    assert kinds(build({"builder": "mlp", "hidden_units": []})) == ["Rescaling", "Flatten", "Dense"]


def test_batch_normalization_is_between_product_and_activation(build):
    model = build({"batch_normalization": True, "activation": "silu"})
    block = ["Conv2D", "BatchNormalization", "Activation", "MaxPooling2D"]
    assert kinds(model) == ["Rescaling", *block, *block, "Flatten", "Dense", "Dense"]
    convolution, _, activation = model.layers[1:4]
    assert not convolution.use_bias
    assert convolution.activation.__name__ == "linear"
    assert activation.activation.__name__ == "silu"
    mlp = build({"builder": "mlp", "hidden_units": [8], "batch_normalization": True})
    assert kinds(mlp) == ["Rescaling", "Flatten", "Dense", "BatchNormalization", "Activation", "Dense"]
    assert not mlp.layers[2].use_bias
    assert mlp.layers[-1].use_bias


def test_dropout_follows_each_block_and_hidden_layer_that_has_a_rate(build):
    model = build({"conv_dropout": [0.0, 0.25], "dense_units": [16, 8], "dropout": [0.5, 0.0]})
    start = ["Rescaling", "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Dropout"]
    assert kinds(model) == [*start, "Flatten", "Dense", "Dropout", "Dense", "Dense"]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.5]


def test_blocks_follow_their_lists(build):
    model = build({"filters": [4, 5, 6], "kernel_size": [5, 3, 1], "pool_size": [1, 2, 3], "padding": "same"})
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [(layer.filters, layer.kernel_size) for layer in convolutions] == [(4, (5, 5)), (5, (3, 3)), (6, (1, 1))]
    assert {layer.padding for layer in convolutions} == {"same"}
    assert [layer.pool_size for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)] == [
        (2, 2),
        (3, 3),
    ]


def test_penalties_are_on_every_kernel_and_no_bias(build):
    model = build({"l1": 0.01, "l2": 0.02})
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    wanted = sum(0.01 * np.abs(kernel).sum() + 0.02 * np.square(kernel).sum() for kernel in kernels)
    assert len(model.losses) == len(kernels) == 4
    assert float(sum(model.losses)) == pytest.approx(wanted, rel=1e-5)
    assert build().losses == []


def test_input_and_output_follow_from_the_data(build):
    model = build(shape=(20, 16, 3), num_classes=5)
    assert model.input_shape == (None, 20, 16, 3)
    assert model.output_shape == (None, 5)


def test_the_precision_is_that_of_the_experiment_whatever_was_built_before(build):
    for precision, dtype in [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")] * 2:
        model = build({"filters": [2], "batch_normalization": True}, precision=precision)
        assert {variable.dtype for variable in model.weights} == {dtype}
        assert model(np.zeros((1, 28, 28, 1), np.uint8)).dtype == dtype


LOADS = """
import sys
import keras
import numpy as np
model = keras.models.load_model(sys.argv[1])
images = np.load(sys.argv[2], allow_pickle=False)
outputs = {"bytes": model(images), "floats": model(images.astype("float32"))}
outputs["predict"] = model.predict(images, verbose=0)
np.savez(sys.argv[3], **{name: np.asarray(output) for name, output in outputs.items()})
assert not any(name.startswith("cnn_trainer") for name in sys.modules)
"""


def test_a_saved_model_is_any_keras_users_and_takes_raw_images(build, digits, tmp_path):
    """It has every kind of layer, and is loaded in a process that does not import this package."""
    model = build({"batch_normalization": True, "conv_dropout": 0.2, "dropout": 0.5, "l2": 0.001})
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", digits.images)
    places = [str(tmp_path / name) for name in ("model.keras", "images.npy", "found.npz")]
    done = subprocess.run([sys.executable, "-c", LOADS, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = model(tf.constant(digits.images, tf.float32)).numpy()
    assert wanted.std() > 0.001
    with np.load(places[2], allow_pickle=False) as found:
        for name in ("bytes", "floats", "predict"):
            assert np.abs(found[name] - wanted).max() < 1e-6
