"""The table of an ablation, from rows that are made here."""

from __future__ import annotations

from edgetrack.ablation.table import AblationRecord, AblationRow, ablation_table, savings
from edgetrack.runtime.diagnostics import summarize


def row(name: str, **figures: object) -> AblationRow:
    return AblationRow(configuration=[f"gate={name}"], published=False, bundle=name, weights="untrained", **figures)


def test_savings_stand_beside_the_papers() -> None:
    rows = [
        row("static", track_ms=100.0, peak_mib=200.0, paper_fps=31.0, paper_gb=1.87),
        row("select", track_ms=90.0, peak_mib=210.0, paper_fps=36.0, paper_gb=1.18),
        row("none", track_ms=80.0),
    ]
    (line,) = savings(rows)
    assert line == (
        "gate=select against gate=static: 10.0% less time, 5.0% more peak memory; the paper: 13.9% less time, 36.9% "
        "less memory"
    )
    assert list(savings(rows[1:])) == []
    (unmeasured,) = savings([row("static", paper_fps=31.0), row("select", paper_fps=36.0)])
    assert "gate=select against gate=static: not measured; the paper: 13.9% less time" in unmeasured


def test_columns_without_a_figure_are_left_out() -> None:
    record = AblationRecord(
        tracker="dastm",
        target="onnx",
        precision="fp32",
        dataset="d",
        limit=None,
        threads=None,
        rows=[row("none", ao=0.5, interval=(0.4, 0.6), problem="a: gone")],
    )
    table = ablation_table(record)
    assert [column.title for column in table.columns] == ["configuration", "weights", "AO", "95 %", "size MiB"]
    assert not record.ok
    assert "gate=none: FAILED: a: gone" in table.notes


def test_many_gates_have_one_column_of_entropy() -> None:
    gates = {f"layer {i}": {f"expert {e}": [0.7, 0.7] if e else [0.3, 0.3] for e in range(2)} for i in range(7)}
    record = AblationRecord(
        tracker="spmtrack_b",
        target="onnx",
        precision="fp32",
        dataset="a",
        limit=None,
        threads=None,
        rows=[row("none", ao=0.5), row("soft", ao=0.5, diagnostics=summarize(gates))],
    )
    table = ablation_table(record)
    assert [column.title for column in table.columns] == ["configuration", "weights", "AO", "entropy", "size MiB"]
    assert [line[3] for line in table.cells()] == ["-", "0.88"]
