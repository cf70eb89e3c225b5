from __future__ import annotations

import pytest

from edgetrack.benchmark.run import Environment
from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.runtime.found import FoundHere
from edgetrack.system.machine import MachineRecord
from edgetrack.system.sampler import Sensors
from edgetrack.tuning.run import TuneRequest, tune
from tests.builders import scripted_manifest, write_scripted
from tests.gate.conftest import Machine, SimulatedWorker

MACHINE = MachineRecord(
    os="an OS", kernel="1", architecture="x86_64", python="CPython", cpu_model="a CPU", usable_cores=2, packages={}
)
QUIET = {"jitter": 0.02, "state": 0.01, "spike": 0.005, "burst": 0.0, "place": 0.0}


@pytest.fixture
def bundle(tmp_path):
    """bundle("a", precision="int8", ...) writes a bundle of scripted outputs; returns its path."""

    def write(name, tracker="smat", weights="a" * 64, **fields):
        fields = {"tracker": tracker, "weights": WeightsInfo(origin="trained-here", sha256=weights), **fields}
        return write_scripted(tmp_path / "out" / name, scripted_manifest(name, **fields))

    return write


@pytest.fixture
def tuning(tmp_path):
    """tuning({"a on 1 thread": 20.0}, "out/a", ...) is `tune` on a simulated machine, where a candidate takes so long.

    `ms` may be a number: of all. `clock` is the simulated machine, `lines` takes what people are told.
    """

    def run(ms, *given, seed=0, rss=None, clock=None, lines=None, export=None, start=None, cores=2, **request):
        clock = clock or Machine(seed, **QUIET)

        def simulated(label, threads):
            base = ms if isinstance(ms, float) else ms[label]
            return SimulatedWorker(clock, base, (rss or {}).get(label, 280.0))

        environment = Environment(
            notify=(lines if lines is not None else []).append,
            start=start or simulated,
            look=lambda: MACHINE,
            sensors=lambda names: Sensors(),
            clock=clock,
            folder=tmp_path / "out",
        )
        wanted = {
            "source": "synthetic:drift?frames=6&size=96x64",
            "folder": tmp_path / "tune",
            "max_time_s": 300.0,
            **request,
        }
        found = {"fake": FoundHere(devices=("cpu",))}
        return tune(TuneRequest(tuple(map(str, given)), **wanted), environment, export or _never, lambda: found)

    return run


def _never(*args):
    raise AssertionError(args)
