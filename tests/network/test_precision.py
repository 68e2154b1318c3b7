"""Whether another precision pays off: what is timed, and what is said about the result. No test demands a speed."""

import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.network import precision
from cnn_trainer.network.build import build_model
from cnn_trainer.network.rewrite import cropped_size, read_model
from cnn_trainer.network.work import flop_per_image

NETWORKS = {
    "documented": ({}, (28, 28, 1)),
    "padded, normalised, rgb": ({"padding": "same", "batch_normalization": True, "dropout": 0.2}, (12, 15, 3)),
    "no pool, no dense layer": ({"filters": [3], "pool_size": 1, "dense_units": []}, (9, 9, 1)),
    "fully connected": ({"builder": "mlp"}, (8, 8, 3)),
    "softmax regression": ({"builder": "mlp", "hidden_units": []}, (8, 8, 1)),
}


@pytest.fixture
def model(make_experiment):
    """A function that builds the Keras model from the section model and the images' shape."""
    return lambda section, image_shape: build_model(make_experiment(section), image_shape, 10)


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_timed_is_the_work_of_a_training_step_in_the_precision(model, network):
    """All products together need as many operations as were counted for the network."""
    built = model(*NETWORKS[network])

    def multiplied(product):
        assert product().dtype == "bfloat16"
        options, shapes = product.keywords, [tuple(value.shape) for value in product.args if tf.is_tensor(value)]
        if "out_backprop" in options:  # as many as the convolution that it belongs to
            kernel = options["filter_sizes"] if "filter_sizes" in options else options["filter"].shape
            return np.prod(kernel[:3]) * np.prod(options["out_backprop"].shape)
        if product.func is tf.nn.conv2d:
            return np.prod(shapes[1][:3]) * np.prod(product().shape)
        return np.prod(product().shape) * shapes[0][0 if "transpose_a" in options else 1]

    operations, shapes = read_model(built), [tuple(variable.shape) for variable in built.trainable_variables]
    size = (*cropped_size(operations, *built.input_shape[1:3]), built.input_shape[3])
    total = sum(multiplied(product) for product in precision._products(built, "bfloat16", 5))
    assert 2 * total == 5 * flop_per_image(operations, size, shapes)


def test_a_large_network_is_timed_with_fewer_images(model, monkeypatch):
    built = model({}, (28, 28, 1))
    monkeypatch.setattr(precision, "_MAX_FLOP", 3 * 12.4e6)
    assert precision._products(built, "float32", 64)[0]().shape[0] == 3
    monkeypatch.setattr(precision, "_MAX_FLOP", 1)
    assert precision._products(built, "float32", 64)[0]().shape[0] == 1


def test_the_gain_is_the_median_over_neighbours(model, monkeypatch):
    """A machine that becomes ten times slower halfway says nothing about either precision."""
    built = model({"filters": [1], "dense_units": []}, (8, 8, 1))
    repeats = [(9.0, 9.0), (3.0, 2.0), (3.0, 2.0), (3.0, 2.0), (30.0, 20.0), (30.0, 2.0), (30.0, 20.0), (30.0, 20.0)]
    seconds = iter([second for repeat in repeats for second in repeat])
    monkeypatch.setattr(precision, "_seconds", lambda _: next(seconds))
    assert precision.measure_gain(built, "bfloat16", 4) == 1.5
    assert next(seconds, None) is None


def test_a_slow_machine_repeats_the_measurement_less_often(model, monkeypatch):
    built = model({"filters": [1], "dense_units": []}, (8, 8, 1))
    clock = [0.0]

    def take(_):
        clock[0] += 0.15
        return 0.15

    monkeypatch.setattr(precision, "_seconds", take)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    assert precision.measure_gain(built, "bfloat16", 4) == 1
    assert clock[0] == pytest.approx(2 * 0.15 + 2 * 2 * 0.15)  # one call builds the kernels, two more are timed


def test_measuring_neither_reads_nor_changes_the_model_and_draws_no_random_number(model):
    built = model({"batch_normalization": True, "filters": [2], "dense_units": []}, (8, 8, 1))
    before = [variable.numpy() for variable in built.variables]
    tf.random.set_seed(3)
    drawn = tf.random.normal((3,)).numpy()
    tf.random.set_seed(3)
    assert precision.measure_gain(built, "bfloat16", 4) > 0
    np.testing.assert_array_equal(tf.random.normal((3,)).numpy(), drawn)
    for was, variable in zip(before, built.variables, strict=True):
        np.testing.assert_array_equal(was, variable.numpy())


@pytest.mark.parametrize(("gain", "times"), [(0.2, "5.0"), (0.5, "2.0"), (1.0, "1.0"), (1.049, "1.0")])
def test_a_slow_precision_gives_a_warning_with_the_measurement(gain, times):
    measured = f"here the products of this network take {times} times as long as in float32"
    words = f"runtime.precision is bfloat16, but {measured}; compare whole runs with: cnn-train benchmark"
    assert precision.slow_warning("bfloat16", gain) == words


@pytest.mark.parametrize("gain", [1.05, 1.6, 4.0])
def test_a_fast_precision_gives_no_warning(gain):
    assert precision.slow_warning("bfloat16", gain) is None


@pytest.mark.parametrize(
    ("chosen", "gain", "warned"),
    [("bfloat16", 0.5, True), ("float16", 0.5, True), ("bfloat16", 1.5, False), ("float32", 0.5, False)],
)
def test_a_run_warns_according_to_the_measurement(small_config, tmp_path, monkeypatch, chosen, gain, warned):
    from cnn_trainer.network.fits import load_checked
    from cnn_trainer.training.prepare import Feedback, prepare

    monkeypatch.setattr(precision, "measure_gain", lambda model, name, num_images: gain)
    said = []
    prepare(load_checked(small_config, [f"runtime.precision={chosen}", *TOWERS]), Feedback(warn=said.append))
    assert bool(said) == warned
    assert all(line == precision.slow_warning(chosen, gain) for line in said)


TOWERS = ["runtime.towers=2", "runtime.intra_op_threads=1", "runtime.inter_op_threads=2"]
