"""`edgetrack inspect`: what a bundle says of itself."""

from __future__ import annotations

import json

BUNDLE = "smat-openvino-fp32"


def test_inspect_shows_the_manifest(run) -> None:
    manifest = json.loads(run("inspect", BUNDLE, "--json").stdout)
    assert manifest["tracker"] == "smat"
    assert {g["name"] for g in manifest["graphs"]} == {"template", "step"}
    text = run("inspect", BUNDLE).stdout
    assert "trained-here smat.safetensors" in text
    assert "template_features" in text
