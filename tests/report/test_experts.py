"""What experts make of tokens: kept from a tracker that runs, and their plane."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgetrack.cli.main import app
from edgetrack.errors import EdgetrackError, SourceError, UsageError
from edgetrack.report.experts import TOKENS, draw_experts, principal, record_experts

SCENE = "synthetic:drift?frames=4&size=160x120"


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 999))
def test_the_plane_is_that_of_the_singular_values(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    plane, shares = principal(values)
    u, s, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    expected = np.zeros((rows, 2))
    expected[:, : min(2, len(s))] = (u * s)[:, :2]
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-6)
    total = float((s**2).sum())
    if total > 1e-9:
        np.testing.assert_allclose(shares[: len(s)], (s**2 / total)[:2], atol=1e-9)


def test_outputs_and_weights_are_those_of_the_network(exported_tiny: Callable[..., Path]) -> None:
    """Weights times outputs are what the experts add, which the layer computed by another way."""
    import torch

    from edgetrack.models.spmtrack.network import Experts

    bundle = exported_tiny("spmtrack_b", "torch")
    found = record_experts(str(bundle), 1, SCENE, 2)
    assert list(found) == [f"layer 1 {name}" for name in ("q", "k", "v", "proj", "mlp in", "mlp out")]
    for one in found.values():
        assert one.outputs.shape[:2] == (2 * TOKENS, 4)
        np.testing.assert_allclose(one.weights.sum(axis=1), 1, atol=1e-5)
    assert found["layer 1 mlp in"].outputs.shape[2] == 256
    experts = Experts(5, 3, 2, 4)
    torch.manual_seed(0)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(7, 5)
    made, weights = experts.each(x)
    torch.testing.assert_close((made * weights.unsqueeze(-1)).sum(dim=-2), experts(x))
    last = record_experts(str(bundle), None, SCENE, 1)
    assert next(iter(last)) == "layer 2 q"


def test_inspect_writes_and_draws_them(exported_tiny: Callable[..., Path], tmp_path: Path) -> None:
    bundle, file, picture = exported_tiny("spmtrack_b", "torch"), tmp_path / "e.npz", tmp_path / "e.png"
    command = ["inspect", str(bundle), "--experts", str(file), "--plot", str(picture), "--source", SCENE]
    said = CliRunner().invoke(app, [*command, "--frames", "2"])
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[-1].startswith(
        "layer 2 mlp out: 64 tokens, 4 experts of 64 channels, mean weights "
    )
    with np.load(file) as kept:
        assert kept["layer 2 q/outputs"].shape == (64, 4, 64)
        assert kept["layer 2 mlp out/weights"].shape == (64, 4)
    # Dots of several colours, not an empty axis.
    assert len(np.unique(cv2.imread(str(picture)).reshape(-1, 3), axis=0)) > 100
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0


def test_what_cannot_be_looked_into_says_why(
    exported_tiny: Callable[..., Path], exported: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = str(exported_tiny("spmtrack_b", "torch"))
    for which, layer, match in (
        (bundle, 3, "layers 1 to 2"),
        (str(exported_tiny("spmtrack_b", "onnx")), None, "--target torch"),
        (str(exported("onnx")), None, "has no experts"),
    ):
        with pytest.raises(UsageError, match=match):
            record_experts(which, layer, SCENE, 1)
    with pytest.raises(SourceError, match="no frame behind"):
        record_experts(bundle, None, "synthetic:drift?frames=1&size=160x120", 1)
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(EdgetrackError, match="cannot be written"):
        draw_experts(record_experts(bundle, None, SCENE, 1), tmp_path / "taken" / "e.png")
    plain = CliRunner().invoke(app, ["inspect", bundle, "--layer", "1"])
    assert plain.exit_code != 0
    assert json.loads(CliRunner().invoke(app, ["inspect", bundle, "--json"]).output)["tracker"] == "spmtrack_b"
