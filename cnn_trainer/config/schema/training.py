"""How to train, and how to use the machine."""

from typing import Annotated, Literal

from pydantic import Field

from cnn_trainer.config.schema.section import Section, default_kind

OptimizerName = Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"]
DeviceName = Literal["auto", "cpu", "gpu"]
Precision = Literal["float32", "bfloat16", "float16", "float64"]


class _Schedule(Section):
    name: str  # narrowed by each kind; declared here so that it is the first key
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="Epochs over which the learning rate rises linearly from 0 before the schedule begins; may be a fraction.",
    )


class Constant(_Schedule):
    """The learning rate stays the same."""

    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The learning rate is multiplied by factor at regular intervals."""

    name: Literal["step"]
    epochs: float = Field(5.0, gt=0, le=10_000, description="Epochs from one change to the next.")
    factor: float = Field(0.5, gt=0, le=1, description="What the learning rate is multiplied by at each change.")


class Exponential(_Schedule):
    """The learning rate falls smoothly, at every step; over each epoch it is multiplied by factor."""

    name: Literal["exponential"]
    factor: float = Field(0.9, gt=0, le=1, description="What the learning rate is multiplied by over each epoch.")


class Cosine(_Schedule):
    """The learning rate falls along half a cosine wave, to final_fraction of learning_rate at the end of training."""

    name: Literal["cosine"]
    final_fraction: float = Field(
        0.0, ge=0, le=1, description="Learning rate at the end, as a fraction of learning_rate."
    )


class OneCycle(Section):
    """The learning rate rises to learning_rate, then falls close to 0, both along half a cosine wave."""

    name: Literal["one-cycle"]
    rise_fraction: float = Field(0.3, gt=0, lt=1, description="Share of all steps that the rise takes.")
    initial_fraction: float = Field(
        0.04, gt=0, le=1, description="Learning rate at the first step, as a fraction of learning_rate."
    )
    final_fraction: float = Field(
        0.0001, ge=0, le=1, description="Learning rate at the last step, as a fraction of learning_rate."
    )


class Plateau(Section):
    """The learning rate is multiplied by factor when the validation loss stops falling; needs a validation split."""

    name: Literal["plateau"]
    factor: float = Field(0.5, gt=0, lt=1, description="What the learning rate is multiplied by.")
    patience: int = Field(
        3,
        ge=1,
        le=10_000,
        description="The learning rate changes after this many epochs with neither a new lowest validation loss nor a change.",
    )


class Augmentation(Section):
    """Random changes to every training image at every step. If all are zero, images stay the same and no time is lost."""

    shift_pixels: float = Field(
        0.0, ge=0, le=64, description="Shift along each axis in pixels, uniform between minus this and plus this."
    )
    rotation_radians: float = Field(
        0.0,
        ge=0,
        le=3.1416,
        description="Rotation about the centre in radians, uniform between minus this and plus this.",
    )
    zoom: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Scale by exp(z), the same for both axes; z is uniform between minus this and plus this.",
    )
    shear: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Horizontal shear in pixels per pixel of height, drawn uniformly between minus this and plus this.",
    )


class EarlyStopping(Section):
    """Stop when the validation loss stops falling."""

    patience: int = Field(
        ge=1,
        le=10_000,
        examples=[5],
        description="Training stops after this many epochs without a new lowest validation loss.",
    )
    min_delta: float = Field(
        0.0, ge=0, le=1e6, description="How much the loss must fall to count as lower, in nats per example."
    )


class Training(Section):
    """How the network is trained."""

    epochs: int = Field(10, ge=1, le=100_000, description="Passes over the training split.")
    batch_size: int = Field(
        128, ge=1, le=65_536, description="Examples per step; the last step of an epoch takes what is left."
    )
    loss: Literal["cross_entropy", "mean_squared_error"] = Field(
        "cross_entropy",
        description="cross_entropy between the softmax and the label, in nats; or mean_squared_error, averaged over the classes.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label's probability that is spread evenly over all classes."
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: the loss of each example is multiplied by n / (k n_c), with n examples in k classes and n_c of them in its class, so that a rare class counts as much as a frequent one. null: all examples count the same.",
    )
    optimizer: OptimizerName = Field(
        "adam",
        description="sgd is plain gradient descent; momentum and nesterov add momentum to it; adamw is adam with decoupled weight decay.",
    )
    learning_rate: float = Field(0.001, gt=0, le=1000, description="Step size; with a schedule, its highest value.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of the optimizers momentum and nesterov; the others ignore it."
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Decoupled weight decay: each step also multiplies every kernel by 1 - learning_rate * weight_decay.",
    )
    gradient_clip_norm: float | None = Field(
        None, gt=0, le=1e9, description="Upper bound on the norm of all gradients taken together. null: no bound."
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Keep an exponential moving average of the weights with this decay, and make it the result. null: no average.",
    )
    schedule: Annotated[
        Constant | Step | Exponential | Cosine | OneCycle | Plateau,
        Field(discriminator="name"),
        default_kind("name", "constant"),
    ] = Field(default_factory=Constant, description="How the learning rate changes from step to step.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes to the training images.")
    early_stopping: EarlyStopping | None = Field(
        None, description="When to stop early; needs a validation split. null: train all epochs."
    )


class Runtime(Section):
    """How the machine is used. These keys change the speed of a run; its results change only by rounding."""

    device: DeviceName = Field("auto", description="auto uses a GPU if TensorFlow finds one.")
    precision: Precision = Field(
        "float32",
        description="Precision of the arithmetic in a training step. Weights are always float32 (with float64: float64). With float16, the loss is scaled.",
    )
    towers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Number of equal parts of a batch that run in parallel. null: one per core, if the model and the batch allow it.",
    )
    intra_op_threads: int | None = Field(
        None, ge=1, le=1024, description="Threads inside one TensorFlow operation. null: chosen together with towers."
    )
    inter_op_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="TensorFlow operations that run at the same time. null: chosen together with towers.",
    )
    checkpoint_seconds: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Longest time between two checkpoints, in seconds; one is always written at the end of an epoch.",
    )
    tensorboard: bool = Field(
        False, description="Also write TensorBoard events into the run directory; needs the extra tensorboard."
    )
