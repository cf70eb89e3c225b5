"""Files of the ledger."""

from __future__ import annotations

import msgspec
import pytest

from edgetrack.evaluation.execution.ledger import file_for, key_of, plain_name, save
from edgetrack.evaluation.results import EvalRecord


def test_a_failed_save_keeps_what_was_there(tmp_path) -> None:
    path = tmp_path / "x.json"
    save(EvalRecord(results=[]), path)
    before = path.read_bytes()

    class Unwritable(msgspec.Struct):
        value: object

    with pytest.raises(TypeError):
        save(Unwritable(object()), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_names_become_plain_file_names(tmp_path) -> None:
    assert plain_name("../a b/ü") == "_a_b_"
    assert file_for(tmp_path, "s", "0123456789abcdef0123").name == "s-0123456789abcdef.json"
    assert key_of("a", None, 1) != key_of("a", None, 2)
