"""Sound weights files: every tensor comes out as it went in, and the right one of several state dicts is read."""

from __future__ import annotations

import ast
import collections
import hashlib
import io
import pickletools
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetrack.checkpoints import Checkpoint, check_finite, check_tensors, load_into, read_checkpoint, save_safetensors
from edgetrack.checkpoints.interpreter import Inert, Interpreter, StorageRef, TensorRef
from edgetrack.checkpoints.policy import Global
from edgetrack.checkpoints.reading import _state_dicts
from edgetrack.errors import CheckpointError, WeightsMismatchError

Writer = Callable[..., Path]
LEGACY = {"_use_new_zipfile_serialization": False}
DTYPES = (
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
)


def various_tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32) - 7.5
    tensors = {
        "z.first": base.view(2, 3, 4),
        "a.view": base[5:11].view(2, 3),
        "transposed": base.view(4, 6).t(),
        "strided": base.view(4, 6)[1:, ::2],
        "expanded": base[3:4].expand(5),
        "parameter": torch.nn.Parameter(torch.randn(3, 2)),
        "frozen": torch.nn.Parameter(torch.randn(2), requires_grad=False),
        "bn.num_batches_tracked": torch.tensor(123456789012),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    tensors.update({f"of.{dtype}": (torch.arange(6) % 2 * 3).to(dtype).view(3, 2) for dtype in DTYPES})
    return tensors


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor.detach()), name
        assert not found[name].requires_grad


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_every_kind(tmp_path: Path, options: dict[str, bool], protocol: int) -> None:
    path = tmp_path / "w.pth"
    tensors = various_tensors()
    torch.save(tensors, path, pickle_protocol=protocol, **options)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, tensors)
    assert checkpoint.format == ("torch-legacy" if options else "torch-zip")
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.placeholders == ()
    assert checkpoint.other_keys == ()


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_shared_storage_stays_shared(tmp_path: Path, options: dict[str, bool]) -> None:
    base = torch.arange(6.0)
    torch.save({"a": base, "tied": base, "tail": base[4:]}, tmp_path / "w.pth", **options)
    found = read_checkpoint(tmp_path / "w.pth").tensors
    assert found["a"].data_ptr() == found["tied"].data_ptr()
    found["a"][5] = 9
    assert found["tail"].tolist() == [4, 9]


def test_tensors_can_be_written_to(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth").tensors["a"]
    found += 1
    assert found.tolist() == [1, 1, 1]


def test_a_modules_state_dict_with_its_metadata(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "w.pth")
    assert_same(read_checkpoint(tmp_path / "w.pth").tensors, dict(module.state_dict()))


def test_bool_bytes_other_than_one_are_true(torch_zip: Writer, tensor_pickle: Callable[..., bytes]) -> None:
    path = torch_zip(tensor_pickle(kind="BoolStorage"), {"archive/data/0": b"\x00\x01\x02\xff"})
    assert read_checkpoint(path).tensors["w"].tolist() == [[False, True], [True, True]]


def test_ordered_dict_of_python_2_and_storage_on_a_gpu(torch_legacy: Writer) -> None:
    storage = b"(U\x07storagectorch.cuda\nFloatStorage\nU\x011U\x06cuda:0K\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x02\x85K\x01\x85\x89NtR"
    pickled = b"\x80\x02ccollections\nOrderedDict\n](](U\x01a" + tensor + b"ee\x85R."
    path = torch_legacy(pickled, [("1", 2, np.array([1.5, 2.5], "<f4").tobytes())])
    assert read_checkpoint(path).tensors["a"].tolist() == [1.5, 2.5]


def test_safetensors_in_the_order_of_the_file(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 2), "a": torch.arange(3), "c": torch.zeros(0, dtype=torch.float16)}
    safetensors.torch.save_file(tensors, tmp_path / "w.bin", {"origin": "here"})
    found = read_checkpoint(tmp_path / "w.bin", key="net")
    assert found.format == "safetensors"
    assert found.sha256 == hashlib.sha256((tmp_path / "w.bin").read_bytes()).hexdigest()
    assert_same(dict(sorted(found.tensors.items())), dict(sorted(tensors.items())))
    assert list(found.tensors).index("a") < list(found.tensors).index("b")  # wider elements come first


class TestKey:
    @pytest.fixture
    def trained(self, tmp_path: Path) -> Path:
        net = {"w": torch.ones(2)}
        torch.save({"epoch": 3, "net": net, "net_type": "X", "optimizer": {"state": {0: net}}}, tmp_path / "t.pth")
        return tmp_path / "t.pth"

    def test_picks_the_state_dict(self, trained: Path) -> None:
        found = read_checkpoint(trained, key="net")
        assert_same(found.tensors, {"w": torch.ones(2)})
        assert found.other_keys == ("epoch", "net_type", "optimizer")

    def test_absent_lists_the_keys(self, trained: Path) -> None:
        torch.save({"epoch": 3, "net": {"names": 2}}, trained)
        with pytest.raises(CheckpointError, match=r"no key 'model' and no state dict.*Its keys: 'epoch', 'net'"):
            read_checkpoint(trained, key="model")

    @pytest.mark.parametrize("key", [None, "model"])
    def test_the_only_state_dict_is_found(self, trained: Path, key: str | None) -> None:
        found = read_checkpoint(trained, key=key)
        assert_same(found.tensors, {"w": torch.ones(2)})
        assert (found.key, found.other_keys) == ("net", ("epoch", "net_type", "optimizer"))

    def test_a_nested_one_is_found(self, tmp_path: Path) -> None:
        torch.save({"model": {"epoch": 3, "ema": {"w": torch.ones(2)}}}, tmp_path / "t.pth")
        assert [read_checkpoint(tmp_path / "t.pth", key=key).key for key in (None, "net", "model")] == ["model.ema"] * 3

    def test_of_several_none_is_chosen(self, tmp_path: Path) -> None:
        torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}}, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match=r"several state dicts: 'model', 'ema'\. .*set `key"):
            read_checkpoint(tmp_path / "t.pth", key="net")

    def test_dicts_that_hold_themselves_are_searched_once(self) -> None:
        top: dict[str, object] = {}
        top.update({f"k{number}": top for number in range(3000)})
        shared = {f"k{number}": dict(top) for number in range(300)}
        assert list(_state_dicts(dict.fromkeys(map(str, range(3000)), shared))) == []

    def test_no_candidate_lists_the_keys(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3, "names": ["a"]}, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match=r"'epoch' is a int.*Its keys: 'epoch', 'names'"):
            read_checkpoint(tmp_path / "t.pth")

    def test_more_than_twenty_keys_are_counted(self, tmp_path: Path) -> None:
        torch.save({f"k{number:02}": number for number in range(25)}, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match="'k19' and 5 more"):
            read_checkpoint(tmp_path / "t.pth", key="net")

    def test_a_bare_state_dict_needs_none(self, tmp_path: Path) -> None:
        torch.save({"w": torch.ones(2)}, tmp_path / "t.pth")
        found = read_checkpoint(tmp_path / "t.pth", key="net")
        assert_same(found.tensors, {"w": torch.ones(2)})
        assert (found.key, found.other_keys) == ("", ())

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (3, "it is a int"),
            ({}, "it is empty"),
            ({"w": torch.ones(1), "n": 3}, "its entry 'n' is a int"),
            ({1: torch.ones(1)}, "its entry '1' is a tensor"),
            ({"w": torch.ones(1), "sub": {"v": torch.ones(1)}}, "its entry 'sub' is a dict"),
            ({"w": torch.ones(1, dtype=torch.uint16)}, "_rebuild_tensor_v3"),
        ],
    )
    def test_holds_no_state_dict(self, tmp_path: Path, value: object, why: str) -> None:
        torch.save({"net": value, (1, 2): 3, None: 4}, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match=why):
            read_checkpoint(tmp_path / "t.pth", key="net")

    @pytest.mark.parametrize("value", [torch.ones(2), [torch.ones(2)], None, 3, "text"])
    def test_top_level_is_no_dict(self, tmp_path: Path, value: object) -> None:
        torch.save(value, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match="at its top level, not a dict"):
            read_checkpoint(tmp_path / "t.pth", key="net")

    def test_unsupported_dtype_names_the_tensor(self, tmp_path: Path) -> None:
        torch.save({"c": torch.ones(2, dtype=torch.complex64)}, tmp_path / "t.pth")
        with pytest.raises(CheckpointError, match=r"tensor c: .*torch\.ComplexFloatStorage"):
            read_checkpoint(tmp_path / "t.pth")

    def test_unsupported_dtype_beside_the_state_dict_does_not_matter(self, tmp_path: Path) -> None:
        torch.save({"net": {"w": torch.ones(2)}, "c": torch.ones(2, dtype=torch.complex64)}, tmp_path / "t.pth")
        assert list(read_checkpoint(tmp_path / "t.pth", key="net").tensors) == ["w"]


@pytest.fixture
def trainer() -> Iterator[types.ModuleType]:
    """A trainer's module that exists while the file is written only; building an object of it is counted."""
    module = types.ModuleType("vanished_trainer.settings")
    source = """
import collections, enum
revived = []
class Settings:
    def __init__(self): self.lr = 1e-4; self.env = None
    def __setstate__(self, state): revived.append(state)
class EasyDict(dict):
    def __init__(self, *a, **k): super().__init__(*a, **k); self.__dict__ = self
class Slotted:
    __slots__ = ("a",)
    def __init__(self): self.a = 1
class Reduced:
    def __reduce__(self): return build, (1,), {"s": 2}, iter([3]), iter([(4, 5)])
    def append(self, item): revived.append(item)
    def __setitem__(self, key, item): revived.append(item)
class NewEx:
    def __new__(cls, *, a): revived.append(a); return super().__new__(cls)
    def __getnewargs_ex__(self): return (), {"a": 1}
class Outer:
    class Inner: pass
class Color(enum.Enum): RED = 1
Point = collections.namedtuple("Point", "x y")
def build(*a): revived.append(a)
"""
    exec(compile(source, "settings.py", "exec"), module.__dict__)
    for value in list(vars(module).values()):
        if isinstance(value, (type, types.FunctionType)):
            value.__module__ = module.__name__
    module.Outer.Inner.__module__ = module.__name__
    sys.modules["vanished_trainer"] = types.ModuleType("vanished_trainer")
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)
    sys.modules.pop("vanished_trainer", None)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_trainers_own_classes(
    tmp_path: Path, trainer: types.ModuleType, protocol: int, options: dict[str, bool]
) -> None:
    weights = {"w": torch.arange(4.0), "n": torch.tensor(3)}
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2)).sum().backward()
    optimizer.step()
    saved = {
        "settings": trainer.Settings(),
        "env": trainer.EasyDict(a=1, b=trainer.EasyDict(c=[2])),
        "objects": [trainer.Slotted(), trainer.Reduced()],
        # Before protocol 4, Python itself writes these two with getattr and functools.partial, which are refused.
        "newer": [trainer.NewEx(a=1), trainer.Outer.Inner()] if protocol >= 4 else [],
        "names": (trainer.Settings, trainer.build, trainer.Color.RED, trainer.Point(1, 2)),
        "stats": collections.defaultdict(list, loss=[0.5]),
        "plain": [{1, 2}, frozenset({3}), b"\xff", bytearray(b"x"), slice(1, 2), range(3), 1j, 2**80, -1.5, None, True],
        "torch": [torch.float16, torch.device("cpu"), torch.Size([1, 2]), torch.ones(1).untyped_storage()],
        "numpy": [np.float64(0.5), np.arange(3), np.random.Generator(np.random.PCG64(0))],
        "path": Path("runs/1"),
        "net": weights,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(saved, tmp_path / "t.pth.tar", pickle_protocol=protocol, **options)
    trainer.revived.clear()
    del sys.modules[trainer.__name__], sys.modules["vanished_trainer"]

    found = read_checkpoint(tmp_path / "t.pth.tar", key="net")

    assert_same(found.tensors, weights)
    assert found.other_keys == tuple(name for name in saved if name != "net")
    ours = [name for name in found.placeholders if name.startswith("vanished_trainer.")]
    names = ["Settings", "EasyDict", "Slotted", "build", *(["NewEx", "Outer.Inner"] if protocol >= 4 else [])]
    assert ours == [f"vanished_trainer.settings.{name}" for name in (*names, "Color", "Point")]
    assert "collections.defaultdict" in found.placeholders
    assert not any(name.startswith(("builtins.", "__builtin__.", "torch._utils")) for name in found.placeholders)
    assert trainer.revived == []
    assert "vanished_trainer" not in sys.modules


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_whole_module_beside_the_state_dict(tmp_path: Path, options: dict[str, bool]) -> None:
    torch.save({"net": {"w": torch.ones(2)}, "criterion": torch.nn.Linear(2, 2)}, tmp_path / "t.pth", **options)
    found = read_checkpoint(tmp_path / "t.pth", key="net")
    assert list(found.tensors) == ["w"]
    assert "torch.nn.modules.linear.Linear" in found.placeholders
    with pytest.raises(CheckpointError, match=r"'criterion' is no state dict: it is an object of torch\.nn\.modules"):
        read_checkpoint(tmp_path / "t.pth", key="criterion")


def test_no_warnings_and_no_new_imports(tmp_path: Path) -> None:
    torch.save(various_tensors(), tmp_path / "w.pth")
    before = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_checkpoint(tmp_path / "w.pth")
    assert set(sys.modules) == before


class TestSmatPilot:
    @pytest.fixture
    def path(self, shared: Path) -> Path:
        path = shared / "data/smat_pilot/MobileViTv2_Track_pilot.pth.tar"
        if not path.is_file():
            pytest.skip(f"REFERENCE FILE ABSENT: {path}")
        return path

    def test_is_the_official_state_dict(self, path: Path, shared: Path) -> None:
        lines = (shared / "spec/statedict_smat.txt").read_text().splitlines()
        spec = [line.split("\t") for line in lines if not line.startswith("#")]
        found = read_checkpoint(path, key="net")
        described = [[name, tuple(tensor.shape), str(tensor.dtype)] for name, tensor in found.tensors.items()]
        expected = [[name, ast.literal_eval(shape), f"torch.{dtype}"] for name, shape, dtype, _ in spec]
        assert len(described) == 371
        assert sorted(described) == sorted(expected)
        assert found.format == "torch-zip"

    def test_values(self, path: Path) -> None:
        expected = torch.load(path, weights_only=True)["net"]
        assert_same(read_checkpoint(path, key="net").tensors, dict(expected))


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def other_weights() -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in model().state_dict().items()}


class TestCheckTensors:
    def test_equal(self) -> None:
        check_tensors({"a": (2,), "b": ()}, {"b": torch.tensor(1), "a": torch.ones(2)}, source="here")

    def test_lists_everything_sorted(self) -> None:
        expected = {"b": (1,), "a": (1,), "same": (2,), "z": (2, 3), "y": (4,)}
        found = {
            "x": torch.ones(1),
            "same": torch.ones(2),
            "z": torch.ones(3, 2),
            "y": torch.tensor(1),
            "c": torch.ones(1),
        }
        with pytest.raises(WeightsMismatchError) as caught:
            check_tensors(expected, found, source="w.pth")
        assert str(caught.value) == (
            "w.pth: its tensors are not those of the model: 2 missing, 2 unexpected, 2 misshapen"
            "\n  missing: a, b"
            "\n  unexpected: c, x"
            "\n  misshapen: y is () and should be (4,), z is (3, 2) and should be (2, 3)"
        )

    def test_shows_twenty(self) -> None:
        with pytest.raises(WeightsMismatchError, match=r"25 missing\n  missing: t00, .*, t04 and 20 more$"):
            check_tensors({f"t{number:02}": () for number in range(25)}, {}, source="w.pth")


class TestCheckFinite:
    def test_finite(self) -> None:
        check_finite({"a": torch.ones(2), "n": torch.tensor(3), "b": torch.ones(1).bfloat16()}, source="here")

    def test_lists_tensors_and_counts(self) -> None:
        tensors = {
            "b": torch.tensor([float("nan"), 1, float("inf")]),
            "a": torch.tensor(-float("inf")),
            "c": torch.ones(1),
        }
        with pytest.raises(CheckpointError, match=r"w\.pth: NaN .* 2 of 3 tensors: a \(1 of 1\), b \(2 of 3\)"):
            check_finite(tensors, source="w.pth")


class TestLoadInto:
    @pytest.mark.parametrize("wrap", [dict, lambda tensors: Checkpoint(tensors, "", "safetensors")])
    def test_loads_parameters_and_buffers(self, wrap: Callable[[dict[str, torch.Tensor]], object]) -> None:
        module = model()
        load_into(module, wrap(other_weights()), source="here")
        state = module.state_dict()
        assert all(torch.equal(state[name], value) for name, value in other_weights().items())
        assert all(parameter.requires_grad for parameter in module.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_casts_to_the_modules_dtype(self, dtype: torch.dtype) -> None:
        module = model().to(dtype)
        load_into(module, other_weights(), source="here")
        assert module[0].weight.dtype == dtype
        assert torch.equal(module[0].weight, other_weights()["0.weight"].to(dtype))
        assert module[1].num_batches_tracked.dtype == torch.int64
        assert module[1].num_batches_tracked == 1

    def test_module_and_weights_share_nothing(self) -> None:
        module, weights = model(), other_weights()
        load_into(module, weights, source="here")
        weights["0.bias"] += 1
        assert torch.equal(module[0].bias, other_weights()["0.bias"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"extra": torch.ones(1)}, "1 unexpected\n  unexpected: extra"),
            ({"1.bias": torch.ones(5)}, r"1\.bias is \(5,\) and should be \(4,\)"),
            ({"1.bias": torch.ones(4, dtype=torch.int64)}, r"1\.bias is torch\.int64 and should be torch\.float16"),
            ({"1.num_batches_tracked": torch.tensor(1.0)}, r"is torch\.float32 and should be torch\.int64"),
            ({"1.bias": torch.tensor([1.0, 2.0, 3.0, 70000.0])}, r"1\.bias has values that overflow in torch\.float16"),
        ],
    )
    def test_changes_nothing_on_error(self, change: dict[str, torch.Tensor], message: str) -> None:
        module = model().half()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(WeightsMismatchError, match=message):
            load_into(module, {**other_weights(), **change}, source="here")
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_missing(self) -> None:
        weights = other_weights()
        del weights["0.bias"]
        with pytest.raises(WeightsMismatchError, match=r"1 missing\n  missing: 0\.bias"):
            load_into(model(), weights, source="here")

    def test_tensor_that_cannot_be_written(self) -> None:
        module = torch.nn.Module()
        module.register_buffer("first", torch.zeros(2))
        module.register_buffer("spread", torch.zeros(1).expand(3))
        with pytest.raises(WeightsMismatchError, match="cannot be written"):
            load_into(module, {"first": torch.ones(2), "spread": torch.ones(3)}, source="here")
        assert module.first.tolist() == [0, 0]

    def test_meta_device(self) -> None:
        with pytest.raises(WeightsMismatchError, match="meta device"):
            load_into(model().to("meta"), other_weights(), source="here")

    def test_infinite_weights_are_not_an_overflow(self) -> None:
        weights = {**other_weights(), "0.bias": torch.full((4,), float("inf"))}
        module = model().half()
        load_into(module, weights, source="here")
        assert module[0].bias.isinf().all()


class TestSaveSafetensors:
    TENSORS = {"b": torch.arange(12.0).view(3, 4).t(), "a": torch.tensor(3), "h": torch.ones(3).half()}  # noqa: RUF012

    def test_round_trip(self, tmp_path: Path) -> None:
        shared = {**self.TENSORS, "tied": self.TENSORS["b"], "parameter": torch.nn.Parameter(torch.ones(2))}
        save_safetensors(shared, tmp_path / "w.safetensors", {"origin": "trained here", "note": 'é\n"'})
        found = read_checkpoint(tmp_path / "w.safetensors").tensors
        assert set(found) == set(shared)
        assert all(
            torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in shared.items()
        )

    def test_metadata(self, tmp_path: Path) -> None:
        safetensors = pytest.importorskip("safetensors")
        metadata = {"origin": "trained here", "note": 'é\n"', "a": "", "z": "1"}
        save_safetensors(self.TENSORS, tmp_path / "w.safetensors", metadata)
        with safetensors.safe_open(tmp_path / "w.safetensors", "pt") as file:
            assert file.metadata() == metadata

    def test_same_content_same_bytes(self, tmp_path: Path) -> None:
        metadata = {f"key{number}": str(number) for number in range(20)}
        backwards = (dict(reversed(self.TENSORS.items())), dict(reversed(metadata.items())))
        save_safetensors(self.TENSORS, tmp_path / "1", metadata)
        save_safetensors(backwards[0], tmp_path / "2", backwards[1])
        assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()

    def test_tensor_data_is_aligned(self, tmp_path: Path) -> None:
        for length in range(9):
            save_safetensors(self.TENSORS, tmp_path / "w", {"k": "x" * length})
            assert int.from_bytes((tmp_path / "w").read_bytes()[:8], "little") % 8 == 0
            assert read_checkpoint(tmp_path / "w").tensors["a"] == 3

    def test_replaces_and_leaves_nothing_beside(self, tmp_path: Path) -> None:
        (tmp_path / "w").write_bytes(b"old")
        save_safetensors(self.TENSORS, tmp_path / "w", {})
        assert [path.name for path in tmp_path.iterdir()] == ["w"]

    def test_keeps_the_old_file_on_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        (tmp_path / "w").write_bytes(b"old")
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_safetensors(self.TENSORS, tmp_path / "w", {})
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w", b"old")]

    def test_metadata_is_text(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="text to text"):
            save_safetensors(self.TENSORS, tmp_path / "w", {"epoch": 3})  # type: ignore[dict-item]


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


GOOD = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2]), "c": torch.ones(3).half()}


def good_bytes(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(GOOD)
    buffer = io.BytesIO()
    torch.save(GOOD, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def good_pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(good_bytes("zip"))) as archive:
        return archive.read("archive/data.pkl")


GOOD_BYTES = {kind: good_bytes(kind) for kind in ("zip", "legacy", "safetensors")}
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


# All that a pickle can become; whatever it names stays a name.
DATA = {type(None), bool, int, float, str, bytes, bytearray, list, dict, tuple, Inert, Global, StorageRef, TensorRef}


def kinds_in(value: object) -> set[type]:
    """The types of a value and of all that it holds."""
    kinds, pending, seen = set[type](), [value], set[int]()
    while pending:
        one = pending.pop()
        kinds.add(type(one))
        if id(one) not in seen:
            seen.add(id(one))
            pending += [*one, *one.values()] if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else []
    return kinds


def changed(data: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(data))] = value
    return bytes(damaged[: len(data) - int(cut * len(data))])


class TestFuzz:
    @FUZZ
    @given(changes=CHANGES, cut=st.sampled_from([0.0, 0.0, 0.01, 0.5]))
    def test_zip_gives_the_same_tensors_or_an_error(
        self, tmp_path: Path, changes: list[tuple[float, int]], cut: float
    ) -> None:
        path = tmp_path / "fuzzed.pth"
        path.write_bytes(changed(GOOD_BYTES["zip"], changes, cut))
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert list(found) == list(GOOD)
        assert all(torch.equal(found[name], GOOD[name]) for name in GOOD)

    @FUZZ
    @given(kind=st.sampled_from(["legacy", "safetensors"]), changes=CHANGES, cut=st.sampled_from([0.0, 0.0, 0.01, 0.5]))
    def test_formats_without_checksums(
        self, tmp_path: Path, kind: str, changes: list[tuple[float, int]], cut: float
    ) -> None:
        path = tmp_path / "fuzzed.pth"
        path.write_bytes(changed(GOOD_BYTES[kind], changes, cut))
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())

    @pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
    def test_every_truncation(self, tmp_path: Path, kind: str) -> None:
        data = GOOD_BYTES[kind]
        path = tmp_path / "cut.pth"
        for length in range(0, len(data), 1 if len(data) < 400 else 7):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError):
                read_checkpoint(path)

    @FUZZ
    @given(changes=CHANGES)
    def test_changed_pickles_with_a_good_checksum(self, torch_zip: Writer, changes: list[tuple[float, int]]) -> None:
        with zipfile.ZipFile(io.BytesIO(GOOD_BYTES["zip"])) as archive:
            data = {f"archive/data/{number}": archive.read(f"archive/data/{number}") for number in range(3)}
        path = torch_zip(changed(good_pickle(), changes, 0), data)
        try:
            found = read_checkpoint(path).tensors
        except CheckpointError:
            return
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())

    @FUZZ
    @given(
        parts=st.lists(
            st.one_of(
                st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]),
                st.sampled_from(
                    [TENSOR, b"ccollections\nOrderedDict\n", b"ca\nB\n", b"X\x01\x00\x00\x00a", b"K\x01", b"("]
                ),
                st.binary(max_size=4),
            ),
            max_size=40,
        )
    )
    @example(parts=[b"(", b"K\x01", b"0", b"0", b"t", b"."])
    def test_random_opcodes_give_data_or_an_error(self, parts: list[bytes]) -> None:
        try:
            found = Interpreter(io.BytesIO(b"".join(parts) + b".")).run()
        except CheckpointError:
            return
        assert kinds_in(found) <= DATA

    @FUZZ
    @given(
        data=st.binary(max_size=300),
        head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10" + b"\0" * 7 + b"{"]),
    )
    def test_garbage(self, tmp_path: Path, data: bytes, head: bytes) -> None:
        (tmp_path / "garbage.pth").write_bytes(head + data)
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "garbage.pth")
