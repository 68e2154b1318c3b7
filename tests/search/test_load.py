"""The space file: what it takes, and that all that is wrong with it is named at once."""

import re
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.errors import ConfigError, DataError
from cnn_trainer.search.load import load_search, restore_search
from cnn_trainer.search.spec import num_points

SMALL_SPACE = "{training.batch_size: {choices: [8, 12]}}"


def loaded(path):
    return load_search(path, pytest.fail, lambda *_: None)


def faults_of(path):
    with pytest.raises(ConfigError) as caught:
        loaded(path)
    return [line.removeprefix(f"{path.parent}/") for line in caught.value.lines()]


def test_the_experiment_is_resolved_by_the_file_and_not_by_the_machine(make_search):
    search = make_search(trial_towers=2)
    experiment = search.base.experiment
    runtime = experiment.runtime
    assert (runtime.towers, runtime.intra_op_threads, runtime.inter_op_threads) == (2, 1, 2)
    assert (experiment.data.validation_fraction, experiment.data.split_seed) == (0.1, 1)
    assert (experiment.training.epochs, search.num_train) == (9, 3600)


def test_what_the_experiment_says_itself_is_kept(write_space, tmp_path):
    path = write_space(rungs="null")
    (tmp_path / "base.yaml").write_text(
        "{seed: 5, data: {source: mnist-5k, validation_fraction: 0.25, split_seed: 7}, model: {builder: cnn},"
        " training: {epochs: 3}, runtime: {intra_op_threads: 2, inter_op_threads: 3}}"
    )
    search, data = loaded(path)
    experiment = search.base.experiment
    assert (experiment.data.validation_fraction, experiment.data.split_seed, experiment.training.epochs) == (0.25, 7, 3)
    assert (experiment.runtime.intra_op_threads, experiment.runtime.inter_op_threads) == (2, 3)
    assert (data.num_train, data.num_validation, search.num_train) == (3000, 1000, 3000)


def test_a_restored_search_is_the_one_that_was_loaded(make_opened):
    opened = make_opened()
    again = restore_search(opened.dir / "search.yaml", opened.dir / "experiment.yaml", opened.record.data)
    assert (again.spec, again.space, again.whole_keys) == (opened.search.spec, opened.search.space, again.whole_keys)
    assert again.base.experiment == opened.search.base.experiment
    assert (again.shape, again.num_train) == (opened.search.shape, opened.search.num_train)


def test_whole_sections_can_be_choices(make_search):
    make_search("{model: {choices: [{builder: mlp, hidden_units: [8]}, {builder: cnn, filters: [4]}]}}")


def test_networks_of_other_depths_can_be_choices(make_search):
    """kernel_size stands once in the experiment for all of its blocks, and serves more blocks or fewer."""
    make_search("{model.filters: {choices: [[4], [4, 8], [4, 8, 8]]}, model.dense_units: {choices: [[], [8]]}}")


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ("{training.batch_size: {low: 10, high: 19}}", 10),
        ("{training.batch_size: {low: 10, high: 19}, training.optimizer: {choices: [sgd, adam]}}", 20),
        ("{training.learning_rate: {low: 1, high: 2}}", float("inf")),
        ("{model.dropout: {low: 0, high: 0.5}}", float("inf")),
        ("{training.early_stopping: {choices: [null, {patience: 3}]}}", 2),
    ],
)
def test_the_schema_says_whether_a_range_is_of_whole_numbers(make_search, space, size):
    assert num_points(make_search(space)) == size


EVERY_KIND = """\
name: bad name
experiment: base.yaml
seed: -1
gaol: validation_loss
goal: test_loss
method: annealing
trials: 0
rungs: {first: 30, factor: 1, last: 27}
lanes: 0
final: {trials: 3, seeds: 0}
space:
  training.learning_rte: {low: 0.0001, high: 0.03, log: true}
  training.batch_size: {choices: [64, 100000, 1.5]}
  model.dropout: {low: 0.0, high: 1.5}
  model.filters: {choices: [[16, 32], 32, [48, 96, 1, 2, 3]]}
  model.kernel_size: {low: 2.5, high: 60}
  training.weight_decay: {low: 2, high: 1}
  training.momentum: {lo: 0, high: 1}
  seed: {choices: [1, 2]}
  data.validation_fraction: {choices: [0.1]}
  training.schedule: {choices: [{name: cosine}, {name: cosinus}]}
  training.schedule.warmup_epochs: {low: 0, high: 1}
  training.optimizer: {choices: [sgd, sgd]}
  training.label_smoothing: {low: 0, high: 0.5, log: true}
  training.ema_decay: {low: 0.5, choices: [0.9]}
  runtime.towers: {choices: [1]}
  training.epochs: {low: 1, high: 2}
  model: 3
  training.gradient_clip_norm: {}
"""


def test_every_fault_is_named_with_its_line(write_space):
    path = write_space()
    path.write_text(EVERY_KIND)
    faults = faults_of(path)
    lines = {int(re.match(r"space\.yaml:(\d+): ", fault)[1]) for fault in faults}
    assert lines == set(range(1, 30)) - {2, 11, 22}
    assert faults[2] == "space.yaml:4: gaol: unknown key; did you mean goal?"
    text = "\n".join(faults)
    for words in (
        "space.training.learning_rte.low: unknown key; did you mean learning_rate?",
        "space.training.batch_size.choices[1]: got 100000; must be at most 65536",
        "space.model.dropout.high: got 1.5; must be less than 1",
        "space.model.filters.choices[1]: got 32; expected a list",
        "space.model.filters.choices[2]: model.kernel_size: got 3 for block 4",
        "space.model.kernel_size.low: got 2.5; expected a whole number",
        "space.training.momentum.lo: unknown key; did you mean low?",
        "space.training.schedule: training.schedule.warmup_epochs is a part of it",
        'space.training.optimizer.choices: "sgd" appears twice',
        "space.training.label_smoothing.low: got 0; must be greater than 0 with log: true",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"final": {"trials": 25}}, "final.trials: got 25; must be at most trials, 24"),
        ({"trial_towers": 2000}, "trial_towers: got 2000; must be at most 1024"),
        (
            {"method": "grid"},
            "space.training.learning_rate: a grid cannot have a range; give choices, or set method: tpe",
        ),
        ({"experiment": "none.yaml"}, "experiment: there is no file"),
        ({"experiment": None}, "experiment: this key is required"),
        ({"space": "{training.loss: {choices: [cross_entropy]}}"}, "values of different losses cannot be compared"),
        ({"space": "{}"}, "space: got {}; expected at least 1 value"),
        ({"space": "3"}, "space: got 3; expected a section of keys"),
        ({"space": "{training.batch_size: 3}"}, "space.training.batch_size: got 3; expected a section of keys"),
        (
            {"space": "{training: {choices: [{epochs: 3}, {}]}}"},
            "training.epochs is a part of it and is the same for all",
        ),
        (
            {"space": "{model.dropout: {choices: [.nan]}}"},
            "space.model.dropout.choices: got nan; must be a finite number",
        ),
        (
            {"space": "{model.dropout: {low: .nan, high: .inf}}"},
            "space.model.dropout.low: got nan; must be a finite number",
        ),
        ({"rungs": "{first: 3, last: 2}"}, "rungs.first: got 3; must be at most last, 2"),
    ],
)
def test_what_does_not_go_together_is_refused(write_space, keys, words):
    assert words in "\n".join(faults_of(write_space(**keys)))


@pytest.mark.parametrize("path", sorted(Path("configs/searches").glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_search_is_right_and_names_its_command(path, cnn_train, tmp_path):
    answer = cnn_train("search", path.absolute(), "--dry-run", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert path.read_text().splitlines()[1] == f"#   Command:  cnn-train search {path}"


def test_a_grid_that_trials_do_not_cover_is_refused(write_space):
    space = "{training.batch_size: {choices: [1, 2, 3, 4, 5]}, model.dropout: {choices: [0.1, 0.2, 0.3, 0.4, 0.5]}}"
    faults = faults_of(write_space(space, method="grid"))
    assert faults == ["space.yaml:2: trials: got 24, but the grid has 25 points; set trials: 25, or method: random"]


def test_a_fault_of_the_experiment_is_named_beside_those_of_the_space(write_space, tmp_path):
    path = write_space(lanes=0)
    (tmp_path / "base.yaml").write_text("{data: {source: mnist-5k}, model: {builder: cnn, filter: 3}}")
    faults = faults_of(path)
    assert "lanes: got 0" in faults[0]
    assert faults[1].startswith("base.yaml:1: model.filter: unknown key")


def test_corners_that_fail_only_together_are_found(write_space):
    """Each value fits by itself: padding valid with kernels of 9, and three blocks with kernels of 3."""
    space = "{model.filters: {choices: [[4, 4], [4, 4, 4]]}, model.kernel_size: {low: 3, high: 9}}"
    (fault,) = faults_of(write_space(space))
    assert "with model.filters [4, 4, 4]" in fault
    assert "got 9 for block 2" in fault or "got 9 for block 3" in fault


def test_a_space_of_too_many_corners_is_refused_only_if_a_section_alone_has_them(write_space):
    both = "model.l1: {low: 0, high: 1}, model.l2: {low: 0, high: 1}, model.dropout: {low: 0.1, high: 0.2}"
    many = "training.batch_size: {choices: " + str(list(range(1, 101))) + "}"
    rates = "training.learning_rate: {low: 0.1, high: 1}, training.weight_decay: {low: 0.1, high: 1}"
    loaded(write_space(f"{{{both}, {many}, {rates}}}"))
    wide = ", ".join(f"model.{key}: {{choices: {[x / 100 for x in range(1, 51)]}}}" for key in ("l1", "l2", "dropout"))
    (fault,) = faults_of(write_space(f"{{{wide}}}"))
    assert "space: has 125,000 corners to check, more than the limit of 20,000" in fault


@pytest.fixture
def write_split_space(write_space, tmp_path, strokes):
    """A function of an experiment's text and of keys that writes a space over data with a validation split, or not."""

    def write(training="{}", own=True, num_train=192, fraction=0.0, space=SMALL_SPACE, **keys):
        arrays = {**strokes, "x_train": strokes["x_train"][:num_train], "y_train": strokes["y_train"][:num_train]}
        if own:
            arrays |= {"x_val": strokes["x_test"], "y_val": strokes["y_test"]}
        np.savez(tmp_path / "split.npz", **arrays)
        path = write_space(space, **keys)
        (tmp_path / "base.yaml").write_text(
            f"{{data: {{source: npz, path: {tmp_path}/split.npz, validation_fraction: {fraction}}}, "
            f"model: {{builder: cnn, filters: [4]}}, training: {training}}}"
        )
        return path

    return write


def test_data_with_its_own_validation_split_is_used_whole(write_split_space):
    search, data = loaded(write_split_space())
    assert (data.validation_from, data.num_train, data.num_validation) == ("own", 192, 96)
    assert (search.base.experiment.data.validation_fraction, search.num_train) == (0.0, 192)
    search, data = loaded(write_split_space(own=False))
    assert (data.validation_from, data.num_train, data.num_validation) == ("carved", 173, 19)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("training", ["{schedule: {name: plateau}}", "{early_stopping: {patience: 2}}"])
def test_what_needs_a_validation_split_has_one_in_a_search(write_split_space, own, training):
    loaded(write_split_space(training, own))


@pytest.mark.parametrize(("own", "size"), [(True, 192), (False, 173)])
def test_a_batch_is_compared_with_the_training_split_that_is_used(write_split_space, own, size):
    space = f"{{training.batch_size: {{choices: [8, {size}]}}}}"
    loaded(write_split_space(own=own, space=space))
    space = f"{{training.batch_size: {{choices: [8, {size + 1}]}}}}"
    (fault,) = faults_of(write_split_space(own=own, space=space))
    assert f"batch_size.choices[1]: got {size + 1}; at most {size}, the size of the training split" in fault


def test_a_fraction_that_is_not_used_is_told(write_split_space):
    warnings = []
    load_search(write_split_space(fraction=0.2), warnings.append, lambda *_: None)
    assert len(warnings) == 1
    assert "data.validation_fraction is not used" in warnings[0]


def test_a_class_too_small_to_validate_on_is_told_where_the_fraction_is_set(write_split_space, tmp_path):
    path = write_split_space(own=False, num_train=12, validation_fraction=0.01)
    with pytest.raises(DataError) as caught:
        loaded(path)
    assert re.fullmatch(rf"{path}:\d+", caught.value.place)
