"""Findings say what intervals hold and no more."""

from __future__ import annotations

import pytest

from edgetrack.benchmark.record import PytorchInterval, VersusPytorch
from edgetrack.evaluation.results import EvalRecord
from edgetrack.report.findings import faster, findings
from edgetrack.report.model import Results, Sourced
from tests.report.conftest import benchmark, comparison, contestant, difference, evaluated, sensitivity, side

FP32, INT8, ONNX = "smat-openvino-fp32", "smat-openvino-int8", "smat-onnx-fp32"


def results(bench=None, evals=(), comparisons=(), **others) -> Results:
    return Results(
        benchmarks=() if bench is None else (Sourced("bench.json", bench),),
        evaluations=(Sourced("eval.json", EvalRecord(results=list(evals))),) if evals else (),
        comparisons=tuple(Sourced("comparison.json", one) for one in comparisons),
        **others,
    )


def said(found: Results, kind: str) -> list[str]:
    return [one.line() for one in findings(found) if one.kind == kind]


def test_fastest_is_named_with_its_ratio_to_the_next() -> None:
    (line,) = said(
        results(benchmark(contestant(FP32, 20.0, seed=1, pytorch=2.5), contestant(INT8, 8.0, seed=2))), "fastest"
    )
    assert line.startswith(f"fastest: {INT8}, ")
    assert f"times as fast as {FP32}, the next" in line


def test_nobody_is_called_fastest_alone_where_rounds_do_not_tell() -> None:
    close = benchmark(contestant(FP32, 20.0, seed=1, spread=0.3), contestant(ONNX, 20.0, seed=2, spread=0.3))
    (line,) = said(results(close), "fastest")
    assert "No difference between them is shown" in line
    assert "and smat-" in line.split(".")[0]
    assert said(results(close), "not worth it") == []


def test_too_few_rounds_show_nothing() -> None:
    quick = benchmark(contestant(FP32, 20.0, rounds=3), contestant(INT8, 8.0, rounds=3))
    assert "No difference between them is shown" in said(results(quick), "fastest")[0]
    assert "Too few rounds" in said(results(quick), "undecided")[0]


def test_ratio_is_that_of_the_medians() -> None:
    found = faster(contestant(INT8, 8.0, seed=2), contestant(FP32, 20.0, seed=1))
    assert found is not None
    assert found.ratio == pytest.approx(20.3 / 8.3, rel=0.02)
    assert found.shown


def test_same_computation_on_a_slower_target_is_not_worth_it() -> None:
    (line,) = said(results(benchmark(contestant(FP32, 20.0, seed=1), contestant(ONNX, 24.0, seed=2))), "not worth it")
    assert line.startswith(f"not worth it: {ONNX}.")
    assert FP32 in line


def test_reference_is_never_judged() -> None:
    found = results(benchmark(contestant(FP32, 20.0, seed=1), contestant("smat-torch-fp32", 60.0, seed=2)))
    assert said(found, "not worth it") == []


def test_slower_than_pytorch_is_not_worth_it() -> None:
    slow = contestant(
        FP32,
        20.0,
        vs_pytorch=VersusPytorch(track=0.8),
        vs_pytorch_interval=PytorchInterval(track=(0.75, 0.85)),
    )
    assert "slower than PyTorch" in said(results(benchmark(slow)), "not worth it")[0]
    level = contestant(
        FP32, 20.0, vs_pytorch=VersusPytorch(track=0.99), vs_pytorch_interval=PytorchInterval(track=(0.9, 1.1))
    )
    assert said(results(benchmark(level)), "not worth it") == []


def test_lower_precision_that_is_not_faster_is_not_worth_it() -> None:
    found = results(benchmark(contestant(FP32, 20.0, seed=1), contestant(INT8, 21.0, seed=2, size=4.0)))
    (line,) = said(found, "not worth it")
    assert "it buys no speed here. Its files take 4.0 MiB against 10.0" in line


def test_faster_lower_precision_without_a_comparison_is_undecided_and_says_what_to_type() -> None:
    found = results(benchmark(contestant(FP32, 20.0, seed=1), contestant(INT8, 8.0, seed=2)))
    assert f"edgetrack compare {FP32} {INT8} --dataset" in said(found, "undecided")[0]


@pytest.mark.parametrize(
    ("ms", "delta", "kind"),
    [
        (8.0, difference(0.0, -0.003, 0.003, "equal"), "worth it"),
        (8.0, difference(0.02, 0.01, 0.03, "better"), "worth it"),
        (8.0, difference(0.01, -0.004, 0.03, "undecided"), "worth it"),
        (8.0, difference(-0.02, -0.03, -0.01, "worse"), "a trade"),
        (8.0, difference(-0.01, -0.03, 0.01, "undecided"), "undecided"),
        (20.0, difference(0.0, -0.003, 0.003, "equal"), "not worth it"),
        (25.0, difference(-0.02, -0.03, -0.01, "worse"), "not worth it"),
        (25.0, difference(0.02, 0.01, 0.03, "better"), "a trade"),
        (None, difference(0.0, -0.003, 0.003, "equal"), "undecided"),
        (None, difference(-0.02, -0.03, -0.01, "worse"), "undecided"),
        (8.0, None, "undecided"),
    ],
)
def test_verdict_weighs_speed_and_accuracy(ms, delta, kind: str) -> None:
    bench = None if ms is None else benchmark(contestant(FP32, 20.0, seed=1), contestant(INT8, ms, seed=2))
    found = results(bench, comparisons=[comparison(side(FP32, 0.72), side(INT8, 0.7), delta)])
    lines = [line for line in said(found, kind) if "in place of" in line]
    assert len(lines) == 1, findings(found)
    assert "diverge in 2 of 10 sequences" in lines[0]


def test_speed_of_other_weights_is_not_taken() -> None:
    bench = benchmark(contestant(FP32, 20.0, seed=1, weights="untrained"), contestant(INT8, 8.0, seed=2))
    delta = difference(0.0, -0.003, 0.003, "equal")
    found = results(bench, comparisons=[comparison(side(FP32, 0.72), side(INT8, 0.7), delta)])
    assert "not measured in one benchmark" in said(found, "undecided")[0]


def test_highest_ao_is_not_called_most_accurate_where_intervals_overlap() -> None:
    found = results(evals=[evaluated(FP32, 0.72, (0.6, 0.8)), evaluated(INT8, 0.70, (0.58, 0.79))])
    assert said(found, "most accurate") == []
    assert "edgetrack compare" in said(found, "highest AO")[0]
    apart = results(evals=[evaluated(FP32, 0.72, (0.70, 0.74)), evaluated(INT8, 0.60, (0.58, 0.62))])
    assert FP32 in said(apart, "most accurate")[0]


@pytest.mark.parametrize(("verdict", "shown"), [("worse", True), ("equal", False), ("undecided", False)])
def test_paired_runs_decide_which_is_most_accurate(verdict: str, shown: bool) -> None:
    delta = difference(-0.02, -0.03, -0.01, verdict)
    found = results(comparisons=[comparison(side(FP32, 0.72), side(INT8, 0.7), delta)])
    assert bool(said(found, "most accurate")) == shown
    assert bool(said(found, "highest AO")) != shown


def test_random_weights_are_never_judged_by_their_boxes() -> None:
    bench = benchmark(
        contestant(FP32, 20.0, seed=1, weights="untrained"), contestant(INT8, 8.0, seed=2, weights="untrained")
    )
    delta = difference(0.0, -0.003, 0.003, "equal")
    sides = (side(FP32, 0.01, weights="untrained"), side(INT8, 0.02, weights="untrained"))
    found = results(bench, comparisons=[comparison(*sides, delta)])
    assert not {"worth it", "most accurate", "highest AO"} & {one.kind for one in findings(found)}
    assert "not known yet" in said(found, "undecided")[0]


def test_few_sequences_are_mentioned() -> None:
    found = results(evals=[evaluated(FP32, 0.72, None, sequences=3), evaluated(INT8, 0.70, None, sequences=3)])
    assert "3 sequences are few" in said(found, "highest AO")[0]


def test_doubts_are_told() -> None:
    bench = benchmark(contestant(FP32, 20.0, weights="untrained"), complete=False)
    lines = "\n".join(said(results(bench, sensitivities=(Sourced("s.json", sensitivity()),)), "careful"))
    assert "boxes mean nothing" in lines
    assert "Interrupted: bench.json" in lines
    advice = said(results(bench, sensitivities=(Sourced("s.json", sensitivity()),)), "advice")
    assert "the hint bf16 is faster still" in advice[0]
