"""`edgetrack.export`, `bench`, `evaluate` and `compare`: what the command line does, from Python.

Parameters have the names, units and defaults of the command line's options and are checked alike; what is returned is
the record that `--json` prints. Nothing is printed: `progress` is told what happens. Everything runs on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetrack.bundle.manifest import Scalar, settings_of
from edgetrack.errors import UsageError
from edgetrack.evaluation import ANCHOR_LENGTH, ANCHOR_SPACING
from edgetrack.io import encode_json, write_whole
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.requests import folder_or_file

if TYPE_CHECKING:
    from edgetrack.benchmark.record import BenchRecord
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.evaluation.comparison import CompareRecord
    from edgetrack.evaluation.results import EvalRecord
    from edgetrack.exporting.isolated import Exported

AnyPath = str | PathLike[str]


def export(
    tracker: AnyPath,
    *,
    target: str | None = None,
    precision: str = "fp32",
    weights: AnyPath | None = None,
    onnx: Sequence[AnyPath] = (),
    set: Mapping[str, Scalar] | None = None,
    batch: int = 1,
    output: AnyPath | None = None,
    overwrite: bool = False,
    licence: str | None = None,
    redistribute: bool = False,
    opset: int = 17,
    atol: float | None = None,
    rtol: float | None = None,
    parity_source: Sequence[AnyPath] = (),
    tokenizer: AnyPath | None = None,
    calib: Sequence[AnyPath] = (),
    calib_size: int = 300,
    calib_method: str = "minmax",
    bias_correction: str = "fast",
    per_tensor: bool = False,
    smooth_quant: float | None = None,
    weight_bits: int = 8,
    keep: Sequence[str] | None = None,
    seed: int = 0,
    max_drop: float | None = None,
    val: AnyPath | None = None,
    val_frames: int | None = None,
    anchors: int = ANCHOR_SPACING,
    anchor_length: int = ANCHOR_LENGTH,
    on_drop: str = "revert",
    sensitivity: bool = False,
    jobs: int = 1,
    options: Mapping[str, str | Sequence[str]] | None = None,
    progress: Progress = no_progress,
) -> Exported:
    """Turn a checkpoint into a bundle that runs without PyTorch, and prove that it computes the same.

    It runs in this process, and loads PyTorch and the target's converter into it.

    Args:
        tracker: a tracker's name, `default`, or a recipe file.
        target: one target, as `edgetrack list --targets` names it. Default: the first that is installed.
        precision: of the bundle.
        weights: a checkpoint, `default` or `untrained`. Default: those that ship, where the tracker has some.
        onnx: the ONNX file of each graph, to start from in place of weights.
        set: keys of the recipe's configuration or procedure to set otherwise, such as `{"memory": "exact"}`.
        batch: add a graph that runs so many targets of one video at once; 1: none.
        output: the bundle's folder. Default: `out/<tracker>-<target>-<precision>`.
        overwrite: whether it may exist.
        licence: the weights' licence, an SPDX identifier such as MIT, for the manifest.
        redistribute: note with `licence` that the weights may be passed on.
        opset: ONNX operator set, 17 or 18.
        atol: absolute parity tolerance in place of the recipe's.
        rtol: relative parity tolerance in place of the recipe's.
        parity_source: sequence folders with ground truth to prove parity on, beside the built-in scenes.
        tokenizer: a file of CLIP's merges for a tracker that reads text. Default: those of an installed package.
        calib: calibration crops: a set's name or file, or clips with boxes.
        calib_size: number of calibration crops to collect from clips.
        calib_method: how INT8 ranges are found: minmax, percentile or histogram.
        bias_correction: how INT8 biases are corrected: fast, full or none.
        per_tensor: one scale for each INT8 weight, not one for each channel.
        smooth_quant: alpha of SmoothQuant for INT8, 0..1. Default: without it.
        weight_bits: of INT8: 7 keeps sums from saturating on x86 processors without VNNI; else 8.
        keep: stages that stay in FP32; none of them where it is empty. Default: the recipe's.
        seed: of the calibration sampling.
        max_drop: accuracy control: points of AO that the precision may cost on `val`.
        val: accuracy control: annotated sequences to measure AO on.
        val_frames: accuracy control: at most so many frames of each sequence.
        anchors: accuracy control: frames between the starts of anchored runs.
        anchor_length: accuracy control: frames of an anchored run.
        on_drop: accuracy control: `revert` stages to FP32, or `fail`, where the cost is higher.
        sensitivity: accuracy control: measure every stage even if the cost is met.
        jobs: accuracy control: sequences to run at a time.
        options: the target's own options by name, such as `{"compute_units": "cpu_only"}`.
        progress: is told each stage, with 0 for its number and for how many there are.

    Returns:
        What was exported and how far it is from its reference; `bundle` is its path.

    Raises:
        UsageError: what was asked for does not exist, excludes itself or is out of range.
        CheckpointError: the weights do not fit.
        ParityError: the bundle computes something else; nothing is written.
        BackendMissingError: a package is missing; the message says what to install.
        EdgetrackError: any other failure, of which these are subclasses.
    """
    from edgetrack.quantization.lower import export as run
    from edgetrack.requests.exporting import accuracy_control, export_work, exported

    if target is not None and (target == "all" or "," in target):
        raise UsageError(f"target {target!r}: expected one; call edgetrack.export() for each")
    control = accuracy_control(
        precision,
        max_drop=max_drop,
        val=None if val is None else fspath(val),
        val_frames=val_frames,
        anchors=anchors,
        anchor_length=anchor_length,
        on_drop=on_drop,
        sensitivity=sensitivity,
        jobs=jobs,
    )
    given = {name: value if isinstance(value, str) else tuple(value) for name, value in (options or {}).items()}
    work, lowering = export_work(
        fspath(tracker),
        target=target,
        precision=precision,
        weights=None if weights is None else fspath(weights),
        onnx=[Path(path) for path in onnx],
        settings=settings_of(set or {}),
        batch=batch,
        output=_path(output),
        overwrite=overwrite,
        licence=licence,
        redistribute=redistribute,
        opset=opset,
        atol=atol,
        rtol=rtol,
        parity_source=_texts(parity_source),
        tokenizer=_path(tokenizer),
        options=given,
        calib=_texts(calib),
        calib_size=calib_size,
        calib_method=calib_method,
        bias_correction=bias_correction,
        per_tensor=per_tensor,
        smooth_quant=smooth_quant,
        weight_bits=weight_bits,
        keep=keep,
        seed=seed,
        control=control,
    )
    return exported(run(work, lowering, progress=lambda stage: progress(stage, 0, 0)))


def bench(
    bundles: AnyPath | Sequence[AnyPath] = (),
    *,
    device: str = "cpu",
    here: bool = False,
    threads: int | Literal["auto"] | None = None,
    warmup: float = 1.0,
    duration: str | float | None = None,
    iterations: int = 150,
    rounds: int | None = None,
    scenario: str = "stream",
    fps: float | None = None,
    streams: int | None = None,
    batched: bool = False,
    source: AnyPath | None = None,
    box: Sequence[float] | None = None,
    precision_hint: str | None = None,
    reference: AnyPath | None = None,
    no_reference: bool = False,
    attainable: bool = False,
    timeout: str | float = "2m",
    output: AnyPath | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> BenchRecord:
    """Measure bundles: latency of model, track and camera, memory and size, beside PyTorch and the roofline.

    Each candidate runs in a process of its own. A candidate that fails is one of the record's `failures`; Ctrl-C ends
    the measurement early, and the record is then not `complete`.

    Args:
        bundles: paths or names; `BUNDLE@bf16` loads one with that precision hint, `BUNDLE@cuda:0` runs it there.
            Default: those in `./out`.
        device: `cpu`, `cuda:0`, or a device's profile that this machine fits.
        here: take this machine for the device, even if it does not look like it.
        threads: per inference; `auto`: each bundle's best number, by a short race. Default: all usable cores.
        warmup: seconds, and at least 10 frames.
        duration: seconds per candidate and speed, or a text such as `45s`. Default: 6 s, or 10 minutes for a soak.
        iterations: fewest frames per candidate and speed; `duration` is reached, too.
        rounds: interleaved rounds, or a soak's windows. Default: 6, or at least 20 for a soak.
        scenario: how frames arrive: `stream`, `paced`, `burst` or `soak`.
        fps: frames per second that arrive. Default: 30 for paced, back to back for a soak.
        streams: trackers at once for a burst. Default: 2.
        batched: let one tracker follow a burst's targets.
        source: a video, a folder, or `synthetic:NAME`. Default: a 1280x720 scene.
        box: the target in the first frame, x, y, w, h in pixels. Default: the source's ground truth.
        precision_hint: arithmetic to ask every backend for, such as bf16.
        reference: the PyTorch bundle to compare with. Default: one is found or made.
        no_reference: do not measure PyTorch.
        attainable: time each layer alone, too, and say what a step would take at these rates.
        timeout: longest wait for one answer of a worker, in seconds or as `2m`.
        output: the record as JSON, saved after each round.
        overwrite: whether it may exist.
        progress: is told each step, its number and how many there are; a remark has 0 for both.

    Raises:
        UsageError: a bundle, source or number that cannot be used, or an output that exists.
        DeviceUnavailableError: the device is not this machine.
        BackendMissingError: a package is missing; the message says what to install.
        EdgetrackError: any other failure, of which these are subclasses.
    """
    from edgetrack.requests.benchmark import bench_here, bench_request

    request = bench_request(
        _texts([bundles] if isinstance(bundles, (str, PathLike)) else bundles),
        threads=threads,
        warmup=warmup,
        duration=duration,
        iterations=iterations,
        rounds=rounds,
        scenario=scenario,
        fps=fps,
        streams=streams,
        batched=batched,
        source=None if source is None else fspath(source),
        box=None if box is None else ",".join(map(str, box)),
        precision_hint=precision_hint,
        reference=None if reference is None else fspath(reference),
        no_reference=no_reference,
        attainable=attainable,
        timeout=timeout,
        output=_path(output),
        overwrite=overwrite,
    )
    return bench_here(request, _here(device, here), progress, lambda line: progress(line, 0, 0))


def evaluate(
    bundle: AnyPath,
    dataset: AnyPath,
    *,
    jobs: int = 1,
    threads: int | None = None,
    layout: str | None = None,
    sequences: Sequence[str] | None = None,
    frames: int | None = None,
    device: str = "cpu",
    here: bool = False,
    precision_hint: str | None = None,
    output: AnyPath | None = None,
    restart: bool = False,
    results: tuple[str, AnyPath] | None = None,
    anchors: int | None = None,
    anchor_length: int | None = None,
    fps: float | None = None,
    latencies: str | None = None,
    text: Sequence[str] = (),
    text_noise: str | None = None,
    recover: bool = False,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> EvalRecord:
    """Track every sequence of a data set from its first box: AO, SR, AUC, precision and their intervals.

    Finished sequences are kept under `out/eval`; the same call resumes after an interruption.

    Args:
        bundle: a path or name, with `@HINT` and `@DEVICE` as for `bench`.
        dataset: a folder, a video with its boxes in a .txt beside it, or `synthetic:[NAME]`.
        jobs: sequences to run at a time, each in its own process.
        threads: per inference. Default: the usable cores, shared among the jobs.
        layout: how the data set is laid out. Default: recognized from its files.
        sequences: use only these.
        frames: use at most this many frames of each sequence.
        device: see `bench`.
        here: see `bench`.
        precision_hint: arithmetic to ask the backend for.
        output: a folder for runs and record, or a `.json` file for the record alone.
        restart: start again instead of resuming.
        results: `got10k` or `trackingnet`, and a folder for files for that server.
        anchors: also restart the tracker every so many frames and run it forwards and backwards.
        anchor_length: frames of an anchored run. Default with `anchors`: 50.
        fps: also track frames that arrive at this rate.
        latencies: for `fps`: `FILE[:BUNDLE]` of a bench record to replay.
        text: description of every target. Default: each sequence's own.
        text_noise: say something wrong: `swap`, `drop` or `shuffle`, with `:SEED`.
        recover: search for a target that is lost; the bundle must be calibrated.
        scheduler: track on the workers of a Dask scheduler, `tcp://HOST:8786`.
        progress: is told each sequence, its number and how many there are.

    Returns:
        One result. A sequence that could not be tracked is one of its `failures`.

    Raises:
        DatasetError: the data set cannot be read.
        BundleError: the bundle cannot be opened.
        UsageError, BackendMissingError, DeviceUnavailableError: as for `bench`.
    """
    from edgetrack.evaluation.results import EvalRecord
    from edgetrack.evaluation.run import evaluate as run
    from edgetrack.evaluation.submission import write_results
    from edgetrack.requests.evaluation import eval_work

    work = eval_work(
        fspath(bundle),
        fspath(dataset),
        _here(device, here),
        jobs=jobs,
        threads=threads,
        layout=layout,
        sequences=sequences,
        frames=frames,
        precision_hint=precision_hint,
        output=_path(output),
        restart=restart,
        results=None if results is None else (results[0], Path(results[1])),
        anchors=anchors,
        anchor_length=anchor_length,
        fps=fps,
        latencies=latencies,
        text=text,
        text_noise=text_noise,
        recover=recover,
        scheduler=scheduler,
    )
    found = run(work.ref, work.config, progress)
    if results is not None:
        write_results(results[0], Path(results[1]), found.result.bundle, found.runs)
    record = EvalRecord(results=[found.result])
    if work.file is not None:
        write_whole(work.file, encode_json(record), b"\n")
    return record


def compare(
    a: AnyPath,
    b: AnyPath,
    *,
    dataset: AnyPath,
    layout: str | None = None,
    sequences: Sequence[str] | None = None,
    frames: int | None = None,
    anchors: int = ANCHOR_SPACING,
    anchor_length: int = ANCHOR_LENGTH,
    margin: float = 0.5,
    jobs: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    here: bool = False,
    output: AnyPath | None = None,
    restart: bool = False,
    progress: Progress = no_progress,
) -> CompareRecord:
    """Compare bundle B with A: how far their boxes diverge, the error on the same crops, and AO with a verdict.

    Finished sequences, also those of `evaluate`, are taken from where they are kept.

    Args:
        a: a path or name, with `@HINT` and `@DEVICE` as for `bench`.
        b: the bundle that is compared with it.
        dataset: as `evaluate` takes it.
        layout: how the data set is laid out. Default: recognized from its files.
        sequences: use only these.
        frames: use at most this many frames of each sequence.
        anchors: frames between the starts of anchored runs.
        anchor_length: frames of an anchored run.
        margin: points of AO that count as equal.
        jobs: sequences to run at a time, each in its own process.
        threads: per inference. Default: the usable cores, shared among the jobs.
        device: see `bench`.
        here: see `bench`.
        output: a folder for runs and record, or a `.json` file for the record alone.
        restart: start again instead of resuming.
        progress: is told each sequence, its number and how many there are.

    Returns:
        `delta_ao` is B minus A with its interval, and says whether B is `equal` and `not_worse`; None where there are
        too few anchored runs to say.

    Raises:
        DatasetError, BundleError, UsageError, BackendMissingError, DeviceUnavailableError: as for `evaluate`.
    """
    from edgetrack.evaluation.comparison import compare as run
    from edgetrack.requests.evaluation import compare_config

    folder, file = folder_or_file(_path(output))
    config = compare_config(
        fspath(a),
        fspath(b),
        _here(device, here),
        dataset=fspath(dataset),
        layout=layout,
        sequences=sequences,
        frames=frames,
        anchors=anchors,
        anchor_length=anchor_length,
        margin=margin,
        jobs=jobs,
        threads=threads,
        output=folder,
        restart=restart,
    )
    found = run(config, progress)
    if file is not None:
        write_whole(file, encode_json(found), b"\n")
    return found


def _here(device: str, here: bool) -> DeviceChoice:
    from edgetrack.benchmark.run import this_machine
    from edgetrack.devices.profiles import choose_device

    choice = choose_device(device, None, this_machine, here=here)
    if choice.host is not None:
        raise UsageError(f"{device} is another machine, {choice.host.label}; use the command line's --device {device}")
    return choice


def _path(given: AnyPath | None) -> Path | None:
    return None if given is None else Path(given)


def _texts(given: Sequence[AnyPath]) -> list[str]:
    if isinstance(given, (str, PathLike)):
        raise UsageError(f"{fspath(given)!r}: expected a list; write [{fspath(given)!r}]")
    return [fspath(one) for one in given]
