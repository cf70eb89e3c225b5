"""`edgetrack pack` and `unpack`, on a real bundle."""

from __future__ import annotations

BUNDLE = "smat-openvino-fp32"


def test_packed_bundle_verifies_and_unpacks(run, tmp_path) -> None:
    packed = tmp_path / "b.zip"
    assert run("pack", BUNDLE, "-o", str(packed)).returncode == 0
    assert run("verify", str(packed)).returncode == 0
    assert run("unpack", str(packed), "-o", str(tmp_path / "b")).returncode == 0
    assert run("verify", str(tmp_path / "b")).returncode == 0
