"""The whole check: what is measured, what is read, what is refused; the workers are simulated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgetrack.benchmark.run import Environment
from edgetrack.errors import BackendMissingError, UnknownNameError, UsageError, WorkerError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.gate.budget import Budget, GateConfig
from edgetrack.gate.check import check
from edgetrack.gate.environment import own_code
from edgetrack.gate.outputs import headline


def budget(limits=None, regressions=None):
    return Budget(schema=1, name="mine", limits=limits or {}, regressions=regressions or {})


P50 = {"track_p50_ratio": 1.05}


@pytest.fixture
def run(machine, simulated_start, source, steady):
    """run(budget, bundle, ...) checks on a simulated machine; `ratios` slow bundles down by label."""

    def go(asked, bundle, baseline=None, *, ratios=None, seed=0, start=None, **options):
        here = machine(seed, **steady)
        environment = Environment(clock=here, start=start or simulated_start(here, ratios))
        if ".json" not in str(bundle):
            options = {"threads": 1, "source": source, **options}
        given = GateConfig(budget=asked, bundle=str(bundle), baseline=baseline and str(baseline), **options)
        return check(given, environment)

    return go


def only(report):
    (finding,) = report.findings
    return finding


def test_a_slower_bundle_fails_and_a_like_one_passes(run, make_bundle):
    head, base = make_bundle("head"), make_bundle("base")
    slower = run(budget(regressions=P50), head, base, ratios={"head": 1.15})
    assert (slower.verdict, slower.exit_code, slower.design) == ("fail", 1, "paired")
    assert only(slower).low > 1.05
    assert only(slower).p_above < 0.02
    like = run(budget(regressions=P50), head, base)
    assert (like.verdict, like.exit_code) == ("pass", 0)
    assert like.seconds <= 60
    assert len(like.samples_ms.candidate.track) == len(like.samples_ms.baseline.track) == 2 * like.blocks


def test_limits_are_judged_by_bounds_and_skipped_ratios_are_no_pass_unless_asked(run, make_bundle):
    limits = {"track_p95_ms": 40.0, "model_p50_ms": 18.0, "load_ms": 800.0, "peak_rss_mb": 350.0, "size_mb": 1.0}
    bundle = make_bundle("a")
    forgotten = run(budget(limits, P50), bundle)
    assert (forgotten.verdict, forgotten.exit_code) == ("skipped", 1)
    assert headline(forgotten) == (
        "SKIPPED: a, budget mine; 1 rule of 6 not judged (track_p50_ratio); add --baseline, or --allow-skipped to pass "
        "without"
    )
    found = run(budget(limits, P50), bundle, allow_skipped=True)
    assert found.exit_code == 0
    said = {finding.rule: finding for finding in found.findings}
    assert list(said) == [*limits, *P50]
    assert {name: finding.verdict for name, finding in said.items()} == {
        **dict.fromkeys(limits, "pass"),
        "track_p50_ratio": "skipped",
    }
    assert said["track_p95_ms"].high <= 40
    assert len(found.candidate.load_ms) >= said["load_ms"].samples >= 9
    assert (found.verdict, found.design, found.baseline) == ("pass", "alone", None)


def test_a_budget_of_ratios_alone_wants_a_baseline_before_anything_is_measured(run, make_bundle):
    def start(label, threads):
        raise AssertionError("measured")

    with pytest.raises(UsageError, match=r"every rule of budget mine compares with a baseline.*add --baseline"):
        run(budget(regressions=P50), make_bundle("a"), start=start)


@pytest.mark.parametrize(
    "limit", [{"track_p95_ms": 15.0}, {"model_p50_ms": 12.0}, {"load_ms": 200.0}, {"size_mb": 1e-6}]
)
def test_every_limit_can_be_broken(run, make_bundle, limit):
    found = run(budget(limit), make_bundle("a"))
    assert (found.verdict, found.exit_code) == ("fail", 1)


def test_processes_are_compared_too(run, make_bundle):
    rules = {"load_ratio": 2.0, "peak_rss_ratio": 1.1, "size_ratio": 1.02}
    found = run(budget(regressions=rules), make_bundle("a"), make_bundle("b"))
    assert {finding.verdict for finding in found.findings} == {"pass"}
    assert found.exit_code == 0


def test_a_limit_just_where_the_figure_is_stays_open_and_says_what_would_decide(run, make_bundle):
    found = run(budget(regressions={"track_p50_ratio": 1.005}), make_bundle("a"), make_bundle("b"), max_time_s=40.0)
    assert found.verdict == "undecided"
    assert only(found).more_of in ("blocks", "pairs of processes")
    assert (only(found).more is None) == (only(found).more_s is None)
    for code in (0, 5):
        again = run(budget({"track_p95_ms": 25.0}), make_bundle(f"c{code}"), max_time_s=0.1, undecided_exit=code)
        assert (again.verdict, again.exit_code) == ("undecided", code)


def test_only_sizes_need_no_process(run, make_bundle):
    def start(label, threads):
        raise AssertionError("no process is needed")

    found = run(budget({"size_mb": 1e-6}), make_bundle("a"), start=start)
    assert (found.verdict, found.blocks) == ("fail", 0)


def test_an_undecided_rule_beside_a_skipped_one_is_no_pass_either(run, make_bundle):
    asked = budget({"track_p95_ms": 25.0}, P50)
    found = run(asked, make_bundle("a"), max_time_s=0.1, undecided_exit=0)
    assert (found.verdict, found.exit_code) == ("skipped", 1)
    found = run(asked, make_bundle("b"), max_time_s=0.1, undecided_exit=0, allow_skipped=True)
    assert (found.verdict, found.exit_code) == ("undecided", 0)


def test_the_time_limit_counts_what_comes_before_the_first_block(run, make_bundle, machine, simulated_start, source):
    """A machine whose frames and records take 30 s to prepare: 60 s are left of 90."""
    here = machine(0)
    environment = Environment(clock=here, start=simulated_start(here), look=_slowly(here, 30.0))
    given = GateConfig(
        budget=budget(regressions={"track_p50_ratio": 1.003}),
        bundle=str(make_bundle("a")),
        baseline=str(make_bundle("b")),
        threads=1,
        source=source,
        max_time_s=90.0,
    )
    found = check(given, environment)
    assert found.verdict == "undecided"
    assert 50 < found.seconds <= 60 + found.seconds / found.blocks
    assert here.now <= 90 + found.seconds / found.blocks


def _slowly(here, seconds):
    def look():
        here.now += seconds
        return Environment().look()

    return look


def test_a_process_that_dies_is_an_error_and_no_verdict(run, make_bundle):
    def start(label, threads):
        raise WorkerError("killed by SIGKILL")

    with pytest.raises(WorkerError, match="SIGKILL"):
        run(budget(regressions=P50), make_bundle("a"), make_bundle("b"), start=start)


def test_two_records_of_one_machine_are_compared(run, make_bundle, bench):
    a = make_bundle("a")
    before = bench(a, name="before.json")
    after, slower = bench(a, name="after.json", seed=1), bench(a, name="slower.json", seed=2, ratios={"a": 1.2})
    like = run(budget({"track_p95_ms": 60.0}, {**P50, "size_ratio": 1.0}), after, before)
    assert {finding.rule: finding.verdict for finding in like.findings} == {
        "track_p95_ms": "pass",
        "track_p50_ratio": "pass",
        "size_ratio": "pass",
    }
    assert like.design == "recorded"
    assert any("different times" in note for note in like.notes)
    assert run(budget(regressions=P50), slower, before).verdict == "fail"


def test_unlike_records_are_refused_with_a_list_unless_forced(run, make_bundle, bench):
    a = make_bundle("a")
    before, after = bench(a, name="before.json"), bench(a, name="after.json", threads=2)
    changed = json.loads(after.read_text())
    changed["machine"]["cpu_model"] = "another processor"
    changed["results"][0]["versions"]["fake"] = "2"
    changed["results"][0]["samples_ms"]["camera"] = []
    after.write_text(json.dumps(changed))
    with pytest.raises(UsageError) as refused:
        run(budget(regressions=P50), after, before)
    for name in ("threads: 1 against 2", "machine: cpu_model", "version: fake: 1 against 2", "speeds: ", "--force"):
        assert name in str(refused.value)
    forced = run(budget(regressions=P50), after, before, force=True)
    assert len(forced.differences) == 4


def test_a_bundle_is_measured_under_the_conditions_of_its_baseline_record(run, make_bundle, bench):
    a = make_bundle("a")
    before = bench(a)
    found = run(budget(regressions=P50), a, before, threads=None, source=None, seed=3)
    assert (found.verdict, found.design, found.threads) == ("pass", "recorded", 1)
    assert found.baseline.recorded
    with pytest.raises(UsageError, match="threads: 1 against 2"):
        run(budget(regressions=P50), a, before, threads=2, source=None)


def test_a_record_of_several_needs_a_name(run, make_bundle, bench):
    record = bench(make_bundle("a"), make_bundle("b"), ratios={"b": 2.0})
    assert run(budget({"track_p50_ms": 30.0}), f"{record}:a").verdict == "pass"
    assert run(budget({"track_p50_ms": 30.0}), f"{record}:b").verdict == "fail"
    assert run(budget(regressions=P50), f"{record}:b", f"{record}:a").verdict == "fail"
    with pytest.raises(UnknownNameError, match="holds a, b; give one of them as"):
        run(budget({"track_p50_ms": 30.0}), record)


@pytest.mark.parametrize("damage", ["[]", "{}", "not JSON", None])
def test_what_is_no_record_is_an_error(run, tmp_path, damage):
    file = tmp_path / "bad.json"
    if damage is not None:
        file.write_text(damage)
    with pytest.raises(Exception, match=r"bad\.json"):
        run(budget({"track_p50_ms": 30.0}), file)


def test_a_record_with_useless_samples_is_refused(run, make_bundle, bench):
    record = bench(make_bundle("a"))
    changed = json.loads(record.read_text())
    changed["results"][0]["samples_ms"]["track"][0][0] = -1.0
    record.write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="record it again"):
        run(budget({"track_p50_ms": 30.0}), record)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_time_s": 0.0}, "--max-time"),
        ({"max_time_s": float("nan")}, "--max-time"),
        ({"timeout_s": -1.0}, "--timeout"),
        ({"threads": 0}, "--threads"),
        ({"undecided_exit": 2}, "--undecided-exit"),
        ({"undecided_exit": 256}, "--undecided-exit"),
        ({"baseline_python": Path("python")}, "add --baseline"),
    ],
)
def test_options_that_cannot_be_followed(run, make_bundle, options, said):
    with pytest.raises(UsageError, match=said):
        run(budget(regressions=P50), make_bundle("a"), **options)


def test_delta_ao_wants_two_bundles_and_a_data_set(run, make_bundle, bench):
    ao = budget({"delta_ao_points": -0.5})
    a, b = make_bundle("a"), make_bundle("b")
    scenes = open_dataset("synthetic:drift", None)
    for baseline, dataset in ((b, None), (None, scenes), (bench(a), scenes)):
        with pytest.raises(UsageError, match="--baseline BUNDLE --dataset DATASET"):
            run(ao, a, baseline, dataset=dataset)
    with pytest.raises(UsageError, match="leave --dataset out"):
        run(budget(regressions=P50), a, b, dataset=scenes)


def test_a_record_against_a_bundle_is_the_wrong_way_round(run, make_bundle, bench):
    a = make_bundle("a")
    with pytest.raises(UsageError, match="give the bundle first"):
        run(budget(regressions=P50), bench(a), a)
    with pytest.raises(UsageError, match="a record is not run"):
        run(budget(regressions=P50), a, bench(a), baseline_python=Path(sys.executable))
    with pytest.raises(UsageError, match="--threads is for what is measured"):
        run(budget({"track_p50_ms": 30.0}), bench(a), threads=1)


def test_without_scipy_it_says_what_to_install(run, make_bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match=r"edgetrack\[check\]"):
        run(budget({"size_mb": 1.0}), make_bundle("a"))


def test_same_bundles_of_the_same_code_are_pointed_out(run, make_bundle):
    a = make_bundle("a")
    found = run(budget(regressions={"size_ratio": 1.0}), a, a)
    assert any("the same bundle" in note for note in found.notes)
    assert found.baseline.code == found.candidate.code == own_code()
