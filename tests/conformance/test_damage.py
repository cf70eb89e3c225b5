"""Bundles that are opened one after another in processes that some of them end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgetrack.conformance.damage import outcome, outcomes
from tests.builders import write_scripted


def test_a_bundle_without_its_record_is_refused(tmp_path: Path) -> None:
    bundle = write_scripted(tmp_path / "one")
    assert outcome(bundle, "cpu").startswith("refused: BundleError")
    (bundle / "manifest.json").write_text("{")
    assert outcome(bundle, "cpu").startswith("refused: ")
    assert outcomes([bundle], "cpu", run=subprocess.run)["one"].startswith("refused: ")


def test_a_process_that_dies_costs_the_others_nothing(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        names = [Path(one).name for one in command[command.index("cpu") + 1 :]]
        asked.append(names)
        opened = names[: names.index("bad")] if "bad" in names else names
        lines = "".join(f"outcome\t{name}\trefused: x\n" for name in opened)
        return SimpleNamespace(stdout=lines, stderr="boom\n", returncode=-11)

    found = outcomes([tmp_path / name for name in ("a", "bad", "d")], "cpu", run=run)  # type: ignore[arg-type]
    assert asked == [["a", "bad", "d"], ["d"]]
    assert found["a"] == "refused: x"
    assert found["bad"] == "ends the process: the process was killed by SIGSEGV; its last words: boom"
    assert found["d"] == "refused: x"
