"""Learning-rate schedules compared with formulas written again in NumPy, step by step."""

import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.network.build import build_model
from cnn_trainer.training.optimizer import ScheduleByFactor, build_optimizer, last_learning_rate, learning_rate

STEPS_PER_EPOCH, EPOCHS, PEAK = 7, 12, 0.02
TOTAL = STEPS_PER_EPOCH * EPOCHS


@pytest.fixture
def rates(make_experiment):
    """A function of a schedule that returns the learning rate of every step of a run, and of 20 more."""

    def all_rates(precision="float64", **schedule):
        training = {"learning_rate": PEAK, "epochs": EPOCHS, "schedule": schedule}
        experiment = make_experiment({"filters": [1]}, training, precision)
        build_model(experiment, (8, 8, 1), 2)  # sets the precision in which schedules are computed
        rate = learning_rate(experiment.training, STEPS_PER_EPOCH)
        if not callable(rate):
            return np.full(TOTAL + 20, rate)
        compiled = tf.function(rate)  # as in a step, where TensorFlow is stricter about dtypes than outside
        return np.array([float(compiled(tf.constant(step))) for step in range(TOTAL + 20)])

    return all_rates


def half_wave(start, end, share):
    """From start to end as the cosine goes from 1 to -1."""
    return start + (end - start) * (1 - np.cos(np.pi * share)) / 2


def written_out(name, step, **settings):
    """The rate of a step as a fraction of the peak, without a warm-up."""
    epoch = step / STEPS_PER_EPOCH
    match name:
        case "constant":
            return 1.0
        case "step":
            share = 1.0
            while epoch >= settings["epochs"]:
                share, epoch = share * settings["factor"], epoch - settings["epochs"]
            return share
        case "exponential":
            return np.exp(epoch * np.log(settings["factor"]))
        case "cosine":
            return half_wave(1.0, settings["final_fraction"], min(1.0, step / settings["length"]))
        case "one-cycle":
            top = settings["rise_fraction"] * (TOTAL - 1)
            if step < top:
                return half_wave(settings["initial_fraction"], 1.0, step / top)
            return half_wave(1.0, settings["final_fraction"], min(1.0, (step - top) / (TOTAL - 1 - top)))


SCHEDULES = [
    {"name": "constant"},
    {"name": "step", "epochs": 3.0, "factor": 0.5},
    {"name": "step", "epochs": 0.5, "factor": 0.9},
    {"name": "exponential", "factor": 0.8},
    {"name": "cosine", "final_fraction": 0.0},
    {"name": "cosine", "final_fraction": 0.1},
]
CYCLES = [
    {"rise_fraction": 0.3, "initial_fraction": 0.04, "final_fraction": 0.0001},
    {"rise_fraction": 0.5, "initial_fraction": 1.0, "final_fraction": 0.0},
]


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_follow_their_formulas_and_begin_after_the_warm_up(schedule, warmup, rates):
    warmup_steps = warmup * STEPS_PER_EPOCH
    found = rates(**schedule, warmup_epochs=warmup)
    for step, rate in enumerate(found):
        share = written_out(step=max(0.0, step - warmup_steps), length=TOTAL - warmup_steps, **schedule)
        if warmup and step + 1 < warmup_steps:
            share *= (step + 1) / warmup_steps
        assert rate == pytest.approx(PEAK * share, rel=1e-6, abs=1e-15)
    assert (found >= 0).all()
    assert (found <= PEAK * (1 + 1e-12)).all()


@pytest.mark.parametrize("cycle", CYCLES)
def test_one_cycle_follows_its_formula(cycle, rates):
    found = rates(name="one-cycle", **cycle)
    for step, rate in enumerate(found):
        assert rate == pytest.approx(PEAK * written_out("one-cycle", step, **cycle), rel=1e-6, abs=1e-15)
    assert found[0] == pytest.approx(PEAK * cycle["initial_fraction"])
    assert found[TOTAL - 1] == pytest.approx(PEAK * cycle["final_fraction"], abs=1e-15)
    assert found.max() <= PEAK * (1 + 1e-12)
    assert found.max() > 0.99 * PEAK


def test_the_warm_up_rises_by_equal_parts_from_the_first_step(rates):
    found = rates(name="constant", warmup_epochs=2.0)
    assert found[:14] == pytest.approx(PEAK * np.arange(1, 15) / 14)
    assert found[14:] == pytest.approx(PEAK)


def test_a_cosine_ends_at_its_final_fraction_and_stays_there(rates):
    found = rates(name="cosine", final_fraction=0.1, warmup_epochs=3.0)
    assert found[TOTAL:] == pytest.approx(0.1 * PEAK)
    assert found[TOTAL - 1] == pytest.approx(0.1 * PEAK, rel=0.01)
    assert (np.diff(found[21:TOTAL]) < 0).all()


def test_a_warm_up_longer_than_the_run_only_rises(rates):
    for schedule in SCHEDULES:
        found = rates(**schedule, warmup_epochs=20.0)
        assert found == pytest.approx(PEAK * np.arange(1, TOTAL + 21) / 140)


@pytest.mark.parametrize("schedule", [*SCHEDULES, *({"name": "one-cycle", **cycle} for cycle in CYCLES)])
def test_float32_schedules_are_close_to_float64(schedule, rates):
    assert rates("float32", **schedule) == pytest.approx(rates("float64", **schedule), rel=1e-4, abs=1e-6 * PEAK)


def test_a_run_of_one_step_has_a_finite_rate(make_experiment):
    for schedule in [*SCHEDULES, *({"name": "one-cycle", **cycle} for cycle in CYCLES)]:
        training = make_experiment({}, {"epochs": 1, "schedule": schedule}).training
        rate = learning_rate(training, 1)
        value = float(rate(0) if callable(rate) else rate)
        assert 0 <= value <= training.learning_rate * (1 + 1e-6)


def test_a_constant_rate_is_a_number_and_others_are_functions(make_experiment):
    assert learning_rate(make_experiment().training, 10) == 0.001
    warm = make_experiment({}, {"schedule": {"name": "constant", "warmup_epochs": 1.0}}).training
    assert isinstance(learning_rate(warm, 10), ScheduleByFactor)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "step", "epochs": 0.5, "factor": 0.5}, [1, 1, 0.5, 0.5]),
        ({"name": "constant", "warmup_epochs": 1.0}, [0.25, 0.5, 0.75, 1]),
    ],
)
def test_the_engine_uses_and_reports_the_rate_of_each_step(
    schedule, shares, make_experiment, make_trainer, small_images
):
    """A dead network with an L2 penalty: each step shrinks the first kernel in proportion to the learning rate."""
    training = {"optimizer": "sgd", "learning_rate": 0.3, "batch_size": 6, "epochs": 1, "schedule": schedule}
    model = {"builder": "mlp", "hidden_units": [4], "l2": 0.5}
    trainer = make_trainer(make_experiment(model, training, "float64"), small_images)
    for variable in trainer.model.trainable_variables:
        if variable.path.endswith("dense_1/bias"):
            variable.assign(np.full(4, -1e6))  # ReLU never fires, so only the penalty moves the first kernel
    for step, share in enumerate(shares):
        before = trainer.weights()[0]
        trainer.train(step, step + 1)
        assert trainer.weights()[0] == pytest.approx(before * (1 - 0.3 * share), rel=1e-6)
        assert last_learning_rate(trainer.optimizer) == pytest.approx(0.3 * share, rel=1e-6)


def test_the_reported_rate_has_no_digits_beyond_float32(make_experiment, make_trainer, small_images):
    trainer = make_trainer(make_experiment({"filters": [2], "dense_units": []}, {"batch_size": 22}), small_images)
    trainer.train()
    assert last_learning_rate(trainer.optimizer) == 0.001


def test_every_trainable_variable_has_its_slots_before_the_first_step(make_experiment):
    """So that a checkpoint of step 0 has the same arrays as any other."""
    for name, slots in [("sgd", 0), ("momentum", 1), ("nesterov", 1), ("rmsprop", 1), ("adam", 2), ("adamw", 2)]:
        experiment = make_experiment({}, {"optimizer": name, "ema_decay": 0.9})
        model = build_model(experiment, (28, 28, 1), 10)
        optimizer = build_optimizer(experiment, model, 10)
        assert len(optimizer.variables) == 2 + (slots + 1) * len(model.trainable_variables)
