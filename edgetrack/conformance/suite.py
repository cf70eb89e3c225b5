"""The checks. Each takes a `case`, a target at a precision with the bundle that was exported to it, once for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import torch

from edgetrack.arrays import Array
from edgetrack.box import iou
from edgetrack.bundle import Bundle, BundleWriter, Manifest, open_bundle, write_npz
from edgetrack.bundle.golden import GOLDEN_FILE, read_golden
from edgetrack.bundle.manifest import GraphInfo
from edgetrack.capabilities import Target, backend_of, find_target
from edgetrack.conformance.damage import DIFFERS, REFUSED, outcomes
from edgetrack.errors import (
    BackendMissingError,
    BundleError,
    DeviceUnavailableError,
    EdgetrackError,
    UnknownNameError,
    UsageError,
)
from edgetrack.exporting.parity import ModuleGraph, Sample, chained, exported_runner, real_samples, torch_runner
from edgetrack.exporting.pipeline import ExportPlan, ExportRequest, filled_network, plan
from edgetrack.exporting.targets.base import Exporter, exporter_of, option_fields, read_options
from edgetrack.io import read_bytes
from edgetrack.media import open_source
from edgetrack.models.base import GraphModule, find_model
from edgetrack.processes import python_command
from edgetrack.quantization.calibration import CalibrationSources, CropSampling
from edgetrack.quantization.lower import LoweringRequest, export
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.base import operators_of
from edgetrack.runtime.verify import PARITY_FILE, compare, run_graph

# None of what an export proves itself on.
SOURCE = "synthetic:blur?frames=25"
CROPS = 8
FRAMES = 10
SAME_PIXELS = 1.0
SAME_IOU = 0.5
_TIMEOUT_S = 600.0


@dataclass
class Case:
    """A target at a precision. `bundle` is exported when it is first asked for, in `folder`."""

    row: Target
    precision: str
    tracker: str
    device: str
    folder: Path

    @cached_property
    def work(self) -> ExportPlan:
        request = ExportRequest(self.tracker, self.row.name, self.precision, output=self.folder / "bundle")
        return plan(replace(request, weights="untrained"))

    @cached_property
    def _exported(self) -> Path | EdgetrackError:
        sources = CalibrationSources(("synthetic:drift",), None, CropSampling(CROPS))
        try:
            return export(self.work, LoweringRequest(calibration=sources)).path
        except (DeviceUnavailableError, BackendMissingError):
            raise
        except EdgetrackError as error:
            return error

    @property
    def bundle(self) -> Path:
        try:
            found = self._exported
        except (DeviceUnavailableError, BackendMissingError) as error:
            pytest.skip(f"{self.row.name} at {self.precision} is not made here: {error}")
        if isinstance(found, EdgetrackError):
            pytest.fail(f"there is no bundle: {type(found).__name__}: {found}", pytrace=False)
        return found

    def runnable(self) -> Path:
        """The bundle, where this machine runs it."""
        if self.row.proof or not backend_of(self.row.name).runs_here():
            pytest.skip(f"bundles of {self.row.name} run on {self.row.device_needed}")
        return self.bundle

    @cached_property
    def published(self) -> tuple[GraphModule, ...]:
        """The network's graphs, as published, with the bundle's weights."""
        network, _ = filled_network(self.work)
        return tuple(find_model(self.work.recipe.family_name).reference(network))

    @cached_property
    def samples(self) -> list[Sample]:
        """What the tracker feeds its graphs on a scene that the export did not see."""
        return list(real_samples(self.manifest, self.published, SOURCE, self.bundle))

    @property
    def manifest(self) -> Manifest:
        with open_bundle(self.bundle) as opened:
            return opened.manifest

    @property
    def options(self) -> BackendOptions:
        return BackendOptions(device=self.device, operators=operators_of(self.manifest))

    def graph(self, opened: Bundle, info: GraphInfo, **changed: Any) -> CompiledGraph:
        return backend_of(self.row.name)(info, opened.path(info.file), replace(self.options, **changed))

    def copy(self, name: str, change: Callable[[Path], None]) -> Path:
        """A copy of the bundle that was changed, and says so nowhere: its hashes are those of what it holds now."""
        with open_bundle(self.bundle) as source, BundleWriter(self.folder / name) as writer:
            writer.copy_from(source)
            change(writer.folder)
            return writer.commit(msgspec.structs.replace(source.manifest, files={}))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each target and precision, of a target alone where a check takes a `row`."""
    rows = [find_target(name) for name in metafunc.config.getoption("--edgetrack-target")]
    if "row" in metafunc.fixturenames:
        metafunc.parametrize("row", rows, ids=[row.name for row in rows])
    if "chosen" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--edgetrack-precision")
        chosen = [(row, one) for row in rows for one in row.precisions if not wanted or one in wanted]
        metafunc.parametrize("chosen", chosen, ids=[f"{row.name}-{one}" for row, one in chosen], scope="session")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for one another on small maps: on a busy machine two take ten times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def case(chosen: tuple[Target, str], pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A target at a precision."""
    row, precision = chosen
    usual = "cpu" if row.runs_on("cpu") else row.devices[0].partition(":")[0]
    device = pytestconfig.getoption("--edgetrack-device") or usual
    folder = tmp_path_factory.mktemp(f"{row.name}-{precision}")
    return Case(row, precision, pytestconfig.getoption("--edgetrack-tracker"), device, folder)


def edgetrack(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    command = python_command("edgetrack", *arguments)
    environ = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environ)


def test_row_says_what_the_target_is(row: Target) -> None:
    """Classes that are there, a precision at least, a device, and options that become options of `export`."""
    assert issubclass(backend_of(row.name), CompiledGraph)
    assert issubclass(exporter_of(row), Exporter)
    assert backend_of(row.name).engine
    assert row.precisions
    assert row.devices
    assert row.about
    assert row.packages or row.environment is not None, "neither packages nor an environment: what runs it?"
    own = {field.name for field in msgspec.structs.fields(exporter_of(row).options_type)}
    assert own <= {name for name, _, _ in option_fields()}


def test_export_is_proven_and_says_by_what(case: Case) -> None:
    """The bundle is of the target and precision; its proof passed, by the target's own engine."""
    manifest = case.manifest
    assert (manifest.target, manifest.precision) == (case.row.name, case.precision)
    proof = json.loads(read_bytes(case.bundle / PARITY_FILE))
    assert proof["comparisons"]
    assert all(one["ok"] for one in proof["comparisons"])
    assert proof["proven"] == backend_of(case.row.name).engine or case.row.proof


def test_outputs_are_those_of_pytorch(case: Case) -> None:
    """On crops that the export did not see: within the recipe's tolerance of the published network, in FP32's case."""
    bundle, limits = case.runnable(), msgspec.structs.asdict(case.work.recipe.tolerance(case.precision))
    with open_bundle(bundle) as opened:
        graphs = {info.name: case.graph(opened, info) for info in opened.manifest.graphs}
        try:
            for sample in case.samples:
                reference = chained(case.published, torch_runner(case.published), sample)["step"]["out"]
                found = chained(opened.manifest.graphs, exported_runner(graphs), sample)["step"]["out"]  # type: ignore[arg-type]
                for name, value in reference.items():
                    comparison = compare(f"step/{name} on {sample.name}", found[name], value, **limits)
                    assert comparison.ok, comparison
        finally:
            for graph in graphs.values():
                graph.close()


def test_a_run_depends_on_its_inputs_alone(case: Case) -> None:
    """The same inputs give the same outputs whatever ran between; inputs stay as they are, buffers where they are."""
    case.runnable()
    for info, graph, samples in graphs_of(case):
        first, second = samples[0], samples[-1]
        buffers = [*graph.inputs.values(), *graph.outputs.values()]
        before = run_graph(graph, first)
        for name, value in first.items():
            assert np.array_equal(graph.inputs[name], value), f"run() changed the input {name!r} of {info.name!r}"
        between = run_graph(graph, second)
        again = run_graph(graph, first)
        stated = {tensor.name: (tensor.dtype, tensor.shape) for tensor in info.outputs}
        assert {name: (value.dtype.name, value.shape) for name, value in again.items()} == stated
        after = [*graph.inputs.values(), *graph.outputs.values()]
        assert all(one is other for one, other in zip(buffers, after, strict=True)), "run() replaced a buffer"
        for name, value in again.items():
            assert compare(name, value, before[name], atol=0, rtol=0, peak=graph.same_peak).ok, f"{name!r} remembers"
        if any(not np.array_equal(first[name], second[name]) for name in first):
            assert any(not np.array_equal(between[name], before[name]) for name in before), "outputs ignore inputs"


def graphs_of(case: Case) -> Iterator[tuple[GraphInfo, CompiledGraph, list[dict[str, Array]]]]:
    """Each graph, opened, with what is on record of its inputs."""
    with open_bundle(case.bundle) as opened:
        golden = read_golden(opened)
        for info in opened.manifest.graphs:
            numbers = sorted({key.split("/")[0] for key in golden if key.split("/")[1] == info.name})
            samples = [{t.name: golden[f"{n}/{info.name}/in/{t.name}"] for t in info.inputs} for n in numbers]
            graph = case.graph(opened, info)
            try:
                yield info, graph, samples
            finally:
                graph.close()


def test_verify_passes_elsewhere_and_finds_other_outputs(case: Case) -> None:
    """In a process that has exported nothing; a record of other outputs is not met."""
    found = edgetrack("verify", str(case.runnable()), "--json", "--device", case.device)
    assert (found.returncode, json.loads(found.stdout or "{}").get("ok")) == (0, True), found.stderr

    def falsify(folder: Path) -> None:
        with open_bundle(case.bundle) as opened:
            golden = read_golden(opened)
        write_npz(folder / GOLDEN_FILE, {n: a + a.dtype.type(9) if "/out/" in n else a for n, a in golden.items()})

    copy = case.copy("falsified", falsify)
    assert outcomes([copy], case.device, run=subprocess.run)[copy.name].startswith(DIFFERS)


def test_tracks_as_pytorch_does(case: Case) -> None:
    """In FP32 every box within a pixel of the network's own; else boxes of numbers, in the frame."""
    bundle = case.runnable()
    network, _ = filled_network(case.work)
    own = {one.name: ModuleGraph(one) for one in find_model(case.work.recipe.family_name).deploy(network)}
    with open_bundle(bundle) as opened, load(bundle, device=case.device) as tracker, open_source(SOURCE) as frames:
        reference = Tracker(opened, case.options, graphs=own)
        start = frames.truth_at(0)
        assert start is not None
        for index, frame in zip(range(FRAMES), frames, strict=False):
            if index == 0:
                tracker.init(frame, start)
                reference.init(frame, start)
                continue
            found, wanted = tracker.update(frame), reference.update(frame)
            assert np.isfinite([*found.box, found.score]).all()
            if case.precision == "fp32":
                moved = np.abs(np.subtract(found.box, wanted.box)).max()
                assert moved <= SAME_PIXELS, f"frame {index}: {found.box}, PyTorch {wanted.box}"
            elif index == 1:
                assert iou(found.box, wanted.box) >= SAME_IOU


def test_bench_measures_it(case: Case) -> None:
    """One short round, in a worker process."""
    short = ("--no-reference", "--duration", "1s", "--iterations", "1", "--rounds", "2", "--warmup", "0", "--json")
    found = edgetrack("bench", str(case.runnable()), *short, "--device", case.device, "--here")
    assert found.returncode == 0, found.stderr
    (result,) = json.loads(found.stdout)["results"]
    assert (result["target"], result["latency_ms"]["track"]["p50"] > 0) == (case.row.name, True)


def test_every_damaged_file_is_refused(case: Case) -> None:
    """Each file of the bundle cut short, with one bit flipped, or missing: no bundle, whatever the engine would say."""
    accepted = []
    for file in sorted(path for path in case.bundle.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for damage, data in (("cut short", whole[:middle]), ("flipped", flipped), ("missing", None)):
            file.unlink()
            if data is not None:
                file.write_bytes(data)
            try:
                open_bundle(case.bundle).close()
                accepted.append(f"{file.name} {damage}")
            except EdgetrackError:
                pass
            finally:
                file.write_bytes(whole)
    assert accepted == []


def test_damage_under_fresh_hashes_is_refused(case: Case) -> None:
    """A file of a graph emptied, cut short or replaced, its hash made to fit: nothing opens it, and no engine dies."""
    case.runnable()
    damages: dict[str, Callable[[bytes], bytes]] = {
        "emptied": lambda data: b"",
        "cut": lambda data: data[: len(data) // 2],
        "replaced": lambda data: b"no graph at all\n" * 64,
    }
    exporter = case.work.exporter
    files = {file for info in case.manifest.graphs for file in exporter.files(case.bundle / info.file)}
    copies = []
    for number, file in enumerate(sorted(one.relative_to(case.bundle) for one in files)):
        for name, damage in damages.items():

            def change(folder: Path, file: Path = file, damage: Callable[[bytes], bytes] = damage) -> None:
                (folder / file).write_bytes(damage((folder / file).read_bytes()))

            # A hash that the manifest states of an engine's file beside its own is refused while the copy is written.
            with suppress(BundleError):
                copies.append(case.copy(f"{number}-{file.name}-{name}", change))
    found = outcomes(copies, case.device, run=subprocess.run)
    assert {name: what for name, what in found.items() if not what.startswith(REFUSED)} == {}


def test_a_manifest_that_lies_is_found(case: Case) -> None:
    """One more row of an output, or an output of another type: refused when the graph is opened, or first run."""
    case.runnable()
    with open_bundle(case.bundle) as opened:
        for info in opened.manifest.graphs:
            for side in ("inputs", "outputs"):
                first, *rest = getattr(info, side)
                longer = msgspec.structs.replace(first, shape=(*first.shape[:-1], first.shape[-1] + 1))
                other = msgspec.structs.replace(first, dtype="int32" if first.dtype != "int32" else "float32")
                renamed = msgspec.structs.replace(first, name=f"{first.name}_other")
                for lie in (longer, other, renamed):
                    stated = msgspec.structs.replace(info, **{side: (lie, *rest)})
                    with pytest.raises(EdgetrackError):
                        opened_and_run(case, opened, stated)


def opened_and_run(case: Case, opened: Bundle, info: GraphInfo) -> None:
    """Run a graph as a manifest describes it."""
    graph = case.graph(opened, info)
    try:
        graph.run()
    finally:
        graph.close()


def test_missing_packages_are_named_with_what_to_type(case: Case) -> None:
    """Where the target's packages, or its environment, are not there: exit code 3, and how to get them."""
    bundle = case.runnable()
    hidden = {one: None for group in case.row.packages for one in map(case.row.module_of, group.split(" | "))}
    script = (
        f"import sys; sys.modules.update({hidden!r}); sys.argv = ['edgetrack', 'verify', {str(bundle)!r}]; "
        "from edgetrack.cli.main import main; main()"
    )
    environ = {**os.environ, "EDGETRACK_ENVIRONMENTS": str(case.folder / "none"), "EDGETRACK_CACHE": "off"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environ
    )
    assert found.returncode == BackendMissingError.exit_code, found.stderr
    assert case.row.install_command in found.stderr or "install" in found.stderr


def test_what_it_does_not_offer_is_refused(case: Case) -> None:
    """Devices, hints, numbers of threads, precisions and options that the row does not have."""
    case.runnable()
    with open_bundle(case.bundle) as opened:
        info = opened.manifest.graphs[0]
        with pytest.raises((DeviceUnavailableError, UsageError)):
            case.graph(opened, info, device="nowhere:7")
        with pytest.raises((UsageError, DeviceUnavailableError)):
            case.graph(opened, info, precision_hint="fp7")
        with pytest.raises(UsageError):
            case.graph(opened, info, threads=0)
    request = ExportRequest(case.tracker, case.row.name, weights="untrained")
    with pytest.raises(UnknownNameError):
        plan(replace(request, precision="fp7"))
    with pytest.raises(UsageError):
        plan(replace(request, opset=3))
    with pytest.raises(UsageError):
        read_options(case.row, {"no_such_option": "1"})


def test_a_closed_graph_is_closed(case: Case) -> None:
    """Closing twice is no error, running afterwards is, and no process is left."""
    case.runnable()
    before = set(psutil.Process().children(recursive=True))
    for _, graph, _ in graphs_of(case):
        graph.run()
        graph.close()
        graph.close()
        with pytest.raises(UsageError):
            graph.run()
    assert set(psutil.Process().children(recursive=True)) <= before
