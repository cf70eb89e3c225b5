from __future__ import annotations

from dataclasses import replace

import pytest

from edgetrack import capabilities
from edgetrack.benchmark.candidates import (
    FAST_HINT,
    add_references,
    choose,
    on_device,
    opened,
    require_gpu,
    with_fast_reference,
)
from edgetrack.bundle import open_bundle, pack
from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.capabilities import find_target, reference_target
from edgetrack.errors import BackendMissingError, BundleError, DeviceUnavailableError, ParityError, UsageError
from tests.system.conftest import ScriptedNvml, absent, watching

OURS = WeightsInfo(origin="official", sha256="a" * 64)
OTHERS = WeightsInfo(origin="official", sha256="b" * 64)
TARGET = replace(find_target("fake"), name="onnx", packages=())


def never(*args):
    raise AssertionError(args)


@pytest.fixture
def hinted(monkeypatch):
    """The fake target takes the hint bf16."""
    fake = capabilities.find_target("fake")
    able = type(fake)(**{**{f: getattr(fake, f) for f in fake.__dataclass_fields__}, "hints": ("bf16",)})
    others = tuple(target for target in capabilities.TARGETS if target is not fake)
    monkeypatch.setattr(capabilities, "TARGETS", (*others, able))


@pytest.fixture
def pick(tmp_path):
    def run(*given, hint=None, export=never, best=never):
        told = []
        chosen = choose(given, hint, export=export, best_target=best, notify=told.append, folder=tmp_path / "out")
        return chosen, told

    return run


PLACES = {"onnx": "cpu", "fake": "cuda:0"}


@pytest.fixture
def on(tmp_path):
    """on(*given, ...) picks for a device with `PLACES`."""

    def run(*given, export=never, best=never, places=PLACES):
        told = []
        how = {"export": export, "best_target": best, "notify": told.append, "folder": tmp_path / "out"}
        return choose(given, None, places=places, profile="a-jetson", **how), told

    return run


def test_each_candidate_sits_where_the_device_runs_its_target(on, make_bundle):
    chosen, _ = on(str(make_bundle("a")), str(make_bundle("b", target="onnx")))
    assert [(c.label, c.device) for c in chosen] == [("a", "cuda:0"), ("b", "cpu")]
    with pytest.raises(UsageError, match="c is for torch, and the device a-jetson runs fake, onnx"):
        on(str(make_bundle("c", target="torch")))


def test_a_bundle_on_two_devices_is_two_candidates(on, make_bundle):
    bundle = make_bundle("a")
    chosen, _ = on(f"{bundle}@cpu", str(bundle))
    assert [(c.label, c.device) for c in chosen] == [("a@cpu", "cpu"), ("a@cuda:0", "cuda:0")]
    with pytest.raises(UsageError, match="given twice"):
        on(f"{bundle}@cuda:0", str(bundle))


def test_without_bundles_those_at_hand_that_the_device_runs(on, make_bundle, tmp_path):
    make_bundle("a", folder=tmp_path / "out")
    make_bundle("b", folder=tmp_path / "out", target="torch")
    chosen, told = on()
    assert [c.label for c in chosen] == ["a"]
    assert told == ["left out: b is for torch, and the device a-jetson runs fake, onnx; export it with --target onnx"]


def test_without_any_bundle_the_default_tracker_is_exported_for_the_device_and_that_is_said(on, make_bundle):
    made = make_bundle("made", target="onnx")
    chosen, told = on(export=lambda *asked: made, best=lambda: TARGET)
    assert [(c.label, c.device) for c in chosen] == [("made", "cpu")]
    assert told == [told[0]]
    assert told[0].endswith("exporting the default tracker to onnx first")


def test_bundles_are_taken_as_given(pick, make_bundle):
    a, b = make_bundle("a"), make_bundle("b")
    chosen, told = pick(str(b), str(a))
    assert [c.label for c in chosen] == ["b", "a"]
    assert [c.path for c in chosen] == [b, a]
    assert not told
    graphs = [path.stat().st_size for path in (b / "template.json", b / "step.json")]
    assert chosen[0].size_mb == pytest.approx(sum(graphs) / 2**20)


def test_a_zip_is_a_bundle_too(pick, make_bundle, tmp_path):
    with open_bundle(make_bundle("a")) as bundle:
        pack(bundle, tmp_path / "a.zip")
    (chosen,), _ = pick(str(tmp_path / "a.zip"))
    assert chosen.path == tmp_path / "a.zip"


def test_a_hint_behind_the_bundle(pick, make_bundle, hinted):
    path = make_bundle("a")
    chosen, _ = pick(str(path), f"{path}@bf16")
    assert [(c.label, c.hint, c.arithmetic) for c in chosen] == [("a", None, "fp32"), ("a@bf16", "bf16", "bf16")]


def test_an_at_sign_may_be_part_of_the_path(pick, make_bundle, tmp_path):
    path = make_bundle("a", folder=tmp_path / "user@bf16").rename(tmp_path / "a@b")
    (chosen,), _ = pick(str(path))
    assert chosen.hint is None


def test_a_hint_that_the_target_does_not_take(pick, make_bundle):
    with pytest.raises(UsageError, match="precision hint 'bf16' is not known; there is none"):
        pick(f"{make_bundle('a')}@bf16")
    with pytest.raises(UsageError, match="none of the bundles takes"):
        pick(str(make_bundle("b")), hint="bf16")


def test_a_hint_for_all_is_put_on_those_that_take_it(pick, make_bundle, hinted):
    chosen, told = pick(str(make_bundle("a")), str(make_bundle("b", target="onnx")), hint="bf16")
    assert [c.label for c in chosen] == ["a@bf16", "b"]
    assert len(told) == 1
    assert "as exported" in told[0]


def test_the_same_bundle_twice(pick, make_bundle):
    path = str(make_bundle("a"))
    with pytest.raises(UsageError, match="a is given twice"):
        pick(path, path)


def test_bundles_of_one_name_are_told_apart_by_their_places(pick, make_bundle, tmp_path):
    first, second = (make_bundle("a", folder=tmp_path / place) for place in ("x", "y"))
    renamed = second.rename(second.with_name("b"))
    chosen, _ = pick(str(first), f"{make_bundle('other')}", str(renamed))
    assert [c.label for c in chosen] == ["a", "other", "b"]
    again = make_bundle("a", folder=tmp_path / "y")
    chosen, _ = pick(str(first), str(again))
    assert [c.label for c in chosen] == ["x/a", "y/a"]
    with pytest.raises(UsageError, match="x/a is given twice"):
        pick(str(first), str(again), str(first))


def test_without_a_bundle_those_at_hand_are_taken_and_broken_ones_named(pick, make_bundle, tmp_path):
    make_bundle("a", folder=tmp_path / "out")
    (make_bundle("b", folder=tmp_path / "out") / "step.json").unlink()
    chosen, told = pick()
    assert [c.label for c in chosen] == ["a"]
    assert "step.json" in told[0]


def test_without_any_bundle_one_is_made_and_it_is_said(pick, make_bundle):
    made = make_bundle("a")
    asked = []

    def export(*order):
        asked.append(order)
        return made

    chosen, told = pick(export=export, best=lambda: capabilities.find_target("onnx"))
    assert asked == [(None, "onnx", None, None, ())]
    assert "onnx" in told[0]
    assert [c.path for c in chosen] == [made]


def test_untrained_weights_are_warned_of(pick, make_bundle):
    trained = WeightsInfo(origin="trained-here", sha256="0" * 64)
    chosen, _ = pick(str(make_bundle("a")), str(make_bundle("b", weights=trained)))
    assert [[c.code for c in one.warnings] for one in chosen] == [["untrained-weights"], []]


def test_what_is_no_bundle(pick, tmp_path):
    with pytest.raises(UsageError):
        pick(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError):
        pick(str(tmp_path / "empty"))


@pytest.fixture
def refer(tmp_path):
    """refer(bundle paths...) adds references, for which the target onnx stands."""

    def run(*paths, given=None, export=never, target=TARGET):
        told = []
        found = add_references(
            [opened(path) for path in paths],
            target,
            given=given,
            export=export,
            scratch=tmp_path / "workshop",
            notify=told.append,
            folder=tmp_path / "out",
        )
        return {c.label: (c.reference, [warning.code for warning in c.warnings]) for c in found}

    return run


def test_a_candidate_is_the_reference_of_the_others_and_of_itself(refer, make_bundle):
    ours, torch = make_bundle("ours", weights=OURS), make_bundle("torch", target="onnx", weights=OURS)
    assert refer(ours, torch) == {"ours": ("torch", []), "torch": ("torch", [])}


def test_the_same_weights_come_before_nearness(refer, make_bundle, tmp_path):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OTHERS)
    make_bundle("far", folder=tmp_path / "out", target="onnx", weights=OURS)
    assert refer(ours) == {"ours": ("far", []), "far": ("far", [])}


def test_one_beside_the_bundle_with_other_weights_comes_with_a_warning(refer, make_bundle):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OTHERS)
    assert refer(ours) == {"ours": ("near", ["reference-weights-differ"]), "near": ("near", [])}


def test_a_reference_of_another_tracker_is_none(refer, make_bundle):
    make_bundle("near", target="onnx", tracker="other", weights=OURS)
    (label,) = (
        label
        for label in refer(make_bundle("ours", weights=OURS), export=lambda *order: make_bundle("made", target="onnx"))
        if label != "ours"
    )
    assert label == "made"


def test_a_reference_with_other_overrides_is_none(refer, make_bundle):
    make_bundle("near", target="onnx", weights=OURS)
    hard = make_bundle("ours", weights=OURS, overrides={"gate": "hard"})
    asked = []

    def export(*order):
        asked.append(order)
        return make_bundle("made", target="onnx", weights=OURS, overrides={"gate": "hard"})

    assert refer(hard, export=export)["ours"] == ("made", [])
    assert [order[4] for order in asked] == [("gate=hard",)]


def test_one_is_exported_once_for_all_bundles_of_a_tracker(refer, make_bundle, tmp_path):
    asked = []

    def export(*order):
        asked.append(order)
        return make_bundle("made", folder=tmp_path / "workshop", target="onnx")

    found = refer(make_bundle("a", weights=OURS), make_bundle("b"), export=export)
    assert asked == [("smat", "onnx", tmp_path / "workshop" / "smat-onnx-fp32", None, ())]
    assert found == {
        "a": ("made", ["reference-weights-differ"]),
        "b": ("made", []),
        "made": ("made", ["untrained-weights"]),
    }


def test_untrained_bundles_are_compared_with_untrained_ones(refer, make_bundle, tmp_path):
    asked = []

    def export(*order):
        asked.append(order[3])
        return make_bundle("made", folder=tmp_path / "workshop", target="onnx")

    refer(make_bundle("a"), export=export)
    assert asked == ["untrained"]


def test_without_the_package_there_is_a_warning_and_no_reference(refer, make_bundle):
    missing = replace(TARGET, packages=("no_such_package",))
    assert refer(make_bundle("a"), target=missing) == {"a": (None, ["no-reference"])}


def test_an_export_that_fails_is_a_warning(refer, make_bundle):
    def export(*order):
        raise ParityError("not equal")

    assert refer(make_bundle("a"), export=export) == {"a": (None, ["no-reference"])}


def test_the_given_reference_is_taken(refer, make_bundle, tmp_path):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OURS)
    chosen = make_bundle("chosen", folder=tmp_path / "elsewhere", target="onnx", weights=OTHERS)
    found = refer(ours, given=str(chosen))
    assert found == {"ours": ("chosen", ["reference-weights-differ"]), "chosen": ("chosen", [])}


def test_a_given_reference_that_is_none(refer, make_bundle, tmp_path):
    ours = make_bundle("ours")
    with pytest.raises(UsageError, match="expected one for 'onnx'"):
        refer(ours, given=str(ours))
    other = make_bundle("other", target="onnx", tracker="other")
    with pytest.raises(UsageError, match="measured are smat"):
        refer(ours, given=str(other))


def test_a_machine_without_a_driver_is_refused_before_anything_is_done():
    with pytest.raises(DeviceUnavailableError, match=r"'cuda:0': no NVIDIA driver.*Driver Not Loaded") as caught:
        require_gpu("cuda:0", False, absent)
    assert caught.value.exit_code == 4
    require_gpu("cuda:0", False, watching(ScriptedNvml()))


@pytest.mark.parametrize(
    ("nvml", "codes"),
    [
        (ScriptedNvml(), []),
        (ScriptedNvml(silent=("nvmlDeviceGetMemoryInfo",)), ["no-gpu-memory"]),
        (ScriptedNvml(silent=("nvmlDeviceGetMemoryInfo",), others=(100,)), ["gpu-shared"]),
        (ScriptedNvml(others=(500, 20)), ["gpu-shared"]),
        (ScriptedNvml(load=60), ["gpu-shared"]),
        (None, ["no-gpu-memory"]),
    ],
)
def test_who_else_is_on_the_gpu_is_warned_of(make_bundle, nvml, codes):
    ours = replace(opened(make_bundle("ours")), device="cuda:0")
    beside = replace(ours, alias="beside", device="cpu")
    watch = absent if nvml is None else watching(nvml)
    found, other = on_device([ours, beside], None, watch)
    assert [warning.code for warning in found.warnings] == codes
    assert other == beside
    assert on_device([beside], None, absent) == [beside]
    if nvml is not None and len(nvml.others) == 2:
        assert "2 other processes, 520 MiB in use" in found.warnings[0].detail


def test_the_fast_reference_stands_beside_the_eager_one(make_bundle):
    target = replace(reference_target(), name="onnx")
    ours, eager = opened(make_bundle("ours")), opened(make_bundle("eager", target="onnx"))
    candidates = [replace(one, reference="eager", device="cuda:0") for one in (ours, eager)]
    on_cpu = [replace(one, device="cpu") for one in candidates]
    assert with_fast_reference(on_cpu, target) == on_cpu
    found = with_fast_reference(candidates, target)
    assert [c.label for c in found] == ["ours", "eager", f"eager@{FAST_HINT}"]
    assert found[-1].reference == "eager"
    assert with_fast_reference(found, target) == found
    assert FAST_HINT in reference_target().hints


def test_bundles_at_hand_that_do_not_run_there_are_left_out(make_bundle, tmp_path):
    make_bundle("processor", folder=tmp_path / "out", target="openvino")
    make_bundle("card", folder=tmp_path / "out", target="tensorrt")
    told = []
    for device, label in (("cuda:0", "card"), ("cpu", "processor")):
        found = choose((), None, export=None, best_target=None, notify=told.append, folder=tmp_path / "out",
                       device=device)  # fmt: skip
        assert [c.label for c in found] == [label]
    assert told == ["left out: processor does not run on cuda:0", "left out: card does not run on cpu"]


@pytest.mark.parametrize("here", [True, False])
def test_bundles_at_hand_whose_package_lacks_the_device_are_left_out_where_the_device_is_this_machine(
    make_bundle, tmp_path, monkeypatch, here
):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    make_bundle("processor", folder=tmp_path / "out", target="onnx")
    make_bundle("card", folder=tmp_path / "out", target="tensorrt")
    told = []
    found = choose((), None, export=never, best_target=never, notify=told.append, folder=tmp_path / "out",
                   device="cuda:0", here=here)  # fmt: skip
    assert [one.label for one in found] == (["card"] if here else ["card", "processor"])
    if here:
        (line,) = told
        assert line.startswith("left out: processor: device 'cuda:0': the installed ONNX Runtime")
        assert line.endswith("these packages overwrite each other's files")


def test_where_none_remains_nothing_is_exported_for_a_device_that_no_package_reaches(
    make_bundle, tmp_path, monkeypatch
):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    others = tuple(target for target in capabilities.TARGETS if target.name != "tensorrt")  # whichever is installed
    monkeypatch.setattr(capabilities, "TARGETS", others)
    make_bundle("processor", folder=tmp_path / "out", target="onnx")
    told = []
    with pytest.raises(BackendMissingError, match=r"has no CUDAExecutionProvider.*edgetrack\[onnx-cuda\]"):
        choose((), None, export=never, best_target=lambda: capabilities.best_target("cuda:0"), notify=told.append,
               folder=tmp_path / "out", device="cuda:0")  # fmt: skip
    assert len(told) == 1
    # A bundle that was named is not left out: its own process says why it fails.
    named = choose((str(tmp_path / "out" / "processor"),), None, export=never, best_target=never, notify=told.append,
                   device="cuda:0")  # fmt: skip
    assert [one.label for one in named] == ["processor"]
