"""The rewritten operations compared with the plain Keras model, on random architectures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cnn_trainer.config.schema import Experiment
from cnn_trainer.network import rewrite
from cnn_trainer.network.build import build_model
from cnn_trainer.network.logits import build_logits
from cnn_trainer.network.rewrite import Activate, AddBias, Convolve, Drop, Flatten, MatMul, MaxPool, Normalize, Scale

NUM_CLASSES = 3
MONOTONE = ["relu", "sigmoid", "tanh", "linear"]
OTHERS = ["gelu", "silu"]

# derandomize: the same architectures on every machine and in every run.
alike = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
many, few = settings(max_examples=30, **alike), settings(max_examples=12, **alike)


@st.composite
def architectures(
    draw, activations=(*MONOTONE, *OTHERS), normalization=(False, True), paddings=("valid", "same"), min_pool=1
):
    """The model section of a cnn with one to three blocks, and the shape of images that it fits."""
    shape = draw(st.integers(5, 14)), draw(st.integers(5, 14)), draw(st.sampled_from([1, 3]))
    padding = draw(st.sampled_from(paddings))
    filters, kernels, pools = [], [], []
    left = min(shape[:2])
    for _ in range(draw(st.integers(1, 3))):
        kernel = draw(st.integers(1, min(4, left)))
        left -= kernel - 1 if padding == "valid" else 0
        pool = draw(st.integers(min(min_pool, left), min(3, left)))
        left //= pool
        filters.append(draw(st.integers(1, 4)))
        kernels.append(kernel)
        pools.append(pool)
    model = {
        "builder": "cnn",
        "filters": filters,
        "kernel_size": kernels,
        "pool_size": pools,
        "padding": padding,
        "activation": draw(st.sampled_from(activations)),
        "batch_normalization": draw(st.sampled_from(normalization)),
        "conv_dropout": [draw(st.sampled_from([0.0, 0.3]))],
        "dense_units": draw(st.sampled_from([[], [5], [6, 4]])),
        "l2": draw(st.sampled_from([0.0, 0.01])),
    }
    if model["dense_units"]:
        model["dropout"] = [draw(st.sampled_from([0.0, 0.5]))]
    return model, shape


def build(model, shape, seed=1):
    """The Keras model in float64, with biases and moving statistics that differ from their initial values."""
    experiment = Experiment.model_validate(
        {"seed": seed, "data": {"source": "mnist-5k"}, "model": model, "runtime": {"precision": "float64"}}
    )
    built = build_model(experiment, shape, NUM_CLASSES)
    random = np.random.default_rng(seed)
    for variable in built.weights:
        if len(variable.shape) == 1:
            lowest = 0.2 if variable.name == "moving_variance" else -1.5
            variable.assign(random.uniform(lowest, 1.0, variable.shape))
    return built


def batch(shape, seed=1, size=4):
    random = np.random.default_rng(seed)
    return tf.constant(random.integers(0, 256, (size, *shape)), tf.float64), random.integers(0, NUM_CLASSES, size)


def plain_gradients(model, images, labels, training):
    """Mean cross-entropy and its gradients, from the Keras model."""
    with tf.GradientTape() as tape:
        probabilities = model(images, training=training)
        chosen = tf.gather(probabilities, labels, axis=1, batch_dims=1)
        loss = -tf.reduce_mean(tf.math.log(chosen))
    variables = [variable.value for variable in model.trainable_variables]
    return loss, tape.gradient(loss, variables), probabilities


def rewritten_gradients(model, images, labels, training):
    """The same through pool_first, the crop, join_pools and compute."""
    operations = rewrite.pool_first(rewrite.read_model(model))
    height, width = rewrite.cropped_size(operations, *model.input_shape[1:3])
    operations = rewrite.join_pools(operations)
    weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        logits = rewrite.compute(operations, images[:, :height, :width], weights, None, training)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, weights), tf.nn.softmax(logits)


def assert_same(found, wanted, scale):
    assert found.shape == wanted.shape
    assert np.abs(np.subtract(found, wanted)).max() <= 1e-12 * scale


@many
@given(architectures(), st.booleans())
def test_loss_and_every_gradient_are_those_of_the_plain_model(architecture, training):
    """Relative to the largest entry of any gradient. Training has no Dropout, because its choices would differ."""
    model, shape = architecture
    if training:
        model = {**model, "conv_dropout": 0.0, "dropout": 0.0}
    built = build(model, shape)
    images, labels = batch(shape)
    start = [variable.numpy() for variable in built.non_trainable_variables]
    loss, gradients, probabilities = plain_gradients(built, images, labels, training)
    moved = [variable.numpy() for variable in built.non_trainable_variables]
    for variable, value in zip(built.non_trainable_variables, start, strict=True):
        variable.assign(value)

    new_loss, new_gradients, new_probabilities = rewritten_gradients(built, images, labels, training)
    scale = max(np.abs(gradient).max() for gradient in gradients)
    assert scale > 0
    assert_same(new_loss, loss, float(loss))
    assert_same(new_probabilities, probabilities, 1.0)
    for found, wanted in zip(new_gradients, gradients, strict=True):
        assert_same(found, wanted, scale)
    for variable, value in zip(built.non_trainable_variables, moved, strict=True):
        assert_same(variable.numpy(), value, 1.0)  # the moving statistics of batch normalisation


@few
@given(architectures(normalization=(False,), paddings=("valid",), min_pool=2), st.integers(0, 100))
def test_no_layer_reads_the_cropped_pixels(architecture, seed):
    """With padding or batch normalisation nothing can be cropped; the test above covers them."""
    model, shape = architecture
    built = build(model, shape)
    height, width = rewrite.cropped_size(rewrite.read_model(built), *shape[:2])
    assume((height, width) != shape[:2])
    images = batch(shape)[0].numpy()
    other = batch(shape, seed + 1000)[0].numpy()
    other[:, :height, :width] = images[:, :height, :width]
    assert np.abs(images - other).max() > 0
    assert np.array_equal(built(images, training=False), built(other, training=False))


@few
@given(architectures(activations=("linear", "tanh"), normalization=(False,), paddings=("valid",)))
def test_the_last_kept_row_and_column_are_read(architecture):
    model, shape = architecture
    built = build(model, shape)
    height, width = rewrite.cropped_size(rewrite.read_model(built), *shape[:2])
    images = batch(shape, size=16)[0].numpy()
    other = batch(shape, 2, size=16)[0].numpy()
    for place in np.s_[:, height - 1, :width], np.s_[:, :height, width - 1]:
        changed = images.copy()
        changed[place] = other[place]
        assert not np.array_equal(built(images, training=False), built(changed, training=False))


@few
@given(architectures())
def test_pooling_moves_only_before_bias_and_monotone_activations(architecture):
    model, shape = architecture
    before = rewrite.read_model(build(model, shape))
    after = rewrite.pool_first(before)
    assert sorted(map(repr, after)) == sorted(map(repr, before))
    assert [op for op in after if not isinstance(op, MaxPool)] == [op for op in before if not isinstance(op, MaxPool)]
    allowed = {"relu": (Convolve, Normalize, Drop, MaxPool), "gelu": (Activate,)}
    kind = "relu" if model["activation"] in MONOTONE else "gelu"
    for place, operation in enumerate(after):
        if isinstance(operation, MaxPool):
            assert isinstance(after[place - 1], allowed[kind])


@pytest.mark.parametrize("more", [{"activation": "tanh"}, {"activation": "gelu"}, {"batch_normalization": True}])
def test_only_a_bias_and_relu_after_a_convolution_are_joined(more):
    operations = rewrite.pool_first(rewrite.read_model(documented(**more)))
    assert rewrite.join_pools(operations) == operations


def documented(**more):
    return build({"builder": "cnn", **more}, (28, 28, 1))


def test_the_documented_model_reads_26_by_26_pixels():
    built = documented()
    operations = rewrite.read_model(built)
    assert rewrite.cropped_size(operations, 28, 28) == (26, 26)
    assert rewrite.cropped_size(rewrite.pool_first(operations), 28, 28) == (26, 26)
    assert rewrite.cropped_size(rewrite.join_pools(rewrite.pool_first(operations)), 28, 28) == (26, 26)
    images = tf.constant(batch((28, 28, 1))[0])
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(tf.math.log(built(images)[:, 0]))
    read = np.abs(tape.gradient(total, images)).max(axis=(0, 3)) > 0
    assert read[:26, 25].any()
    assert read[25, :26].any()
    assert not read[26:].any()
    assert not read[:, 26:].any()


def test_the_documented_model_is_read_and_rewritten_as_it_says():
    names = ["Scale", "Convolve", "AddBias", "Activate", "MaxPool", "Convolve", "AddBias", "Activate", "MaxPool"]
    end = ["Flatten", "MatMul", "AddBias", "Activate", "MatMul", "AddBias"]
    operations = rewrite.read_model(documented())
    assert [type(operation).__name__ for operation in operations] == names + end
    block = ["Convolve", "MaxPool", "AddBias", "Activate"]
    assert [type(operation).__name__ for operation in rewrite.pool_first(operations)] == ["Scale", *block, *block, *end]
    joined = rewrite.join_pools(rewrite.pool_first(operations))
    block = ["Convolve", "AddBiasReluPool"]
    assert [type(operation).__name__ for operation in joined] == ["Scale", *block, *block, *end]
    kernels = [operation.kernel for operation in operations if isinstance(operation, Convolve | MatMul)]
    assert kernels == [0, 2, 4, 6]
    assert [operation.bias for operation in operations if isinstance(operation, AddBias)] == [1, 3, 5, 7]


@few
@given(architectures())
def test_a_folded_scale_leaves_the_function_as_it_is(architecture):
    """And no image is scaled, because the first layer is a convolution."""
    model, shape = architecture
    built = build(model, shape)
    operations = rewrite.fold_scale(rewrite.read_model(built))
    assert not any(isinstance(operation, Scale) for operation in operations)
    images, _ = batch(shape)
    weights = [tf.convert_to_tensor(variable) for variable in built.trainable_variables]
    logits = rewrite.compute(operations, images, weights, None, training=False)
    assert_same(tf.nn.softmax(logits), built(images, training=False), 1.0)


def test_the_scale_of_the_documented_model_is_folded_into_its_first_kernel():
    operations = rewrite.read_model(documented())
    scale, first, *others = operations
    assert rewrite.fold_scale(operations) == [Convolve(0, (3, 3), "VALID", 1 / 255), *others]
    assert scale == Scale(1 / 255)
    assert first == Convolve(0, (3, 3), "VALID")
    assert rewrite.fold_scale([Scale(3.0), MaxPool((2, 2)), first]) == [Scale(3.0), MaxPool((2, 2)), first]


def test_gelu_made_of_a_sigmoid_is_within_half_a_thousandth_and_other_activations_stay():
    values = tf.linspace(-20.0, 20.0, 4001)
    exact, other = Activate("gelu"), Activate("silu")
    close, same = rewrite.approximate_gelu([exact, other])
    assert same == other
    found, wanted = (rewrite.compute([operation], values, [], None, training=False) for operation in (close, exact))
    assert 1e-4 < np.abs(found - wanted).max() < 5e-4


def test_a_fully_connected_model_is_flattened_before_it_is_scaled():
    operations = rewrite.read_model(build({"builder": "mlp", "hidden_units": []}, (8, 8, 1)))
    assert [type(operation) for operation in operations[:3]] == [Scale, Flatten, MatMul]
    assert [type(operation) for operation in rewrite.fold_scale(operations)[:3]] == [Flatten, Scale, MatMul]


@pytest.mark.parametrize(("padding", "kernel", "kept"), [("same", 3, 28), ("valid", 5, 28), ("valid", 4, 27)])
def test_the_crop_follows_kernels_and_padding(padding, kernel, kept):
    """With kernels of 5: 28, 24, 12, 8, 4. With kernels of 4: 28, 25, 12, 9, 4, which reads 8 of 9, 11, 22, 25."""
    kept = 25 if kernel == 4 else kept
    operations = rewrite.read_model(documented(padding=padding, kernel_size=kernel))
    assert rewrite.cropped_size(operations, 28, 28) == (kept, kept)


def test_images_need_not_be_square():
    operations = rewrite.read_model(build({"builder": "cnn"}, (28, 21, 3)))
    assert rewrite.cropped_size(operations, 28, 21) == (26, 18)


def test_batch_normalization_sees_every_pixel():
    """Its statistics include the pixels that a later pool drops."""
    operations = rewrite.read_model(documented(batch_normalization=True, pool_size=3))
    assert rewrite.cropped_size(operations, 28, 28) == (28, 28)


@pytest.mark.parametrize(
    ("model", "across"),
    [
        ({"builder": "cnn"}, False),
        ({"builder": "cnn", "conv_dropout": 0.2, "dropout": 0.2, "l2": 0.1}, False),
        ({"builder": "cnn", "batch_normalization": True}, True),
        ({"builder": "mlp"}, False),
        ({"builder": "mlp", "batch_normalization": True}, True),
    ],
)
def test_only_batch_normalization_depends_on_the_whole_batch(model, across):
    built = build(model, (12, 12, 1))
    assert rewrite.looks_across_batch(rewrite.read_model(built)) is across
    images, labels = batch((12, 12, 1), size=6)
    if not model.get("dropout"):
        whole = rewritten_gradients(built, images, labels, True)[2]
        half = rewritten_gradients(built, images[:3], labels[:3], True)[2]
        assert np.allclose(whole[:3], half, rtol=1e-9) is not across


def test_the_gradient_of_a_bias_is_added_up_exactly_enough_in_bfloat16():
    """10,816 times 1: a sum held in bfloat16 would stay at 256."""
    bias = tf.zeros(2, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        total = tf.reduce_sum(rewrite.compute([AddBias(0)], tf.zeros((64, 13, 13, 2), tf.bfloat16), [bias], None, True))
    assert np.asarray(tape.gradient(total, bias), np.float64) == pytest.approx(10_816, rel=2**-8)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_dropout_drops_its_fraction_and_keeps_the_mean(rate, dtype):
    ones, seed = tf.ones((200, 500), dtype), tf.constant([3, 4])
    dropped = np.asarray(rewrite.compute([Drop(rate, 7)], ones, [], seed, True), np.float64)
    kept = np.unique(dropped[dropped > 0])
    assert kept == pytest.approx([1 / (1 - rate)], rel=2**-8)
    deviation = (rate * (1 - rate) / dropped.size) ** 0.5
    assert (dropped == 0).mean() == pytest.approx(rate, abs=5 * deviation)
    assert np.array_equal(rewrite.compute([Drop(0.2, 7)], ones, [], seed, False), ones)


def test_dropout_depends_only_on_seed_and_stream():
    ones = tf.ones((8, 64), tf.float64)
    seen = [(Drop(0.5, stream), seed) for stream in (1, 2) for seed in ([3, 4], [3, 5], [5, 4])]
    drawn = [rewrite.compute([drop], ones, [], tf.constant(seed), True).numpy() for drop, seed in seen]
    again = [rewrite.compute([drop], ones, [], tf.constant(seed), True).numpy() for drop, seed in seen]
    assert np.array_equal(drawn, again)
    agreements = [(one == two).mean() for place, one in enumerate(drawn) for two in drawn[:place]]
    assert max(agreements) < 0.62  # 512 fair coins, 15 pairs: 5 standard deviations


def test_the_dropout_layers_of_a_model_draw_independently():
    operations = rewrite.read_model(documented(conv_dropout=0.3, dense_units=[8, 8], dropout=0.5))
    drops = [operation for operation in operations if isinstance(operation, Drop)]
    assert [drop.rate for drop in drops] == [0.3, 0.3, 0.5, 0.5]
    assert len({drop.stream for drop in drops}) == 4


def test_other_weights_than_the_models_own_are_used_throughout():
    """This is how moving averages are evaluated; they include batch normalisation's scale and shift."""
    built = build({"builder": "cnn", "filters": [3], "batch_normalization": True}, (9, 9, 1))
    images = batch((9, 9, 1))[0].numpy()
    values = [variable.numpy() * 1.5 for variable in built.trainable_variables]
    logits = build_logits(built, 2)(values, images.astype(np.uint8))
    for variable, value in zip(built.trainable_variables, values, strict=True):
        variable.assign(value)
    assert_same(tf.nn.softmax(logits), built(images, training=False), 1.0)


UNKNOWN = {
    "another kind": lambda: keras.layers.AveragePooling2D(2),
    "strides": lambda: keras.layers.Conv2D(2, 3, strides=2),
    "dilation": lambda: keras.layers.Conv2D(2, 3, dilation_rate=2),
    "groups": lambda: keras.layers.Conv2D(2, 1, groups=2),
    "overlapping pools": lambda: keras.layers.MaxPooling2D(3, strides=2),
    "padded pools": lambda: keras.layers.MaxPooling2D(2, padding="same"),
    "an offset": lambda: keras.layers.Rescaling(1 / 127.5, offset=-1.0),
    "dropped channels": lambda: keras.layers.SpatialDropout2D(0.5),
    "a shared mask": lambda: keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 2)),
    "no scale": lambda: keras.layers.BatchNormalization(scale=False),
    "an activation": lambda: keras.layers.Conv2D(2, 3, activation="elu"),
    "a softmax inside": lambda: keras.layers.Activation("softmax"),
}


@pytest.mark.parametrize("layer", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_layer_is_refused(layer):
    end = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    with pytest.raises(TypeError, match="not known here"):
        rewrite.read_model(keras.Sequential([keras.Input((8, 8, 2)), layer(), *end]))


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_model_that_does_not_end_in_softmax_is_refused(activation):
    end = keras.layers.Dense(3, activation=activation)
    with pytest.raises(TypeError, match="softmax"):
        rewrite.read_model(keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Flatten(), end]))
