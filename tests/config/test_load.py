"""From a YAML file and overrides to an experiment, or to every fault with its line."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_trainer.config import template
from cnn_trainer.config.faults import KINDS, MAX_FAULTS, section_kinds
from cnn_trainer.config.load import change_experiment, dump_config, load_config, summarize_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.data import Mnist5k, MnistLike, Npz
from cnn_trainer.config.schema.model import Mlp
from cnn_trainer.errors import CnnTrainError, ConfigError, UsageError
from cnn_trainer.network.fits import check_fits, load_checked
from cnn_trainer.network.shapes import ImageShape

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_checked(path, overrides)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.lines()]


# Line 1 data, line 2 model, line 3 on: what is wrong.
START = "data: {source: mnist}\nmodel: {builder: cnn}\n"
MODEL = "data: {source: mnist}\nmodel:\n  builder: cnn\n"  # what is wrong with the network follows from line 4 on

WRONG = [
    # the whole file
    ("", 1, "a config is a mapping of keys; start one with: cnn-train config init"),
    ("- data\n", 1, "a config is a mapping of keys"),
    ("just words\n", 1, "a config is a mapping of keys"),
    # keys that do not exist
    (START + "sed: 1\n", 3, "sed: unknown key; did you mean seed?"),
    (START + "learning_rate: 1\n", 3, "learning_rate: unknown key; did you mean training.learning_rate?"),
    (START + "filters: [1]\n", 3, "filters: unknown key; did you mean model.filters?"),
    (START + "xyz: 1\n", 3, "xyz: unknown key; known keys here: name, seed, data, model, training, runtime"),
    (START + "'': 1\n", 3, "unknown key; known keys here"),
    (START + "training:\n  learning_rte: 1e-3\n", 4, "training.learning_rte: unknown key; did you mean learning_rate?"),
    (START + "training:\n  schedule:\n    name: cosine\n    factor: 1\n", 6, "it goes with name: step, exponential or"),
    (MODEL + "  hidden_units: [3]\n", 4, "it goes with builder: mlp"),
    ("data:\n  source: mnist\n  image_size: 32\nmodel: {builder: cnn}\n", 3, "it goes with source: folder"),
    (START + "training: {augmentation: {rotate: 1}}\n", 3, "training.augmentation.rotate: unknown key"),
    (START + "training: {early_stopping: {patience: 1, delta: 1}}\n", 3, "did you mean min_delta?"),
    # sections
    ("data: mnist\nmodel: {builder: cnn}\n", 1, "data: got 'mnist'; expected a section of keys, such as source: mnist"),
    ("data: {source: mnist}\nmodel: [cnn]\n", 2, "model: got ['cnn']; expected a section of keys"),
    ("model: mlp\n", 1, "model: got 'mlp'; expected a section of keys, such as builder: mlp"),
    ("data:\n  source: mnits\nmodel: {builder: cnn}\n", 2, "data.source: got 'mnits'; allowed: mnist, fashion-mnist"),
    ("data:\n  source: mnits\nmodel: {builder: cnn}\n", 2, "did you mean mnist?"),
    ("data: {source: mnist}\nmodel:\n  builder: 3\n", 3, "model.builder: got 3; allowed: cnn, mlp"),
    ("data: {source: [a]}\nmodel: {builder: cnn}\n", 1, "data.source: got ['a']; allowed"),
    (START + "training: 3\n", 3, "training: got 3; expected a section of keys, such as epochs: 10"),
    (START + "runtime: fast\n", 3, "runtime: got 'fast'; expected a section of keys, such as device: auto"),
    (START + "training: {early_stopping: true}\n", 3, "got true; expected a section of keys, such as patience: 5"),
    (START + "training:\n  schedule: cosine\n", 4, "expected a section of keys, such as name: cosine"),
    (START + "training:\n  schedule: {name: cosin}\n", 4, "schedule.name: got 'cosin'; allowed: constant, step"),
    (START + "training:\n  early_stopping: {}\n", 4, "training.early_stopping.patience: this key is required"),
    # sections that do not say of which kind they are
    ("data: {dataset: mnist}\n", 1, "data.dataset: unknown key; did you mean source?"),
    ("data: {name: imagenet}\n", 1, "data.name: unknown key; did you mean source?"),
    ("data: {images: npz}\n", 1, "data.images: unknown key; did you mean source?"),
    ("model: {type: mlp}\n", 1, "model.type: unknown key; did you mean builder?"),
    ("training: {schedule: {kind: cosine}}\n", 1, "training.schedule.kind: unknown key; did you mean name?"),
    ("model: {hidden_units: [3]}\n", 1, "model.hidden_units: unknown key; it goes with builder: mlp"),
    ("data: {image_size: 32}\n", 1, "data.image_size: unknown key; it goes with source: folder or parquet"),
    ("training: {schedule: {factor: 1}}\n", 1, "it goes with name: step, exponential or plateau"),
    # what was meant
    ("Model: {builder: mlp}\n", 1, "Model: unknown key; did you mean model?"),
    ("training: {learningRate: 1}\n", 1, "training.learningRate: unknown key; did you mean learning_rate?"),
    ("training: {batch-size: 1}\n", 1, "training.batch-size: unknown key; did you mean batch_size?"),
    ("training: {num_epochs: 1}\n", 1, "training.num_epochs: unknown key; did you mean epochs?"),
    ("training: {lr: 1}\n", 1, "training.lr: unknown key; did you mean learning_rate?"),
    ("lr: 1\n", 1, "lr: unknown key; did you mean training.learning_rate?"),
    ("data: {source: idx, root: x}\n", 1, "data.root: unknown key; did you mean path?"),
    ("training: {shuffle: yes}\n", 1, "training.shuffle: unknown key; known keys here: epochs"),
    ("model: {activation: ReLU}\n", 1, "model.activation: got 'ReLU'; allowed: relu, sigmoid"),
    ("model: {activation: ReLU}\n", 1, "did you mean relu?"),
    ("model: {builder: CNN}\n", 1, "did you mean cnn?"),
    ("data: {source: Fashion_MNIST}\n", 1, "did you mean fashion-mnist?"),
    ("training: {optimizer: AdamW}\n", 1, "did you mean adamw?"),
    ("training: {loss: sparse_categorical_crossentropy}\n", 1, "did you mean cross_entropy?"),
    ("training: {early_stopping: None}\n", 1, "training.early_stopping: got 'None'; expected a section of keys"),
    ("training: {early_stopping: None}\n", 1, "write null for none"),
    ("training: {early_stopping: false}\n", 1, "write null for none"),
    ("training: {ema_decay: none}\n", 1, "training.ema_decay: got 'none'; expected a number; write null for none"),
    ("training: {class_weights: no}\n", 1, "training.class_weights: got 'no'; allowed: balanced; write null for none"),
    ("data: {fallback: 'null'}\n", 1, "data.fallback: got 'null'; allowed: mnist-5k; write null for none"),
    ("seed: None\n", 1, "seed: got 'None'; expected a whole number"),
    ("training: {epochs: null}\n", 1, "got null; expected a whole number; leave the key out for its default"),
    ("runtime: {tensorboard: yes}\n", 1, "runtime.tensorboard: got 'yes'; expected true or false; write true"),
    ("runtime: {tensorboard: 'True'}\n", 1, "runtime.tensorboard: got 'True'; expected true or false; write true"),
    ("runtime: {tensorboard: 0}\n", 1, "runtime.tensorboard: got 0; expected true or false; write false"),
    ("runtime: {tensorboard: off}\n", 1, "expected true or false; write false"),
    ("training: {learning_rate: '1e-3'}\n", 1, "got '1e-3'; expected a number; leave out the quotes"),
    ("seed: '5'\n", 1, "seed: got '5'; expected a whole number; leave out the quotes"),
    ("training: {batch_size: 1_000}\n", 1, "got '1_000'; expected a whole number; write 1000"),
    ("seed: 0x10\n", 1, "seed: got '0x10'; expected a whole number; write 16"),
    ("seed: 1e3\n", 1, "seed: got 1000.0; expected a whole number; write 1000"),
    ("model: {dropout: 25%}\n", 1, "model.dropout: got '25%'; expected a number; write 0.25"),
    ("model: {filters: 32}\n", 1, "model.filters: got 32; expected a list, such as [32, 64]; write [32]"),
    ("model:\n  filters: (32, 64)\n", 2, "write a list in square brackets, such as [32, 64]"),
    # placeholders of other programs
    ("seed: ${oc.env:SEED}\n", 1, "seed: got '${oc.env:SEED}'; placeholders are not filled in: write the value"),
    ("name: run-{{ seed }}\n", 1, "name: got 'run-{{ seed }}'; placeholders are not filled in"),
    ("training:\n  epochs: {{ epochs }}\n", 2, "${…} and {{…}} are not filled in"),
    ("training: {epochs: ${EPOCHS}}\n", 1, "${…} and {{…}} are not filled in"),
    ("data:\n  source: csv\n  path: x\n  label: ${oc.env:L}\n", 4, "data.label: got '${oc.env:L}'; placeholders are"),
    ("data:\n  path: ${oc.env:D}/x\n", 2, "data.path: got '${oc.env:D}/x', and ${oc.env:D} is not filled in here"),
    ("data:\n  path: ${D:-x}\n", 2, "write the path out, or an environment variable as $NAME or ${NAME}"),
    ("data:\n  path: '{{ d }}/x'\n", 2, "and {{…}} is not filled in here; write the path out"),
    ("data: {path: $CNN_TRAIN_NONE/x}\n", 1, "and the environment variable CNN_TRAIN_NONE is not set; set CNN_TRAIN_"),
    ("data: {source: csv, path: x, test_path: $CNN_TRAIN_NONE}\n", 1, "data.test_path: got '$CNN_TRAIN_NONE', and the"),
    ("data: {path: ~nobody-of-that-name/x}\n", 1, "and the home folder for ~ is not known; write the path out"),
    # values of the wrong kind
    (START + "seed: no\n", 3, "seed: got 'no'; expected a whole number"),
    (START + "seed: 1.5\n", 3, "seed: got 1.5; expected a whole number"),
    (START + "seed: 1e3\n", 3, "seed: got 1000.0; expected a whole number"),
    (START + "seed: true\n", 3, "seed: got true; expected a whole number"),
    (START + "seed: null\n", 3, "seed: got null; expected a whole number"),
    (START + "name: 3\n", 3, "name: got 3; expected text; put it in quotes"),
    (START + "training: {learning_rate: fast}\n", 3, "training.learning_rate: got 'fast'; expected a number"),
    (START + "training: {learning_rate: .nan}\n", 3, "training.learning_rate: got nan; must be a finite number"),
    (START + "training: {learning_rate: 1e999}\n", 3, "training.learning_rate: got inf; must be a finite number"),
    (START + "training: {gradient_clip_norm: off}\n", 3, "training.gradient_clip_norm: got 'off'; expected a number"),
    (START + "runtime: {tensorboard: yes}\n", 3, "runtime.tensorboard: got 'yes'; expected true or false"),
    (START + "runtime: {tensorboard: 1}\n", 3, "runtime.tensorboard: got 1; expected true or false"),
    (MODEL + "  filters: 32\n", 4, "got 32; expected a list, such as [32, 64]"),
    ("data: {source: npz, path: 3}\nmodel: {builder: cnn}\n", 1, "data.path: got 3; expected text; put it in quotes"),
    ("data: {source: npz, path: null}\nmodel: {builder: cnn}\n", 1, "data.path: got null; expected text"),
    # values out of bounds
    (START + "training:\n  epochs: 0\n", 4, "training.epochs: got 0; must be at least 1"),
    (START + "training:\n  epochs: 100001\n", 4, "training.epochs: got 100001; must be at most 100000"),
    (START + "training: {learning_rate: 0}\n", 3, "training.learning_rate: got 0; must be greater than 0"),
    (START + "training: {label_smoothing: 1}\n", 3, "training.label_smoothing: got 1; must be less than 1"),
    (START + "training: {momentum: -0.1}\n", 3, "training.momentum: got -0.1; must be at least 0"),
    (START + "seed: 4294967296\n", 3, "seed: got 4294967296; must be at most 2147483647"),
    ("data: {source: mnist, validation_fraction: 0.6}\nmodel: {builder: cnn}\n", 1, "must be at most 0.5"),
    ("data: {source: idx, path: ''}\nmodel: {builder: cnn}\n", 1, "data.path: got ''; must not be empty"),
    ("data: {source: mnist}\nmodel: {builder: cnn, filters: []}\n", 2, "got []; expected at least 1 value"),
    (f"data: {{source: mnist}}\nmodel: {{builder: mlp, hidden_units: {[1] * 17}}}\n", 2, "expected at most 16 values"),
    (f"data: {{source: mnist}}\nmodel: {{builder: cnn, filters: {[1] * 17}}}\n", 2, "expected at most 16 values"),
    (MODEL + "  filters:\n    - 1\n    - 0\n", 6, "model.filters[1]: got 0"),
    (START + "name: a b\n", 3, "name: got 'a b'; expected 1 to 64 letters, digits, dots, hyphens and underscores"),
    (START + "name: ../x\n", 3, "name: got '../x'; expected 1 to 64 letters"),
    (START + f"name: {'x' * 65}\n", 3, "expected 1 to 64 letters"),
    # words that are not known
    (START + "training: {optimizer: adma}\n", 3, "training.optimizer: got 'adma'; allowed: sgd, momentum"),
    (START + "training: {optimizer: adma}\n", 3, "did you mean adam?"),
    (START + "training: {loss: mse}\n", 3, "training.loss: got 'mse'; allowed: cross_entropy, mean_squared_error"),
    (START + "runtime: {device: cuda}\n", 3, "runtime.device: got 'cuda'; allowed: auto, cpu, gpu"),
    ("data: {source: mnist, fallback: mnist}\nmodel: {builder: cnn}\n", 1, "got 'mnist'; allowed: mnist-5k"),
    (MODEL + "  activation: elu\n", 4, "model.activation: got 'elu'; allowed: relu"),
    (MODEL + "  padding: full\n", 4, "model.padding: got 'full'; allowed: valid, same"),
    # what does not go together
    (START + "training:\n  epochs: 3\n  early_stopping: {patience: 1}\n", 5, "needs a validation split"),
    (START + "training:\n  epochs: 3\n  schedule: {name: plateau}\n", 5, "plateau needs a validation split"),
    (MODEL + "  kernel_size: [3, 3, 3]\n", 4, "3 values for 2 entries of filters"),
    (MODEL + "  dropout: [0.1, 0.2]\n", 4, "2 values for 1 entry"),
    ("data: {source: mnist}\nmodel: {builder: cnn, dense_units: [], dropout: 0.5}\n", 2, "dense_units is empty"),
    ("data: {source: mnist}\nmodel: {builder: mlp, hidden_units: [], dropout: 0.5}\n", 2, "hidden_units is empty"),
    # what cannot work on these images
    (START + "training:\n  batch_size: 60001\n", 4, "training.batch_size: got 60001; at most 60000"),
    (START.replace("}", "-5k, validation_fraction: 0.5}", 1) + "training: {batch_size: 2001}\n", 3, "at most 2000"),
    ("data: {source: mnist, validation_fraction: 1e-6}\nmodel: {builder: cnn}\n", 1, "leaves no validation example"),
    (MODEL + "  kernel_size: 29\n", 4, "block 1, but the image that reaches it is 28x28"),
    (MODEL + "  filters: [1, 1, 1, 1]\n", 2, "block 4, but the image that reaches it is 1x1"),
    (MODEL + "  pool_size: [2, 12]\n", 4, "block 2, but the image that reaches it is 11x11"),
    (MODEL + "  padding: same\n  pool_size: 29\n", 5, "model.pool_size: got 29 for block 1"),
    ("data: {source: fashion-mnist}\nmodel: {builder: cnn, filters: [1], kernel_size: 28}\n", 2, "got 2 for block 1"),
]  # fmt: skip


def test_the_table_of_wrong_configs_is_long() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize(("text", "line", "fragment"), WRONG)
def test_a_wrong_config_is_refused_with_its_line(tmp_path: Path, text: str, line: int, fragment: str) -> None:
    faults = faults_of(written(tmp_path, text))
    assert any(fault.startswith(f"{line}: ") and fragment in fault for fault in faults), faults
    assert all("\n" not in fault and len(fault) < 400 for fault in faults)


def test_all_faults_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "runtime: {device: tpu}\ntraining:\n  epochs: 0\n  lerning_rate: 1\nmodel:\n  builder: cnn\n  padding: full\n"
        "seed: x\ndata: {source: mnits}\n",
    )
    assert [fault.split(": ")[:2] for fault in faults_of(path)] == [
        ["1", "runtime.device"],
        ["3", "training.epochs"],
        ["4", "training.lerning_rate"],
        ["7", "model.padding"],
        ["8", "seed"],
        ["9", "data.source"],
    ]


def test_a_section_of_an_unknown_kind_hides_no_other_fault(tmp_path: Path) -> None:
    path = written(tmp_path, "data:\n  source: mnits\n  validation_fraction: 7\n  image_size: 2\n  foo: 3\n")
    assert [fault.split(": ")[:3] for fault in faults_of(path)] == [
        ["2", "data.source", "got 'mnits'; allowed"],
        ["3", "data.validation_fraction", "got 7; must be at most 0.5"],
        ["5", "data.foo", "unknown key; known keys here"],
    ]


def test_paths_and_misfits_are_reported_together(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {path: $CNN_TRAIN_NONE}\nmodel: {kernel_size: 29}\n")
    assert [fault.partition(": ")[0] for fault in faults_of(path)] == ["1", "2"]


@pytest.mark.parametrize("text", ["name: x\n", "data:\nmodel:\ntraining:\nruntime:\n", "{}\n", START])
def test_what_is_left_out_has_its_default(tmp_path: Path, text: str) -> None:
    experiment = load_checked(written(tmp_path, text)).experiment
    assert experiment.model_dump(exclude={"name"}) == Experiment().model_dump(exclude={"name"})
    assert (experiment.data.source, experiment.model.builder) == ("mnist", "cnn")
    assert experiment.training.schedule.name == "constant"


def test_a_section_without_its_kind_is_of_the_default_kind(tmp_path: Path) -> None:
    text = "data: {validation_fraction: 0.1}\nmodel: {filters: [8]}\ntraining: {schedule: {warmup_epochs: 1}}\n"
    experiment = load_checked(written(tmp_path, text)).experiment
    assert (experiment.data.source, experiment.data.validation_fraction) == ("mnist", 0.1)
    assert (experiment.model.builder, experiment.model.filters) == ("cnn", [8])
    assert (experiment.training.schedule.name, experiment.training.schedule.warmup_epochs) == ("constant", 1)


def test_null_is_none_where_a_section_may_be_missing(tmp_path: Path) -> None:
    assert (
        load_checked(written(tmp_path, "training: {early_stopping: null}\n")).experiment.training.early_stopping is None
    )


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("data.source=mnist-5k", "dropped data.fallback, which goes with source: mnist"),
        (
            "model.builder=mlp",
            "dropped model.filters, model.kernel_size, model.pool_size, model.padding, model.dense_units, which go "
            "with builder: cnn",
        ),
    ],
)
@pytest.mark.parametrize("name", ["mnist"])
def test_another_kind_drops_the_keys_of_the_old_one(name: str, override: str, note: str) -> None:
    config = load_checked(Path(name), [override])
    assert config.notes == [f"--set {override}: {note}"]
    key, _, kind = override.partition("=")
    section, tag = key.split(".")
    assert getattr(getattr(config.experiment, section), tag) == kind
    assert config.experiment.model_dump(exclude={section}) == load_checked(Path(name)).experiment.model_dump(
        exclude={section}
    )


def test_another_kind_keeps_what_both_have_and_what_overrides_set(tmp_path: Path) -> None:
    text = "data: {source: folder, path: p, image_size: 8, color: rgb, validation_fraction: 0.25}\n"
    overrides = ["data.image_size=16", "data.source=parquet"]
    config = load_config(written(tmp_path, text), overrides)
    assert config.experiment.data.model_dump(exclude_none=True, exclude={"test_fraction"}) == {
        "source": "parquet", "path": "p", "image_size": 16, "color": "rgb", "validation_fraction": 0.25,
    }  # fmt: skip
    assert config.notes == []
    path = written(tmp_path, text)
    assert faults_of(path, "data.image_size=16", "data.source=npz") == [
        "--set data.image_size=16: data.image_size: unknown key; it goes with source: folder or parquet; known keys "
        "here: source, validation_fraction, train_subset, split_seed, path, keys"
    ]
    config = load_config(path, {"data.source": "npz"})
    assert config.notes == ["data.source=npz: dropped data.image_size, data.color, which go with source: folder"]


def test_another_kind_drops_values_that_are_one_for_each_layer_of_the_old_one(tmp_path: Path) -> None:
    text = "model: {builder: cnn, dense_units: [8, 4], dropout: [0.1, 0.2], l2: 0.5}\n"
    config = load_checked(written(tmp_path, text), ["model.builder=mlp"])
    assert config.experiment.model == Mlp(builder="mlp", l2=0.5)
    note = "--set model.builder=mlp: dropped model.dense_units, model.dropout, which go with builder: cnn"
    assert config.notes == [note]
    config = load_checked(written(tmp_path, dump_config(load_config(written(tmp_path, text)).experiment)))
    changed = change_experiment(config.experiment, {"model.builder": "mlp"})
    assert changed.model == Mlp(builder="mlp", l2=0.5), "every key written out, as in a run's config"
    kept = load_checked(
        written(tmp_path, text), ["model.builder=mlp", "model.hidden_units=[3, 2]", "model.dropout=[0, 0.2]"]
    )
    assert kept.experiment.model == Mlp(builder="mlp", hidden_units=[3, 2], dropout=[0.0, 0.2], l2=0.5)


def test_another_named_data_set_is_not_looked_for_where_the_old_one_is(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {source: mnist, path: /d}\n")
    config = load_config(path, ["data.source=kmnist"])
    assert config.experiment.data == MnistLike(source="kmnist")
    assert config.notes == ["--set data.source=kmnist: dropped data.path, which goes with source: mnist"]
    assert load_config(path, ["data.source=npz"]).experiment.data == Npz(source="npz", path="/d"), "it needs a path"
    config = load_config(path, ["data.path=/e", "data.source=kmnist"])
    assert (config.experiment.data, config.notes) == (MnistLike(source="kmnist", path="/e"), [])
    nowhere = written(tmp_path, "data: {source: mnist, path: null}\n")
    assert load_config(nowhere, ["data.source=kmnist"]).notes == []
    assert load_config(nowhere, ["data.source=mnist-5k"]).experiment.data == Mnist5k(source="mnist-5k")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_section_of_a_shipped_config_can_become_one_of_every_kind(path: Path) -> None:
    for section, key in KINDS.items():
        for kind, model in section_kinds(section).items():
            words = {".".join((*map(str, section), key)): kind}
            if "path" in model.model_fields and model.model_fields["path"].is_required():
                words["data.path"] = "x"
            written_out = change_experiment(load_config(path).experiment, words)
            for experiment in load_config(path, words).experiment, written_out:
                found: object = experiment
                for word in (*section, key):
                    found = getattr(found, str(word))
                assert found == kind


def test_another_kind_drops_no_key_that_no_kind_has(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {falback: mnist-5k}\n")
    assert faults_of(path, "data.source=mnist-5k") == [
        "1: data.falback: unknown key; known keys here: source, validation_fraction, train_subset, split_seed"
    ]
    assert load_checked(path, ["data={source: mnist-5k}"]).notes == []


def test_another_schedule_drops_the_keys_of_the_old_one(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {schedule: {name: step, epochs: 2, factor: 0.1, warmup_epochs: 1}}\n")
    config = load_config(path, ["training.schedule.name=exponential"])
    assert config.experiment.training.schedule.model_dump() == {
        "name": "exponential", "factor": 0.1, "warmup_epochs": 1,
    }  # fmt: skip
    assert config.notes == [
        "--set training.schedule.name=exponential: dropped training.schedule.epochs, which goes with name: step"
    ]


def test_an_override_reaches_into_a_section_that_is_null(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {validation_fraction: 0.1}\ntraining:\n  early_stopping: null\n")
    experiment = load_checked(path, ["training.early_stopping.patience=3"]).experiment
    assert experiment.training.early_stopping is not None
    assert experiment.training.early_stopping.patience == 3


def test_faults_with_the_images_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "model: {builder: cnn, kernel_size: 29}\ntraining: {batch_size: 65536}\n"
        "data: {source: mnist, validation_fraction: 1e-6}\n",
    )
    assert [fault.partition(":")[0] for fault in faults_of(path)] == ["1", "2", "3"]


def test_of_very_many_faults_the_first_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = written(tmp_path, START + "".join(f"key{number}: 1\n" for number in range(MAX_FAULTS + 7)))
    faults = faults_of(path)
    assert len(faults) == MAX_FAULTS + 1
    assert faults[0].startswith("3: key0: unknown key")
    assert faults[-1].endswith("and 7 more faults")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["seed"], "--set seed: not of the form key=value, such as training.epochs=3"),
        (["=3"], "--set =3: not of the form key=value, such as training.epochs=3"),
        (["training..epochs=3"], "--set training..epochs=3: not of the form key=value, such as training.epochs=3"),
        (["data.source.x=3"], "--set data.source.x=3: source is a value, not a section"),
        (["seed=x"], "--set seed=x: seed: got 'x'; expected a whole number"),
        (["sed=1"], "--set sed=1: sed: unknown key; did you mean seed?"),
        (["seed=[1"], "--set seed=[1:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (
            ["name=*x"],
            "--set name=*x:1: alias *x has no anchor before it; mark an earlier value with &x, or put the text "
            "in quotes",
        ),
        (["a." * 20 + "a=1"], f"--set {'a.' * 20}a=1: nested more than 20 levels deep"),
        (
            ["training.batch_size=60001"],
            "--set training.batch_size=60001: training.batch_size: got 60001; at most 60000, the size of the "
            "training split",
        ),
        (
            ["training.schedule={name: stepp}"],
            "--set training.schedule={name: stepp}: training.schedule.name: got 'stepp'; allowed: constant, step, "
            "exponential, cosine, one-cycle, plateau; did you mean step?",
        ),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, overrides: list[str], fault: str) -> None:
    assert faults_of(written(tmp_path, START), *overrides) == [fault]


def test_faults_of_the_file_and_of_every_override_are_reported_together(tmp_path: Path) -> None:
    faults = faults_of(written(tmp_path, START + "seed: x\n"), "broken", "training.epochs=0", "name=[")
    assert [fault.partition(": ")[0] for fault in faults] == [
        "3",
        "--set training.epochs=0",
        "--set broken",
        "--set name=[:1",
    ]


def test_overrides_go_over_the_file_the_last_one_winning(tmp_path: Path) -> None:
    path = written(tmp_path, START + "training: {epochs: 5, optimizer: sgd}\n")
    overrides = ["training.epochs=3", "training.epochs=4", "training.schedule.name=cosine", "data={source: mnist-5k}"]
    experiment = load_checked(path, overrides).experiment
    assert experiment.training.epochs == 4
    assert experiment.training.optimizer == "sgd"
    assert experiment.training.schedule.name == "cosine"
    assert experiment.data.source == "mnist-5k"


def test_an_override_is_read_as_yaml(tmp_path: Path) -> None:
    overrides = ["training.learning_rate=1e-2", "training.ema_decay=null", "model.filters=[8, 16]", "name=a=b"]
    with pytest.raises(ConfigError, match="name: got 'a=b'"):
        load_config(written(tmp_path, START), overrides)
    experiment = load_config(written(tmp_path, START), overrides[:-1]).experiment
    assert experiment.training.learning_rate == 0.01
    assert experiment.training.ema_decay is None
    assert experiment.model.builder == "cnn"
    assert experiment.model.filters == [8, 16]


def test_anchors_and_merge_keys_share_values_between_sections(tmp_path: Path) -> None:
    text = "common: &small {l2: 1e-4, dropout: 0.5}\n" + MODEL + "  <<: *small\n  dropout: 0.25\n"
    experiment = load_checked(written(tmp_path, text)).experiment
    assert (experiment.model.l2, experiment.model.dropout) == (1e-4, [0.25])
    path = written(tmp_path, text.replace("1e-4", "-1").replace("0.25", "2"))
    assert faults_of(path) == [
        "1: model.l2: got -1; must be at least 0",
        "6: model.dropout: got 2; must be less than 1",
    ]


def test_a_key_that_only_holds_an_anchor_is_unknown_if_nothing_uses_it(tmp_path: Path) -> None:
    assert faults_of(written(tmp_path, "sed: &x 3\n" + START)) == ["1: sed: unknown key; did you mean seed?"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("data: {path: None}\n", "1: data.path: got 'None', and there is no such file; write null for no path"),
        ("training: {epochs: None}\n", "1: training.epochs: got 'None'; expected a whole number; leave the key out"),
        ("model: None\n", "1: model: got 'None'; expected a section of keys, such as builder: cnn; leave the key out"),
        ("seed: $SEED\n", "1: seed: got '$SEED'; placeholders are not filled in"),
    ],
)
def test_words_for_nothing_and_names_of_variables_are_understood(tmp_path: Path, text: str, fault: str) -> None:
    assert faults_of(written(tmp_path, text))[0].startswith(fault)


def test_faults_of_what_an_alias_brings_in_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "common: &c {l2: -1}\nmodel:\n  builder: cnn\n  l1: -1\n  <<: *c\n"
    assert [fault.partition(":")[0] for fault in faults_of(written(tmp_path, text))] == ["1", "4"]


def test_an_override_can_mend_a_fault_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, START + "seed: x\n")
    assert load_config(path, ["seed=7"]).experiment.seed == 7


def test_what_is_missing_directory_or_binary_is_refused(tmp_path: Path) -> None:
    assert (
        faults_of(tmp_path / "no.yaml")
        == [f"{tmp_path}/no.yaml: there is no such file; start one with: cnn-train config init"]
        or "there is no such file" in faults_of(tmp_path / "no.yaml")[0]
    )
    assert "cannot be read: Is a directory" in faults_of(tmp_path)[0]
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    assert faults_of(tmp_path / "picture.yaml") == ["1: not UTF-8 text (byte 0x89)"]


def test_later_checks_name_the_line_of_a_key_or_of_the_section_around_it(tmp_path: Path) -> None:
    loaded = load_config(written(tmp_path, START + "training:\n  epochs: 3\n"), ["seed=3"])
    assert str(loaded.fault("training.epochs", "x")).endswith("f.yaml:4: training.epochs: x")
    assert str(loaded.fault("training.batch_size", "x")).endswith("f.yaml:3: training.batch_size: x")
    assert str(loaded.fault("runtime.device", "x")).endswith("f.yaml:1: runtime.device: x")
    assert str(loaded.fault("seed", "x")) == "--set seed=3: seed: x"


def test_images_of_the_users_own_are_checked_once_their_shape_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {source: npz, path: x.npz}\nmodel: {builder: cnn}\n")
    loaded = load_config(path)
    check_fits(loaded, ImageShape(28, 28, 1), 128)
    with pytest.raises(ConfigError, match=r"batch_size: got 128; at most 127"):
        check_fits(loaded, ImageShape(28, 28, 1), 127)
    with pytest.raises(ConfigError, match=r"kernel_size: got 3 for block 2, but the image that reaches it is 1x14"):
        check_fits(loaded, ImageShape(4, 30, 3), 1000)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("{builder: mlp, hidden_units: [65536, 65536]}", "hidden_units: the network has 4,346,347,520 parameters"),
        ("{builder: cnn, filters: [8, 65536, 65536]}", "filters: the network has 38,659,424,328 parameters"),
        (
            "{builder: cnn, filters: [8], dense_units: [65536, 4000]}",
            "dense_units: the network has 350,748,744 parameters",
        ),
        (
            "{builder: cnn, filters: [65536, 1, 65536], pool_size: 1, padding: same}",
            "filters: an image of 28x28x1 takes 51,3",
        ),
    ],
)
def test_a_network_that_would_take_the_machine_down_is_refused(tmp_path: Path, model: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_checked(written(tmp_path, f"data: {{source: mnist}}\nmodel: {model}\n"))


@pytest.mark.parametrize(
    ("side", "model", "fits"),
    [
        (10, "{builder: cnn}", True),  # 10 -3+1-> 8 /2-> 4 -> 2 -> 1
        (9, "{builder: cnn}", False),  # 9 -> 7 -> 3 -> 1, and a pool of 2 has nothing to take
        (4, "{builder: cnn, padding: same}", True),
        (3, "{builder: cnn, padding: same}", False),
        (5, "{builder: cnn, pool_size: 1}", True),
        (4, "{builder: cnn, pool_size: 1}", False),
        (1, "{builder: mlp}", True),
    ],
)
def test_the_smallest_image_that_fits(tmp_path: Path, side: int, model: str, fits: bool) -> None:
    loaded = load_config(written(tmp_path, f"data: {{source: npz, path: x}}\nmodel: {model}\n"))
    if fits:
        check_fits(loaded, ImageShape(side, side, 1), 1000)
    else:
        with pytest.raises(ConfigError):
            check_fits(loaded, ImageShape(side, side, 1), 1000)


def fractions(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, exclude_max=True)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
DATA = st.one_of(
    st.fixed_dictionaries({"source": st.just("mnist")}, optional={"path": PATHS, "fallback": st.just("mnist-5k")}),
    st.fixed_dictionaries({"source": st.sampled_from(["npz", "idx", "folder"]), "path": PATHS}),
    st.fixed_dictionaries(
        {
            "source": st.just("mnist-5k"),
            "validation_fraction": st.floats(0.01, 0.5),
            "train_subset": st.none() | st.integers(2, 10_000),
            "split_seed": st.none() | st.integers(0, 9),
        }
    ),
)
MODELS = st.one_of(
    st.integers(1, 2).flatmap(
        lambda blocks: st.fixed_dictionaries(
            {"builder": st.just("cnn"), "filters": st.lists(st.integers(1, 200), min_size=blocks, max_size=blocks)},
            optional={
                "kernel_size": st.lists(st.integers(1, 3), min_size=blocks, max_size=blocks) | st.integers(1, 3),
                "conv_dropout": fractions(0, 1),
                "dense_units": st.lists(st.integers(1, 2000), max_size=3),
                "l2": st.floats(0, 1e6),
            },
        )
    ),
    st.fixed_dictionaries(
        {"builder": st.just("mlp"), "hidden_units": st.lists(st.integers(1, 5000), min_size=1, max_size=3)},
        optional={"activation": st.sampled_from(["relu", "tanh"]), "dropout": fractions(0, 1)},
    ),
)
SCHEDULES = st.one_of(
    st.fixed_dictionaries({"name": st.just("constant")}, optional={"warmup_epochs": st.floats(0, 10)}),
    st.fixed_dictionaries({"name": st.just("step"), "epochs": st.floats(0.001, 99), "factor": st.floats(1e-300, 1)}),
    st.fixed_dictionaries({"name": st.just("one-cycle"), "final_fraction": st.floats(0, 1)}),
)
EXPERIMENTS = st.fixed_dictionaries(
    {"data": DATA, "model": MODELS},
    optional={
        "name": NAMES,
        "seed": st.integers(0, 2**31 - 1),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "batch_size": st.integers(1, 2000),
                "learning_rate": st.floats(1e-300, 1000),
                "ema_decay": st.none() | st.floats(1e-9, 0.999),
                "schedule": SCHEDULES,
            },
        ),
        "runtime": st.fixed_dictionaries({}, optional={"towers": st.none() | st.integers(1, 1024)}),
    },
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(tree=EXPERIMENTS)
def test_what_dump_writes_load_gives_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    experiment = Experiment.model_validate(tree)
    path = written(tmp_path_factory.getbasetemp(), dump_config(experiment))
    assert load_config(path).experiment == experiment


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_dumped_shipped_config_is_the_same_experiment(tmp_path: Path, path: Path) -> None:
    experiment = load_config(path).experiment
    again = written(tmp_path, dump_config(experiment))
    assert load_config(again).experiment == experiment
    assert dump_config(load_config(again).experiment) == again.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_config_opens_with_modeline_command_accuracy_and_time(path: Path) -> None:
    modeline, what, command, accuracy, time, *_ = path.read_text(encoding="utf-8").splitlines()
    assert modeline == template.MODELINE
    assert re.fullmatch(r"# \S.*[.:].*", what)
    assert command.startswith(f"#   Command:  cnn-train train configs/{path.name}")
    assert re.match(r"#   Accuracy: \S", accuracy)
    assert re.match(r"#   Time:     \S", time)


def test_the_shipped_configs_are_these() -> None:
    names = {path.name for path in SHIPPED}
    wanted = {
        "mnist",
        "mnist-5k",
        "mnist-fast",
        "mnist-best",
        "mnist-mlp",
        "mnist-regularized",
        "fashion-mnist",
        "folder",
    }
    assert names == {f"{name}.yaml" for name in wanted}


def test_the_mnist_config_is_the_documented_recipe() -> None:
    experiment = load_config(CONFIGS / "mnist.yaml").experiment
    assert experiment == Experiment.model_validate(
        {
            "name": "mnist-cnn",
            "seed": 1,
            "data": {"source": "mnist", "fallback": "mnist-5k", "validation_fraction": 0.0, "split_seed": None},
            "model": {
                "builder": "cnn",
                "filters": [32, 64],
                "kernel_size": [3, 3],
                "pool_size": [2, 2],
                "padding": "valid",
                "activation": "relu",
                "batch_normalization": False,
                "conv_dropout": [0.0, 0.0],
                "dense_units": [64],
                "dropout": [0.0],
                "l1": 0.0,
                "l2": 0.0,
            },
            "training": {
                "epochs": 10,
                "batch_size": 128,
                "loss": "cross_entropy",
                "label_smoothing": 0.0,
                "optimizer": "adam",
                "learning_rate": 0.001,
                "weight_decay": 0.0,
                "gradient_clip_norm": None,
                "ema_decay": None,
                "schedule": {"name": "constant", "warmup_epochs": 0.0},
                "early_stopping": None,
            },
        }
    )


def test_a_summary_says_what_is_trained_on_what() -> None:
    experiment = load_config(CONFIGS / "mnist.yaml").experiment
    assert summarize_config(experiment) == "mnist-cnn: cnn on mnist, adam, 10 epochs in batches of 128"


@pytest.mark.parametrize("builder", ["cnn", "mlp"])
def test_the_template_is_the_defaults_with_every_key(tmp_path: Path, builder: str) -> None:
    text = template.template(builder)
    loaded = load_config(written(tmp_path, text))
    assert loaded.experiment == Experiment.model_validate({"data": {"source": "mnist"}, "model": {"builder": builder}})
    dumped = load_config(written(tmp_path, dump_config(loaded.experiment)))
    keys = {path for path in dumped.places if all(isinstance(word, str) for word in path)}
    assert keys <= set(loaded.places)


def test_the_template_explains_every_key_and_allowed_word() -> None:
    text = " ".join(template.template("cnn").replace("#", " ").split())
    schema = template.json_schema()
    for section in ("Mnist", "Cnn", "Training", "Constant", "Augmentation", "EarlyStopping", "Runtime"):
        for name, key in schema["$defs"][section]["properties"].items():
            assert name in text
            assert all(word in text for word in key.get("enum", []))
    for description in ("Passes over the training split. (from 1 to 100000)", "(above 0, below 1)", "(from 0 to 0.5)"):
        assert description in text


def test_what_the_template_leaves_out_can_be_put_in_by_taking_the_comment_sign_away(tmp_path: Path) -> None:
    head, section, tail = template.template("cnn").partition("  # early_stopping:\n")
    block, gap, rest = tail.partition("\n\n")
    lines = [line.replace("  # ", "  ", 1) for line in (section.rstrip() + "\n" + block).splitlines()]
    text = head.replace("  early_stopping: null\n", "").replace("validation_fraction: 0.0", "validation_fraction: 0.1")
    experiment = load_config(written(tmp_path, text + "\n".join(lines) + gap + rest)).experiment
    assert experiment.training.early_stopping is not None
    assert experiment.training.early_stopping.patience == 5


def test_the_json_schema_names_draft_and_title_and_has_no_id() -> None:
    schema = template.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "cnn-train experiment"
    assert "$id" not in schema
    assert schema["additionalProperties"] is False


def test_the_shipped_json_schema_is_current(tmp_path: Path) -> None:
    template.write_new(tmp_path / "x.yaml", "cnn")
    current = (tmp_path / "experiment.schema.json").read_text(encoding="utf-8")
    shipped = (CONFIGS / "experiment.schema.json").read_text(encoding="utf-8")
    assert shipped == current, "renew it: cnn-train config schema > configs/experiment.schema.json"


def test_an_existing_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, "mine")
    with pytest.raises(UsageError, match="already exists"):
        template.write_new(path, "cnn")
    assert path.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "experiment.schema.json").exists()


def test_an_existing_schema_is_left_as_it_is(tmp_path: Path) -> None:
    schema = tmp_path / "experiment.schema.json"
    schema.write_text("mine", encoding="utf-8")
    assert template.write_new(tmp_path / "x.yaml", "mlp") == [tmp_path / "x.yaml"]
    assert schema.read_text(encoding="utf-8") == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CnnTrainError, match=r"no/x\.yaml: cannot be written: No such file or directory"):
        template.write_new(tmp_path / "no" / "x.yaml", "cnn")
