from __future__ import annotations

import pytest

from edgetrack import capabilities
from edgetrack.benchmark.lineup import choose
from edgetrack.bundle import open_bundle, pack
from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.errors import BundleError, UsageError


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
    with pytest.raises(UsageError, match="no precision hint 'bf16'"):
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
    with pytest.raises(UsageError, match="a takes part twice"):
        pick(path, path)


def test_bundles_of_one_name_are_told_apart_by_their_places(pick, make_bundle, tmp_path):
    first, second = (make_bundle("a", folder=tmp_path / place) for place in ("x", "y"))
    renamed = second.rename(second.with_name("b"))
    chosen, _ = pick(str(first), f"{make_bundle('other')}", str(renamed))
    assert [c.label for c in chosen] == ["a", "other", "b"]
    again = make_bundle("a", folder=tmp_path / "y")
    chosen, _ = pick(str(first), str(again))
    assert [c.label for c in chosen] == ["x/a", "y/a"]
    with pytest.raises(UsageError, match="x/a takes part twice"):
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
    assert asked == [(None, "onnx", None, None)]
    assert "onnx" in told[0]
    assert [c.path for c in chosen] == [made]


def test_untrained_weights_are_warned_of(pick, make_bundle):
    trained = WeightsInfo(origin="trained-here", sha256="0" * 64)
    chosen, _ = pick(str(make_bundle("a")), str(make_bundle("b", weights=trained)))
    assert [[c.code for c in one.cautions] for one in chosen] == [["untrained-weights"], []]


def test_what_is_no_bundle(pick, tmp_path):
    with pytest.raises(UsageError):
        pick(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError):
        pick(str(tmp_path / "empty"))
