"""The forward pass in NumPy against Keras, on networks of every kind."""

import numpy as np
import pytest

from cnn_trainer.config.schema import Experiment
from cnn_trainer.network import forward
from cnn_trainer.network.shapes import ImageShape

CNN = {"builder": "cnn", "filters": [3, 4], "dense_units": [5]}
MLP = {"builder": "mlp", "hidden_units": [5, 6]}
NETWORKS = {
    "documented": ({"builder": "cnn"}, (28, 28, 1)),
    "even kernels, same": ({**CNN, "kernel_size": [4, 2], "pool_size": [1, 3], "padding": "same"}, (13, 9, 3)),
    "uneven kernels, same": ({**CNN, "kernel_size": [5, 3], "padding": "same"}, (9, 13, 1)),
    "pool that leaves a rest": ({**CNN, "pool_size": [3, 2]}, (19, 16, 3)),
    "normalised": ({**CNN, "batch_normalization": True, "conv_dropout": [0.2]}, (12, 12, 3)),
    "no dense layer": ({**CNN, "dense_units": []}, (12, 12, 1)),
    "mlp": (MLP, (5, 4, 3)),
    "normalised mlp": ({**MLP, "batch_normalization": True, "dropout": [0.1]}, (5, 4, 1)),
    "softmax regression": ({"builder": "mlp", "hidden_units": []}, (3, 3, 1)),
    **{
        activation: ({**CNN, "activation": activation}, (12, 12, 1))
        for activation in ("sigmoid", "tanh", "gelu", "silu", "linear")
    },
}


@pytest.mark.parametrize(("precision", "bound"), [("float32", 2e-6), ("float64", 1e-8)])
@pytest.mark.parametrize("network", NETWORKS)
def test_each_layer_is_what_keras_computes(network, precision, bound):
    import keras

    from cnn_trainer.network.build import build_model

    model_section, shape = NETWORKS[network]
    tree = {"name": "1st-net.b", "model": model_section, "runtime": {"precision": precision}}
    experiment = Experiment.model_validate(tree)
    model = build_model(experiment, shape, 7)
    random = np.random.default_rng(3)
    for variable in model.weights:
        if "moving_variance" in variable.path:
            variable.assign(random.uniform(0.5, 2, variable.shape))
        elif "kernel" not in variable.path:
            variable.assign(random.normal(size=variable.shape))
    shapes = forward.weight_shapes(experiment, ImageShape(*shape), 7)
    assert list(shapes.items()) == [(variable.path, tuple(variable.shape)) for variable in model.weights]

    image = random.integers(0, 256, shape, np.uint8)
    weights = {variable.path.partition("/")[2]: variable.numpy() for variable in model.weights}
    layers = list(forward.layers_of_image(experiment.model, weights, image))
    named = {layer.name: layer for layer in model.layers}
    wanted = [named[f"{each.name}_activation" if f"{each.name}_activation" in named else each.name] for each in layers]
    outputs = keras.Model(model.inputs, [layer.output for layer in wanted])([image[np.newaxis].astype(precision)])
    assert (
        len(layers) == len(experiment.model.dropout) + len(model_section.get("filters", [])) + 1
        or network == "documented"
    )
    for layer, output in zip(layers, outputs if isinstance(outputs, list) else [outputs], strict=True):
        assert layer.values.dtype == precision
        assert np.abs(layer.values - output[0]).max() < bound * max(1, np.abs(layer.values).max())
