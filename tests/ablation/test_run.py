"""Ablations: what is asked for, what is made of it, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from edgetrack.ablation import run
from edgetrack.ablation.run import BENCH, MARKDOWN, RECORD, AblationRequest, ablate, configurations
from edgetrack.ablation.table import AblationRecord, ablation_table
from edgetrack.benchmark.config import BenchConfig
from edgetrack.errors import UnknownNameError, UsageError, WeightsMismatchError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import make_network


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("edgetrack.exporting.pipeline.usable_cores", lambda: 1)
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))


@pytest.fixture
def ask(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., AblationRequest]:
    """A request about the tiny DASTM: accuracy on four frames of a scene, no speed."""

    def make(*over: str, **changes: object) -> AblationRequest:
        request = AblationRequest(
            str(tiny_recipe("dastm")),
            over,
            tmp_path / "out",
            open_dataset("synthetic:drift"),
            "onnx",
            frames=4,
            bench=None,
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    return make


def test_every_combination_is_a_configuration() -> None:
    recipe = find_recipe("dastm")
    assert configurations(recipe, ["gate=none, se", "memory=exact,bounded:4"]) == [
        ("gate=none", "memory=exact"),
        ("gate=none", "memory=bounded:4"),
        ("gate=se", "memory=exact"),
        ("gate=se", "memory=bounded:4"),
    ]
    every = [settings for (settings,) in configurations(recipe, ["gate"])]
    assert every == [f"gate={value}" for value in recipe.choices["gate"]]


def test_one_by_one_a_single_key_is_changed() -> None:
    recipe = find_recipe("dastm")
    assert configurations(recipe, ["gate=soft,se,ca", "temperature=0.5,1"], one_by_one=True) == [
        (),
        ("gate=se",),
        ("gate=ca",),
        ("temperature=0.5",),
    ]
    colder, _ = recipe.overridden(["temperature=0.5"])
    assert configurations(colder, ["temperature=0.5,1.0"], one_by_one=True) == [(), ("temperature=1.0",)]


@pytest.mark.parametrize(
    ("over", "error", "words"),
    [
        ([], UsageError, "nothing to compare"),
        (["memory"], UsageError, "--over memory names no values"),
        (["gate=none", "gate=se"], UsageError, "names gate twice"),
        (["gat"], UnknownNameError, "did you mean 'gate'"),
        (["gate=sse"], UnknownNameError, "gate 'sse' is not known .did you mean 'se'"),
        (["temperature=1,hot"], UsageError, "--set temperature=hot: expected a number"),
        (["temperature=" + ",".join(map(str, range(65)))], UsageError, "65 configurations; at most 64"),
    ],
)
def test_what_cannot_be_compared_is_refused(over: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        configurations(find_recipe("dastm"), over)


def test_neither_accuracy_nor_speed_is_no_ablation(ask: Callable[..., AblationRequest]) -> None:
    with pytest.raises(UsageError, match="neither accuracy nor speed"):
        ask("gate=none", dataset=None)


def test_a_row_for_each_configuration_and_a_second_call_makes_nothing_anew(
    ask: Callable[..., AblationRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request, told = ask("gate=soft,select"), []
    record = ablate(request, notify=told.append)
    soft, select = record.rows
    assert (soft.published, select.published, told) == (True, False, [])
    assert [row.bundle for row in record.rows] == ["dastm-onnx-fp32", "dastm-gate-select-onnx-fp32"]
    assert all(row.ao is not None and row.weights == "untrained" and not row.problem for row in record.rows)
    assert msgspec.json.decode((request.output / RECORD).read_bytes(), type=AblationRecord) == record
    assert "gate=soft (published)" in (request.output / MARKDOWN).read_text()

    monkeypatch.setattr(run, "export_bundle", None)
    assert ablate(request, notify=told.append) == record
    assert len(told) == 2
    assert "is there already and is kept" in told[0]


def test_the_tracker_itself_runs_at_each_temperature(ask: Callable[..., AblationRequest]) -> None:
    """What the softmax alone would give at another temperature is what the gate gives of the first frame's map."""
    record = ablate(ask("temperature=0.5,1.0,2.0", frames=2))
    cold, own, hot = (row.diagnostics["gate"] for row in record.rows if row.diagnostics)
    assert cold.entropy < own.entropy < hot.entropy <= 1
    found = {at.factor: at for at in own.temperatures}
    for factor, other in ((0.5, cold), (2.0, hot)):
        # Untrained, the box of the second frame is the same at each: so is what the gate sees.
        assert other.mean == pytest.approx(found[factor].mean, abs=0.02)
    table = ablation_table(record)
    titles = [column.title for column in table.columns]
    assert titles[titles.index("AUC") + 1 :][:6] == [
        "memory cosine",
        "gate se",
        "gate ca",
        "gate cbam",
        "gate identity",
        "entropy",
    ]
    assert [line[titles.index("entropy")] for line in table.cells()] == [
        f"{one.entropy:.2f}" for one in (cold, own, hot)
    ]


def test_a_bundle_that_is_not_what_is_asked_for_is_made_again(ask: Callable[..., AblationRequest]) -> None:
    request, told = ask("gate=none"), []
    ablate(request, notify=told.append)
    (manifest,) = request.output.glob("bundles/*/manifest.json")
    stated = json.loads(manifest.read_text())
    stated["tools"]["edgetrack"] = "0.0.0"
    manifest.write_text(json.dumps(stated))
    assert ablate(request, notify=told.append).ok
    assert told == []


def test_weights_that_do_not_fit_a_configuration_leave_it_untrained(
    ask: Callable[..., AblationRequest], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = find_recipe(str(tiny_recipe("dastm")))
    network = make_network("dastm", recipe.configuration)
    fill(network, recipe, "untrained")
    weights = tmp_path / "trained.pth"
    torch.save(network.state_dict(), weights)

    shared, other = ablate(ask("dim=32,48", weights=str(weights))).rows
    assert (shared.weights, shared.note) == ("custom", "")
    assert other.weights == "untrained"
    assert "trained.pth" in other.note
    notes = ablation_table(
        AblationRecord(
            tracker="dastm", target="onnx", precision="fp32", dataset=None, limit=None, threads=None, rows=[other]
        )
    ).notes
    assert any(note.startswith("dim=48: untrained, since ") for note in notes)


def test_weights_of_another_network_are_an_error(
    ask: Callable[..., AblationRequest], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    torch.save({"another.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsMismatchError):
        ablate(ask("gate=none,se", weights=str(tmp_path / "other.pth")))


@pytest.mark.full
def test_speed_is_of_one_run_and_compared_with_the_published_row(ask: Callable[..., AblationRequest]) -> None:
    bench = BenchConfig(threads=1, warmup_s=0, duration_s=0.1, iterations=4, rounds=2)
    request, told = ask("gate=soft,none", dataset=None, bench=bench), []
    record = ablate(request, notify=told.append)
    published, none = record.rows
    assert published.versus is None
    assert none.versus is not None
    assert none.versus > 0
    for row in record.rows:
        assert row.rounds_ms is not None
        assert row.track_ms is not None
        assert row.rounds_ms[0] <= row.track_ms <= row.rounds_ms[1]
        assert row.peak_mib is not None
        assert row.peak_mib > 0
    before = (request.output / BENCH).read_bytes()
    assert ablate(request, notify=told.append) == record
    assert (request.output / BENCH).read_bytes() == before
    longer = replace(request, bench=msgspec.structs.replace(bench, iterations=6))
    ablate(longer)
    assert (after := (request.output / BENCH).read_bytes()) != before
    ablate(replace(longer, source="synthetic:scale"))
    assert (request.output / BENCH).read_bytes() != after
