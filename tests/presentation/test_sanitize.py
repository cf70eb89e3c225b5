from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.presentation.sanitize import log_line, markdown_text, printable, printable_data


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("car[a]|b ünïcode", "car[a]|b ünïcode"),
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\x9bb\x07", "a\ufffdb\ufffd"),
        ("left\u202eright", "left\ufffdright"),
        ("two\nlines\u2028three", "two\ufffdlines\ufffdthree"),
        ("\ud800 \udcca", "\\ud800 \\udcca"),
    ],
)
def test_what_steers_a_terminal_is_replaced(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_what_is_left_is_on_one_line_and_printable_again(text):
    shown = printable(text)
    assert printable(shown) == shown
    assert len(shown.splitlines()) <= 1
    assert all(unicodedata.category(character)[0] != "C" for character in shown)


def test_long_text_is_cut():
    assert printable("x" * 10, longest=10) == "x" * 10
    assert printable("x" * 11, longest=10) == "x" * 9 + "…"


def test_data_keeps_its_shape_and_line_feeds():
    assert printable_data({"a\x9b": ["b\nc\x1b]0;x", 1.5, None]}) == {"a\ufffd": ["b\nc\ufffd]0;x", 1.5, None]}


def test_markdown_shows_text_as_it_is():
    shown = markdown_text("<img src=x>|[a](b)`c`\n# d @me & *e*\\ smat@bf16")
    assert shown == "&lt;img src=x&gt;\\|\\[a\\](b)\\`c\\` \\# d @<!-- -->me &amp; \\*e\\*\\\\ smat@bf16"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::x", "\\::error::x"),
        ("  ::add-mask::x", "\\  ::add-mask::x"),
        ("a ::error::x", "a ::error::x"),
        ("a ##[add-matcher]x ##vso[task.x]", "a #\\#[add-matcher]x #\\#vso[task.x]"),
        ("a\n::error::x", "a\ufffd::error::x"),
        ("## a heading", "## a heading"),
    ],
)
def test_no_line_of_a_log_is_a_command(text, shown):
    assert log_line(text) == shown
    assert log_line(shown) == shown
