"""What people are shown: text from elsewhere is text, whatever is in it."""

from __future__ import annotations

import pytest

from flasc_cli.output import print_table, text


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "a\nb", "a\tb", "\u202e"]
)
def test_text_of_devices_neither_steers_a_terminal_nor_makes_rows(
    hostile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text(hostile).isprintable()
    print_table("Devices", ("id", "detail"), [["1", hostile]])
    header, row = capsys.readouterr().out.splitlines()
    assert (header.count("\t"), row.count("\t")) == (1, 1)


def test_words_of_all_languages_stay() -> None:
    assert text("der Akku war leer: 電池切れ") == "der Akku war leer: 電池切れ"
