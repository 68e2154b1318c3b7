"""The plain program as PyTorch users write it; ``cnn-train benchmark`` measures it if PyTorch is installed.

    python benchmarks/torch_program.py CONFIG

trains on the config's data and prints its figures as a JSON object.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnn_trainer import data
from cnn_trainer.config.load import load_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.model import Cnn, Mlp
from cnn_trainer.data import Split
from cnn_trainer.machine import child

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "linear": nn.Identity,
}


def main() -> None:
    """Train the config named on the command line."""
    experiment = load_config(Path(sys.argv[1])).experiment
    child.answer(lambda: train(experiment))


def train(experiment: Experiment) -> dict[str, Any]:
    """Train with Adam on float32 tensors (batch, channels, height, width) in memory, with PyTorch's default threads.

    Returns:
        ``images_per_second`` of each epoch, and ``accuracy`` on the test split (a fraction).
    """
    torch.manual_seed(experiment.seed)
    images, labels = _tensors(data.load_training(experiment.data, experiment.seed, lambda _: None).train)
    network = build_network(experiment.model, images.shape[1:], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(network.parameters(), experiment.training.learning_rate)
    rates = []
    for _ in range(experiment.training.epochs):
        began = time.perf_counter()
        for chosen in torch.randperm(len(labels)).split(experiment.training.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        rates.append(len(labels) / (time.perf_counter() - began))
    network.eval()
    with torch.no_grad():
        test_images, test_labels = _tensors(data.load_split(experiment.data, experiment.seed, "test"))
        batches = test_images.split(experiment.training.batch_size)
        predictions = torch.cat([network(batch).argmax(1) for batch in batches])
    return {"images_per_second": rates, "accuracy": (predictions == test_labels).float().mean().item()}


def build_network(model: Cnn | Mlp, image_shape: torch.Size, num_classes: int) -> nn.Sequential:
    """Build the config's network, from images (batch, channels, height, width) to logits (batch, classes)."""
    activation = _ACTIVATIONS[model.activation]
    layers: list[nn.Module] = []
    if isinstance(model, Cnn):
        blocks = zip(model.filters, model.kernel_size, model.pool_size, model.conv_dropout, strict=True)
        for filters, kernel, pool, dropout in blocks:
            layers.append(nn.LazyConv2d(filters, kernel, padding=model.padding, bias=not model.batch_normalization))
            layers += [nn.LazyBatchNorm2d()] if model.batch_normalization else []
            layers += [activation(), nn.MaxPool2d(pool), nn.Dropout(dropout)]
    layers.append(nn.Flatten())
    units = model.dense_units if isinstance(model, Cnn) else model.hidden_units
    for size, dropout in zip(units, model.dropout, strict=True):
        layers.append(nn.LazyLinear(size))
        layers += [nn.LazyBatchNorm1d()] if isinstance(model, Mlp) and model.batch_normalization else []
        layers += [activation(), nn.Dropout(dropout)]
    network = nn.Sequential(*layers, nn.LazyLinear(num_classes))
    network(torch.zeros(2, *image_shape))  # gives the lazy layers their shapes
    return network


def _tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float().div(255).contiguous()
    return images, torch.from_numpy(split.labels).long()


if __name__ == "__main__":
    main()
