"""Words for what does not fit a type: the key, what it is, what is allowed, the nearest name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.benchmark.record import BenchRecord
from edgetrack.bundle import Manifest
from edgetrack.decoding import converted, decode_json
from edgetrack.devices.profiles import Host, Profile, parse_host
from edgetrack.devices.protocol import VerbJob
from edgetrack.errors import EdgetrackError, RecipeError, UsageError
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.exporting.recipe import Recipe, find_recipe, read_recipe
from edgetrack.gate.budget import Budget, read_budget
from edgetrack.quantization.accuracy_control import Sensitivity
from edgetrack.quantization.calibration import CalibrationSet
from edgetrack.report.model import read_file
from edgetrack.runtime.trackers.base import read_settings
from edgetrack.runtime.trackers.center import CenterSettings
from edgetrack.runtime.verify import LayerReport
from edgetrack.training.sources import ShardIndex
from tests.builders import scripted_manifest
from tests.report.conftest import benchmark, contestant, sensitivity

BUDGET: dict[str, Any] = {"schema": 1, "name": "a", "limits": {"track_p95_ms": 30.0}}
HOSTS = dict[str, Host]
RECIPE: dict[str, Any] = msgspec.to_builtins(find_recipe("smat"))
MANIFEST: dict[str, Any] = msgspec.to_builtins(scripted_manifest())
RECORD: dict[str, Any] = msgspec.to_builtins(benchmark(contestant("smat-onnx-fp32", 20.0)))


def words(plain: Any, kind: Any) -> str:
    with pytest.raises(UsageError) as caught:
        converted(plain, kind, UsageError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("plain", "kind", "said"),
    [
        (
            {**BUDGET, "limts": {}},
            Budget,
            "it has the unknown key 'limts' (did you mean 'limits'?); it may have: schema, name, note, measure, "
            "limits, regressions",
        ),
        ({**BUDGET, "limits": {"track_p95_ms": "x"}}, Budget, "limits.track_p95_ms is 'x'; expected a number"),
        ({**BUDGET, "limits": [1]}, Budget, "limits is a list of 1; expected a table"),
        ({**BUDGET, "measure": {"threads": 0}}, Budget, "measure.threads is 0; expected a whole number of at least 1"),
        (
            {**BUDGET, "measure": {"threads": True}},
            Budget,
            "measure.threads is true; expected a whole number or nothing",
        ),
        (
            {**BUDGET, "measure": {"thread": 1}},
            Budget,
            "measure has the unknown key 'thread' (did you mean 'threads'?); it may have: device, threads, source",
        ),
        (
            {**BUDGET, "name": "A B"},
            Budget,
            "name is 'A B'; expected at most 80 lower-case letters, digits, '.', '_' and '-'",
        ),
        ({**BUDGET, "schema": 2}, Budget, "schema is 2; expected one of: 1"),
        ({"schema": 1, "limits": {}}, Budget, "it lacks the key 'name'"),
        ({"schema": 1, "name": "a"}, Budget, "it has neither [limits] nor [regressions]"),
        (
            {"orin": {"hots": "x"}},
            HOSTS,
            "orin has the unknown key 'hots' (did you mean 'host'?); it may have: host, user, port, python, profile, "
            "key, known_hosts",
        ),
        ({"a": {"host": "x"}, "b": {"host": "x y"}}, HOSTS, "b.host is 'x y'; expected a host's name or address"),
        ({"a": {"host": "x", "port": 99999}}, HOSTS, "a.port is 99999; expected a whole number of at most 65535"),
        (
            {**RECIPE, "graphs": {"template": "ini"}},
            Recipe,
            "graphs.template is 'ini' (did you mean 'init'?); expected",
        ),
        ({**RECIPE, "stages": {"a": ["x:y", 3]}}, Recipe, "stages.a[1] is 3; expected text"),
        ({**RECIPE, "keep": {"int8": ["nek"]}}, Recipe, "which [stages] has not (did you mean 'neck'?)"),
        ({**MANIFEST, "traker": "x"}, Manifest, "it has the unknown key 'traker' (did you mean 'tracker'?)"),
        (
            {**MANIFEST, "graphs": [{**MANIFEST["graphs"][0], "flops": "1"}]},
            Manifest,
            "graphs[0].flops is '1'; expected a whole number",
        ),
        (
            {**RECORD, "results": [{**RECORD["results"][0], "fps": {"trak": 1.0}}]},
            BenchRecord,
            "results[0].fps",
        ),
        ({**RECORD, "results": 5}, BenchRecord, "results is 5; expected a list"),
        (
            {key.replace("dataset", "datset"): value for key, value in msgspec.to_builtins(sensitivity()).items()},
            Sensitivity,
            "it lacks the key 'dataset' (is it 'datset'?)",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(plain, kind, said) -> None:
    found = words(plain, kind)
    assert found.startswith(said) or said in found
    for raw in ("$", "Object", "`", "[...]"):
        assert raw not in found


KINDS = [
    Budget, Host, HOSTS, Profile, Recipe, Manifest, BenchRecord, CompareRecord, Sensitivity, CalibrationSet, ShardIndex,
    LayerReport, VerbJob,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: getattr(kind, "__name__", "dict"))
@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"", b'"\xff"', b"nul", b"[1, 2"])
def test_json_that_is_none_or_nested_without_end_is_one_line(kind, data) -> None:
    with pytest.raises(EdgetrackError) as caught:
        decode_json(data, kind, EdgetrackError)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text("ab.[]`$\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.[`$", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), st.sampled_from([(BUDGET, Budget), (RECIPE, Recipe), (MANIFEST, Manifest), (RECORD, BenchRecord)]))
def test_whatever_stands_in_a_place_there_are_words_for_it(data, case) -> None:
    whole, kind = case
    changed = msgspec.json.decode(msgspec.json.encode(whole))
    place = changed
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(PLAIN)
        break
    try:
        converted(changed, kind, UsageError)
    except UsageError as error:
        assert str(error)  # noqa: PT017 - some changes fit


def test_files_people_write_name_the_key_and_the_nearest(tmp_path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('schema = 1\nname = "a"\n[limits]\ntrack_p95 = 30\n')
    with pytest.raises(
        UsageError, match=r"unknown key 'track_p95' \(did you mean 'track_p95_ms'\?\); it may have: model"
    ):
        read_budget(path)
    path.write_text("schema = 1\nnme = 3\n")
    with pytest.raises(RecipeError, match=r"unknown key 'nme' \(did you mean 'name'\?\)"):
        read_recipe(path)
    with pytest.raises(UsageError, match=r"port is 'x'; expected a whole number"):
        parse_host("orin:x")
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode({**RECORD, "settings": {**RECORD["settings"], "threads": "two"}}))
    with pytest.raises(EdgetrackError, match=r"settings\.threads is 'two'; expected a whole number"):
        read_file(path)
    with pytest.raises(EdgetrackError, match=r"serch_size"):
        read_settings({"serch_size": 3}, CenterSettings)
