"""A terminal as tests see it: what stands on it after control codes were obeyed."""

import re

CONTROL = re.compile(r"\x1b\[(?P<numbers>[?0-9;]*)(?P<letter>[A-Za-z])")


class Screen:
    """Simulates a terminal with ``columns``; understands only the control codes that Rich sends."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column, self.cursor_shown = columns, [""], 0, 0, True

    def write(self, text):
        place = 0
        while place < len(text):
            control = CONTROL.match(text, place)
            if control:
                self._obey(control["letter"], control["numbers"])
                place = control.end()
                continue
            self._put(text[place])
            place += 1
        return self

    def _obey(self, letter, numbers):
        if numbers == "?25":
            self.cursor_shown = letter == "h"
        elif letter == "K":
            assert numbers == "2"
            self.lines[self.row] = ""
        elif letter == "A":
            self.row -= int(numbers)
        else:
            assert letter == "m", f"{letter} is not understood"

    def _put(self, letter):
        if letter == "\r":
            self.column = 0
            return
        if letter == "\n" or self.column == self.columns:
            self.row += 1
            self.column = 0 if letter != "\n" else self.column
            if self.row == len(self.lines):
                self.lines.append("")
        if letter != "\n":
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1
