"""Messages between processes come back as they were sent, and a line that is none is quoted, however long."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.json_lines import decode, encode


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A text and a number."""

    text: str
    number: float


DECODER = msgspec.json.Decoder(Said)


def refused(shown: str, why: str) -> ValueError:
    return ValueError(f"{shown}: {why}")


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_message_is_one_line_and_comes_back(text: str, number: float) -> None:
    line = encode(Said(text, number))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line, DECODER, refused) == Said(text, number)


@given(st.binary())
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=": "):
        decode(line, DECODER, refused)


def test_a_long_line_is_cut_where_it_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"^'x{120}\.\.\.': ") as caught:
        decode(b"x" * 100_000, DECODER, refused)
    assert len(str(caught.value)) < 300
