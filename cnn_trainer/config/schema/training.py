"""How to train, and how to use the machine."""

from typing import Annotated, Literal

from pydantic import Field

from cnn_trainer.config.schema.section import Section, default_kind

OptimizerName = Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"]
DeviceName = Literal["auto", "cpu", "gpu"]
Precision = Literal["float32", "bfloat16", "float16", "float64"]


class _Schedule(Section):
    name: str  # each kind narrows it; it stands here to be the first key of all
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="Epochs over which the learning rate rises linearly from 0 before the schedule begins; may be a fraction.",
    )


class Constant(_Schedule):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The learning rate is multiplied by factor every so many epochs."""

    name: Literal["step"]
    epochs: float = Field(5.0, gt=0, le=10_000, description="Epochs between two steps.")
    factor: float = Field(0.5, gt=0, le=1, description="What the learning rate is multiplied by at each step.")


class Exponential(_Schedule):
    """The learning rate is multiplied by factor once an epoch, smoothly, step by step."""

    name: Literal["exponential"]
    factor: float = Field(0.9, gt=0, le=1, description="What the learning rate is multiplied by over one epoch.")


class Cosine(_Schedule):
    """The learning rate falls along half a cosine wave to final_fraction of itself at the end of training."""

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
    """The learning rate is multiplied by factor if the validation loss no longer falls; needs a validation split."""

    name: Literal["plateau"]
    factor: float = Field(0.5, gt=0, lt=1, description="What the learning rate is multiplied by.")
    patience: int = Field(
        3,
        ge=1,
        le=10_000,
        description="Epochs without a new lowest validation loss, and without a change, after which it is multiplied.",
    )


class Augmentation(Section):
    """Random changes of every training image at every step. All zero: none, and no time spent."""

    shift_pixels: float = Field(
        0.0, ge=0, le=64, description="Shift along each axis, uniform in plus or minus so many pixels."
    )
    rotation_radians: float = Field(
        0.0, ge=0, le=3.1416, description="Rotation about the centre, uniform in plus or minus so many radians."
    )
    zoom: float = Field(
        0.0, ge=0, le=1, description="Scale exp(z), z uniform in plus or minus this, the same for both axes."
    )
    shear: float = Field(
        0.0, ge=0, le=1, description="Shear, uniform in plus or minus this: pixels along a row per pixel of height."
    )


class EarlyStopping(Section):
    """Stop when the validation loss no longer falls."""

    patience: int = Field(
        ge=1, le=10_000, examples=[5], description="Epochs without a new lowest validation loss until training stops."
    )
    min_delta: float = Field(
        0.0, ge=0, le=1e6, description="By how much, in nats per example, the loss must fall to count as lower."
    )


class Training(Section):
    """How the network is trained."""

    epochs: int = Field(10, ge=1, le=100_000, description="Passes over the training split.")
    batch_size: int = Field(
        128, ge=1, le=65_536, description="Examples of one step; the last step of an epoch takes what is left."
    )
    loss: Literal["cross_entropy", "mean_squared_error"] = Field(
        "cross_entropy",
        description="cross_entropy of the softmax with the label, in nats; or the mean over classes of the squared differences.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label's probability that is spread evenly over all classes."
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: the loss of an example is multiplied by n / (k n_c), for n_c of n examples in its class of k, so that a rare class counts as much as a frequent one. null: it is not.",
    )
    optimizer: OptimizerName = Field(
        "adam",
        description="sgd is plain gradient descent; momentum and nesterov add momentum to it; adamw is adam with decoupled decay.",
    )
    learning_rate: float = Field(0.001, gt=0, le=1000, description="Step length; with a schedule, its highest value.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of the optimizers momentum and nesterov; the others do not read it."
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Decoupled weight decay: each step also takes learning rate times this share off every kernel.",
    )
    gradient_clip_norm: float | None = Field(
        None, gt=0, le=1e9, description="Upper bound of the norm of all gradients taken together. null: none."
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Keep an exponential moving average of the weights with this decay, and make it the result. null: none.",
    )
    schedule: Annotated[
        Constant | Step | Exponential | Cosine | OneCycle | Plateau,
        Field(discriminator="name"),
        default_kind("name", "constant"),
    ] = Field(default_factory=Constant, description="How the learning rate changes from step to step.")
    augmentation: Augmentation = Field(Augmentation(), description="More data from the data there is.")
    early_stopping: EarlyStopping | None = Field(None, description="Needs a validation split. null: train all epochs.")


class Runtime(Section):
    """How the machine is used. These keys change the speed of a run, and its results only by rounding."""

    device: DeviceName = Field("auto", description="auto takes a GPU if TensorFlow finds one.")
    precision: Precision = Field(
        "float32",
        description="Arithmetic of the training step; weights are float32 (float64 with float64) whatever is chosen. float16 scales the loss.",
    )
    towers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Equal parts of a batch that run side by side. null: one for each core, if the model and the batch allow it.",
    )
    intra_op_threads: int | None = Field(
        None, ge=1, le=1024, description="Threads inside one TensorFlow operation. null: chosen with towers."
    )
    inter_op_threads: int | None = Field(
        None, ge=1, le=1024, description="TensorFlow operations that run at the same time. null: chosen with towers."
    )
    checkpoint_seconds: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Longest time between two checkpoints; there is always one at the end of an epoch.",
    )
    tensorboard: bool = Field(
        False, description="Also write TensorBoard events into the run directory; needs the extra tensorboard."
    )
