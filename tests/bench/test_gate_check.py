"""The slowdown that the gate is tried with, as long as the runtime is as the script knows it."""

from __future__ import annotations

import sys
import types
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests.builders import write_scripted

ROOT = Path(__file__).resolve().parents[2]
SESSION = ROOT / "edgetrack/runtime/session.py"


def slowed(session: str, share: float) -> str:
    """What bench/gate_check.py makes of the source of session.py."""
    spec = spec_from_file_location("gate_check", ROOT / "bench" / "gate_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.slowed(session, share)


def test_every_frame_of_a_slowed_runtime_spins_for_its_share(tmp_path, monkeypatch) -> None:
    source = slowed(SESSION.read_text("utf-8"), 0.15)
    module = types.ModuleType("slowed_session")
    monkeypatch.setitem(sys.modules, "slowed_session", module)
    exec(compile(source, "session.py", "exec"), module.__dict__)
    with module.load(write_scripted(tmp_path / "a")) as tracker:
        assert type(tracker.procedure).__name__ == "Slowed"
    ticks = iter(range(0, 10_000, 100))
    clock = types.SimpleNamespace(perf_counter_ns=lambda: next(ticks))
    monkeypatch.setattr(module, "_time", clock)
    made = object.__new__(type(tracker.procedure))
    monkeypatch.setattr(type(made).__mro__[1], "update", lambda self, frame, timer: [next(ticks) for _ in range(19)])
    made.update(None, None)
    # A frame of 2000 ticks, and 300 more until the clock is past 15 % of it.
    assert next(ticks) == 100 * (1 + 19 + 1 + 3)


def test_a_runtime_that_the_script_does_not_know_is_said() -> None:
    with pytest.raises(SystemExit, match="in another way than this script knows"):
        slowed("import time", 0.15)
