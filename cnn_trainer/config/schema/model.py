"""Which network to build."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from cnn_trainer.config.schema.section import AnyNumber, Item, OneOrMore, Section
from cnn_trainer.errors import count

Activation = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "linear"]
Units = Annotated[int, Field(ge=1, le=65536)]
Pixels = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Penalty = Annotated[float, Field(ge=0, le=1e6)]


def _repeat(values: list[Item], info: ValidationInfo, counted: str) -> list[Item]:
    """One value for each entry of the field ``counted``, which is validated first."""
    if counted not in info.data:  # that field is itself wrong, and its fault is reported
        return values
    wanted = len(info.data[counted])
    if not wanted and any(values):
        raise ValueError(f"dropout comes after hidden layers, but {counted} is empty")
    if len(values) == 1:
        return values * wanted
    if len(values) != wanted:
        raise ValueError(
            f"{count(len(values), 'value')} for {count(wanted, 'entry', 'entries')} of {counted}; give one value, or one for each"
        )
    return values


class Cnn(Section):
    """Convolution and pooling blocks, then fully connected layers, then softmax over the classes."""

    builder: Literal["cnn"] = "cnn"
    filters: list[Units] = Field(
        [32, 64],
        min_length=1,
        max_length=16,
        description="Number of filters in each convolution block; one entry per block.",
    )
    kernel_size: OneOrMore[Pixels] = Field(
        [3], description="Height and width of each block's kernels in pixels; a single value applies to all blocks."
    )
    pool_size: OneOrMore[Pixels] = Field(
        [2],
        description="Height, width and stride of each block's max-pooling in pixels; 1 turns pooling off; a single value applies to all blocks.",
    )
    padding: Literal["valid", "same"] = Field(
        "valid", description="What convolutions do at the border: valid (no padding) or same (padded with zeros)."
    )
    activation: Activation = Field(
        "relu", description="Activation after every convolution and every hidden dense layer."
    )
    batch_normalization: bool = Field(
        False, description="Normalise each convolution's output over the batch, before the activation."
    )
    conv_dropout: OneOrMore[Rate] = Field(
        [0.0], description="Share of values dropped after each block in training; a single value applies to all blocks."
    )
    dense_units: list[Units] = Field(
        [64], max_length=16, description="Units of each hidden dense layer; an empty list leaves only the output layer."
    )
    dropout: AnyNumber[Rate] = Field(
        [0.0],
        description="Share of values dropped after each hidden dense layer in training; a single value applies to all layers.",
    )
    l1: Penalty = Field(
        0.0, description="L1 penalty: this times the sum of the kernels' absolute values is added to the loss."
    )
    l2: Penalty = Field(0.0, description="L2 penalty: this times the sum of the kernels' squares is added to the loss.")

    @field_validator("kernel_size", "pool_size", "conv_dropout", "dropout")
    @classmethod
    def _one_for_each(cls, values: list[Any], info: ValidationInfo) -> list[Any]:
        return _repeat(values, info, "dense_units" if info.field_name == "dropout" else "filters")


class Mlp(Section):
    """The fully connected network: flattened images, hidden layers, softmax over the classes."""

    builder: Literal["mlp"]
    hidden_units: list[Units] = Field(
        [64], max_length=16, description="Units of each hidden layer; an empty list gives softmax regression."
    )
    activation: Activation = Field("relu", description="Activation after every hidden layer.")
    batch_normalization: bool = Field(
        False, description="Normalise each hidden layer's output over the batch, before the activation."
    )
    dropout: AnyNumber[Rate] = Field(
        [0.0],
        description="Share of values dropped after each hidden layer in training; a single value applies to all layers.",
    )
    l1: Penalty = Field(
        0.0, description="L1 penalty: this times the sum of the kernels' absolute values is added to the loss."
    )
    l2: Penalty = Field(0.0, description="L2 penalty: this times the sum of the kernels' squares is added to the loss.")

    @field_validator("dropout")
    @classmethod
    def _one_for_each(cls, values: list[float], info: ValidationInfo) -> list[float]:
        return _repeat(values, info, "hidden_units")
