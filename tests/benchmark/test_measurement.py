from __future__ import annotations

import pytest

from edgetrack.benchmark.measurement import failures, results
from edgetrack.errors import WorkerError
from tests.benchmark.conftest import MACHINE, roofline, samples


def by_label(*measurements):
    return {result.label: result for result in results(measurements, MACHINE)}


def codes(result):
    return [warning.code for warning in result.warnings]


def test_the_three_speeds_are_not_mixed(entry):
    result = by_label(entry("ours", 9.0))["ours"]
    assert result.latency_ms.model.p50 == 9.0
    assert result.latency_ms.track.p50 == 10.0
    assert result.latency_ms.camera.p50 == 13.0
    assert (result.fps.model, result.fps.track, result.fps.camera) == pytest.approx((1000 / 9, 100, 1000 / 13))
    waterfall = result.waterfall_ms
    assert (waterfall.crop, waterfall.graphs, waterfall.decode, waterfall.outside) == (0.25, 9.0, 0.75, 1.0)
    assert waterfall.read == 3.0


def test_every_sample_is_kept_by_round(entry):
    samples = by_label(entry("ours", 9.0, rounds=3, count=7))["ours"].samples_ms
    for rounds in (samples.model, samples.track, samples.camera, samples.crop, samples.decode, samples.read):
        assert [len(one) for one in rounds] == [7, 7, 7]


def test_against_pytorch(entry):
    found = by_label(entry("ours", 9.0), entry("torch", 19.0))
    ours, torch = found["ours"], found["torch"]
    assert ours.vs_pytorch.model == pytest.approx(19 / 9)
    assert ours.vs_pytorch.track == pytest.approx(2.0)
    assert ours.vs_pytorch.peak_rss == pytest.approx(9 / 19)
    assert ours.vs_pytorch_interval.track == pytest.approx((2.0, 2.0))
    assert torch.vs_pytorch.track is None
    assert "no-reference" not in codes(ours) + codes(torch)


def test_below_six_rounds_there_is_a_ratio_without_an_interval(entry):
    ours = by_label(entry("ours", 9.0, rounds=5), entry("torch", 19.0, rounds=5))["ours"]
    assert ours.vs_pytorch.track == pytest.approx(2.0)
    assert ours.vs_pytorch_interval.track is None


def test_a_round_that_one_of_both_lacks_does_not_count(entry):
    ours = by_label(entry("ours", 9.0, rounds=3), entry("torch", 19.0, rounds=2))["ours"]
    assert ours.vs_pytorch.track == pytest.approx(2.0)


def test_a_reference_that_failed_leaves_nulls_and_a_warning(entry):
    torch = entry("torch", 19.0)
    torch.failure = WorkerError("gone")
    found = by_label(entry("ours", 9.0), torch)
    assert list(found) == ["ours"]
    assert found["ours"].vs_pytorch.track is None
    assert "no-reference" in codes(found["ours"])


def test_a_stage_too_short_for_the_clock_has_no_ratio(entry):
    ours = by_label(entry("ours", 0.0), entry("torch", 19.0))["ours"]
    assert ours.fps.model is None
    assert ours.vs_pytorch.model is None
    assert ours.vs_pytorch.track == pytest.approx(20.0)


def test_against_the_paper(entry):
    paper = by_label(entry("ours", 9.0))["ours"].vs_paper
    assert (paper.fps, paper.cpu, paper.source) == (37.0, "a processor", "a paper")
    assert paper.ratio == pytest.approx(100 / 37)


def test_against_the_roofline(entry):
    found = by_label(entry("ours", 9.0, flops=4_500_000_000), roofline(1000.0))["ours"].roofline
    assert found.limit_ms == pytest.approx(4.5)
    assert found.model == pytest.approx(2.0)
    assert (found.gflops, found.engine, found.precision) == (1000.0, "numpy", "fp32")


@pytest.mark.parametrize(
    ("flops", "other", "detail"),
    [(0, roofline(1000.0), "operations"), (10, roofline(None, "too old"), "too old"), (10, None, "not measured")],
)
def test_without_a_roofline_there_is_a_warning(entry, flops, other, detail):
    result = by_label(entry("ours", 9.0, flops=flops), *([other] if other else []))["ours"]
    assert result.roofline.model is None
    assert detail in next(c.detail for c in result.warnings if c.code == "no-roofline")


def test_processor_time_over_wall_time(entry):
    assert by_label(entry("ours", 9.0))["ours"].cores_busy == pytest.approx(1.5)


def test_before_the_first_camera_round_the_camera_is_null(entry):
    result = by_label(entry("ours", 9.0, camera=False))["ours"]
    assert result.latency_ms.camera is None
    assert result.fps.camera is None
    assert result.waterfall_ms.read is None


def test_few_samples_leave_percentiles_out_and_say_so(entry):
    result = by_label(entry("ours", 9.0, rounds=1, count=12))["ours"]
    assert result.latency_ms.track.p90 == 10.0
    assert result.latency_ms.track.p99 is None
    assert "few-samples" in codes(result)
    assert "few-samples" not in codes(by_label(entry("more", 9.0))["more"])


def test_a_noisy_candidate_and_one_that_is_never_idle(entry):
    noisy = entry("noisy", 9.0)
    noisy.rounds["track"] = [samples("track", [9.0, 19.0] * 50)]
    noisy.never_idle = True
    assert {"noisy", "never-rested"} <= set(codes(by_label(noisy)["noisy"]))


def test_failures_name_who_what_and_how_far(entry):
    failed = entry("ours", 9.0)
    failed.failure, failed.rounds_done = WorkerError("killed"), 2
    (failure,) = failures([failed, entry("torch", 9.0)])
    assert (failure.candidate, failure.error, failure.message, failure.rounds_done) == (
        "ours",
        "WorkerError",
        "killed",
        2,
    )
