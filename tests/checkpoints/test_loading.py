"""Tensors against a model: what does not fit is listed, and a module is loaded whole or left as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgetrack.checkpoints import Checkpoint, check_finite, check_tensors, load_into, read_checkpoint, save_safetensors
from edgetrack.errors import CheckpointError, WeightsMismatchError


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
        with pytest.raises(WeightsMismatchError, match=r"25 missing\n  missing: t00, .*, t19 and 5 more$"):
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
