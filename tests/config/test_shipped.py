"""Shipped configs: they are found by name, a file comes first, and an unknown name gets a list of them."""

from pathlib import Path

import pytest

from cnn_trainer.config import shipped
from cnn_trainer.config.load import load_config
from cnn_trainer.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def missing(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(Path(path))
    return str(caught.value)


def test_every_shipped_config_is_found_by_its_name() -> None:
    assert shipped.shipped_names() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    for name in shipped.shipped_names():
        assert load_config(Path(name)).experiment == load_config(ROOT / "configs" / f"{name}.yaml").experiment


def test_a_file_of_that_name_goes_before_the_shipped_config() -> None:
    Path("mnist").write_text("name: mine\ndata: {source: mnist-5k}\nmodel: {builder: cnn}\n", encoding="utf-8")
    assert load_config(Path("mnist")).experiment.name == "mine"


def test_a_folder_of_that_name_is_no_config() -> None:
    Path("mnist").mkdir()
    assert load_config(Path("mnist")).experiment.name == "mnist-cnn"


def test_a_name_is_not_taken_for_a_path() -> None:
    assert "no such file" in missing("./elsewhere/mnist")
    assert "no such file" in missing("mnist/mnist")


def test_a_wrong_name_is_told_with_the_names_that_there_are() -> None:
    names = ", ".join(shipped.shipped_names())
    assert missing("mnist-bets") == (
        f"mnist-bets: there is no such file; the shipped configs are {names}; did you mean mnist-best?"
    )
    assert missing("zzz") == f"zzz: there is no such file; the shipped configs are {names}"


@pytest.mark.parametrize("path", ["mnist.yaml", "mnist.yml", "configs/mnist.yaml"])
def test_the_path_that_a_checkout_has_is_told_by_its_name(path: str) -> None:
    assert missing(path) == f"{path}: there is no such file; did you mean mnist, which comes with the program?"


def test_another_missing_file_is_told_how_to_start_one() -> None:
    assert missing("mine.yaml") == "mine.yaml: there is no such file; start one with: cnn-train config init"


def test_faults_of_a_shipped_config_name_its_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("mnist"), ["training=none"])
    assert caught.value.faults[0].place == "--set training=none"
    assert load_config(Path("mnist")).file == str(ROOT / "configs" / "mnist.yaml")
