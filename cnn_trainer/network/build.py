"""Builds the Keras model that an experiment describes."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import keras
import numpy as np

from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.model import Cnn, Mlp

# Spreads the layers' seeds over the 31-bit seeds that Keras takes; any odd constant would do.
_SEED_STRIDE = 1_000_003

# Not a Python float: TensorFlow would round it to float32 even when it computes in float64.
_SCALE = np.float64(1 / 255)


def build_model(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> keras.Sequential:
    """Build the documented network, with new weights that are determined by the experiment's seed.

    It maps raw images (batch, height, width, channels) of ``image_shape``, with values 0 to 255, to probabilities
    (batch, num_classes) in the dtype of the weights: float64 if the experiment asks for it, otherwise float32. It
    consists only of Keras' own layers, so that a saved copy loads without this package.
    """
    dtype = "float64" if experiment.runtime.precision == "float64" else "float32"
    keras.config.set_floatx(dtype)  # for the optimizer's variables and schedules
    keras.config.set_dtype_policy(dtype)  # for the layers; reading it once stops it from following floatx
    keras.config.set_image_data_format("channels_last")  # a user's keras.json may set another one
    seeds = (((experiment.seed * _SEED_STRIDE) + layer) % 2**31 for layer in count(1))
    layers = [keras.Input(image_shape, name="image"), keras.layers.Rescaling(_SCALE, name="scale")]
    layers += _BODIES[experiment.model.builder](experiment.model, seeds)
    layers.append(_dense(num_classes, next(seeds), experiment.model, "probabilities", activation="softmax"))
    return keras.Sequential(layers, name=experiment.name.replace("-", "_").replace(".", "_"))


def _cnn(model: Cnn, seeds: Iterator[int]) -> list[keras.Layer]:
    layers: list[keras.Layer] = []
    blocks = zip(model.filters, model.kernel_size, model.pool_size, model.conv_dropout, strict=True)
    for block, (filters, kernel, pool, dropout) in enumerate(blocks, start=1):
        layers.append(
            keras.layers.Conv2D(
                filters,
                kernel,
                padding=model.padding,
                use_bias=not model.batch_normalization,
                activation=None if model.batch_normalization else model.activation,
                kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
                kernel_regularizer=_regularizer(model),
                name=f"conv_{block}",
            )
        )
        if model.batch_normalization:
            layers += _normalization(model, f"conv_{block}")
        if pool > 1:
            layers.append(keras.layers.MaxPooling2D(pool, name=f"pool_{block}"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout, seed=next(seeds), name=f"conv_{block}_dropout"))
    layers.append(keras.layers.Flatten(name="flatten"))
    return layers + _hidden(model, model.dense_units, seeds)


def _mlp(model: Mlp, seeds: Iterator[int]) -> list[keras.Layer]:
    return [keras.layers.Flatten(name="flatten"), *_hidden(model, model.hidden_units, seeds)]


_BODIES: dict[str, Callable[..., list[keras.Layer]]] = {"cnn": _cnn, "mlp": _mlp}


def _hidden(model: Cnn | Mlp, units: list[int], seeds: Iterator[int]) -> list[keras.Layer]:
    """Fully connected layers; with batch normalisation only in the mlp, which has no other place for it."""
    layers: list[keras.Layer] = []
    normalize = isinstance(model, Mlp) and model.batch_normalization
    for index, (size, dropout) in enumerate(zip(units, model.dropout, strict=True), start=1):
        name = f"dense_{index}"
        layers.append(_dense(size, next(seeds), model, name, None if normalize else model.activation, not normalize))
        if normalize:
            layers += _normalization(model, name)
        if dropout:
            layers.append(keras.layers.Dropout(dropout, seed=next(seeds), name=f"{name}_dropout"))
    return layers


def _normalization(model: Cnn | Mlp, name: str) -> list[keras.Layer]:
    normalize = keras.layers.BatchNormalization(name=f"{name}_normalization")
    return [normalize, keras.layers.Activation(model.activation, name=f"{name}_activation")]


def _dense(
    units: int, seed: int, model: Cnn | Mlp, name: str, activation: str | None, use_bias: bool = True
) -> keras.Layer:
    return keras.layers.Dense(
        units,
        activation=activation,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        kernel_regularizer=_regularizer(model),
        name=name,
    )


def _regularizer(model: Cnn | Mlp) -> keras.Regularizer | None:
    """The penalty λ₁ Σ|w| + λ₂ Σw² (Keras' L1L2); None if both factors are zero."""
    return keras.regularizers.L1L2(model.l1, model.l2) if model.l1 or model.l2 else None


def keras_file(model: keras.Sequential) -> bytes:
    """The content of the ``.keras`` file of ``model``. Raises OSError if the folder for temporary files is full.

    Keras writes the file in place, so a killed process would leave a partial one; here that is only a temporary copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
