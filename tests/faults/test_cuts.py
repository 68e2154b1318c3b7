"""A run that is stopped after any step resumes bit for bit."""

import pytest


def test_a_run_cut_at_every_epoch_and_inside_epochs_ends_with_the_same_bits(zygote, reference, tmp_path):
    zygote.call("cut_everywhere", tmp_path, reference.dir, file="cuts.py")


@pytest.mark.parametrize(
    "function", ["cut_across_early_stopping", "cut_across_a_plateau", "train_on", "ask_for_fewer_epochs"]
)
def test_early_stopping_plateau_and_number_of_epochs_continue_across_a_cut(zygote, tmp_path, function):
    zygote.call(function, tmp_path, file="cuts.py")
