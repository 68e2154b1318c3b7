import pytest

from cnn_trainer.network import rewrite
from cnn_trainer.network.build import build_model
from cnn_trainer.network.work import flop_per_image


def flop(experiment, image_shape, cropped):
    model = build_model(experiment, image_shape, 10)
    operations = rewrite.read_model(model)
    if cropped:
        image_shape = (*rewrite.cropped_size(operations, *image_shape[:2]), image_shape[2])
    return flop_per_image(operations, image_shape, [tuple(variable.shape) for variable in model.trainable_variables])


@pytest.mark.parametrize(
    ("model", "cropped", "forward"),
    [
        # The documented network: multiply-adds of conv_1, conv_2, dense_1 and the output, layer by layer.
        ({}, False, (26 * 26 * 9 * 32, 11 * 11 * 9 * 32 * 64, 1600 * 64, 64 * 10)),
        ({}, True, (24 * 24 * 9 * 32, 10 * 10 * 9 * 32 * 64, 1600 * 64, 64 * 10)),
        ({"padding": "same", "filters": [4], "pool_size": 4}, False, (28 * 28 * 9 * 4, 7 * 7 * 4 * 64, 64 * 10)),
        ({"builder": "mlp", "hidden_units": [20]}, True, (784 * 20, 20 * 10)),
    ],
)
def test_operations_are_counted_layer_by_layer(model, cropped, forward, make_experiment):
    found = flop(make_experiment(model), (28, 28, 1), cropped)
    assert found == 2 * (3 * sum(forward) - forward[0])


def test_the_documented_network_takes_what_its_description_says(make_experiment):
    assert round(flop(make_experiment(), (28, 28, 1), False) / 1e6, 2) == 14.78
    assert round(flop(make_experiment(), (28, 28, 1), True) / 1e6, 2) == 12.34
