"""Words and tables that fit the terminal."""

import textwrap

from cnn_trainer.cli.tables import pairs, table, wrap

HEADING = ("run", "data", "epochs", "where")
ROWS = [("first", "mnist", "3", "/data/mnist.npz"), ("second", "mnist-5k", "12", "-")]


def lines(text):
    return textwrap.dedent(text).strip("\n").splitlines()


def test_columns_of_numbers_are_to_the_right():
    assert table(HEADING, ROWS, 80) == lines("""
        run     data      epochs  where
        first   mnist          3  /data/mnist.npz
        second  mnist-5k      12  -
    """)


def test_columns_to_spare_give_way_one_after_the_other():
    assert table(HEADING, ROWS, 36, ("epochs", "data")) == lines("""
        run     data      where
        first   mnist     /data/mnist.npz
        second  mnist-5k  -
    """)
    assert table(HEADING, ROWS, 24, ("epochs", "data")) == lines("""
        run     where
        first   /data/mnist.npz
        second  -
    """)


def test_long_words_in_the_last_column_are_broken_under_one_another():
    rows = [("first", "in the folder of downloads"), ("second", "/a/path/that/is/longer/than/that.npz")]
    assert table(("run", "where"), rows, 30) == lines("""
        run     where
        first   in the folder of
                downloads
        second  /a/path/that/is/longer
                /than/that.npz
    """)


def test_what_does_not_fit_in_columns_is_a_block_for_each_row():
    assert table(HEADING, ROWS, 24) == lines("""
        run     first
        data    mnist
        epochs  3
        where   /data/mnist.npz

        run     second
        data    mnist-5k
        epochs  12
        where   -
    """)


def test_a_table_without_rows_has_its_heading():
    assert table(HEADING, [], 80) == ["run  data  epochs  where"]


def test_values_are_broken_under_one_another():
    assert pairs([("data", "mnist, of two splits"), ("towers", "2")], "  ", 22) == [
        "  data    mnist, of",
        "          two splits",
        "  towers  2",
    ]


def test_lines_for_a_file_are_not_broken():
    assert wrap("a b " * 100, None) == ["a b " * 100]
    assert pairs([("data", "a b " * 100)]) == ["data  " + ("a b " * 100).rstrip()]


def test_control_characters_are_left_to_be_escaped():
    assert wrap("a\tb \x1b[2J c\nd", 8) == ["a\tb \x1b[2J", "c\nd"]
