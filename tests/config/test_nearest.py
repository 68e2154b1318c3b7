"""Which word or which file was meant."""

from pathlib import Path

import pytest

from cnn_trainer.config.nearest import did_you_mean_file


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stroke.npz", "strokes.npz"),
        ("Strokes.NPZ", "strokes.npz"),
        ("strokes.npy", "strokes.npz"),
        ("digit", "digits"),
        ("digit/train.npz", "digits"),
        ("7.pgn", "7.png"),
        ("8.png", None),
        ("other.npz", None),
        ("other/train.npz", None),
        ("\0", None),
    ],
)
def test_a_near_file_is_one_of_the_same_digits(tmp_path: Path, typed: str, meant: str | None) -> None:
    (tmp_path / "digits").mkdir()
    for name in ("strokes.npz", "7.png"):
        (tmp_path / name).touch()
    assert did_you_mean_file(tmp_path / typed) == (f"; did you mean {tmp_path / meant}?" if meant else "")
