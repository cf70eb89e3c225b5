"""A benchmark on a device over SSH: check the device, send missing files, measure, fetch the record, clean up."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgetrack.benchmark.config import BenchRequest
from edgetrack.benchmark.record import BenchRecord
from edgetrack.bundle.integrity import MANIFEST_FILE
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.reader import open_bundle
from edgetrack.capabilities import open_ref
from edgetrack.decoding import decode_json
from edgetrack.devices import protocol
from edgetrack.devices.profiles import DeviceChoice, Host, Profile
from edgetrack.devices.protocol import BenchDone, BenchJob, BenchLog, ExpectedReply, Refused, SentBundle
from edgetrack.devices.ssh import RemoteProcess, connected, translated
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UsageError, WorkerError
from edgetrack.io import encode_line, sha256, write_whole
from edgetrack.presentation.sanitize import printable, printable_data
from edgetrack.processes import error_by_name, module_arguments
from edgetrack.system.machine import MachineRecord

_DOCTOR = module_arguments("edgetrack", "doctor", "--json")
_AGENT = module_arguments("edgetrack.devices.agent")
_DOCTOR_S = 120.0
_STEP_S = 300.0
"""Longest wait for an answer that needs no measuring; hashing some GB on a slow card takes minutes."""
LARGEST_RECORD = 512 << 20
_LAST_LINES = 5
_LONGEST_LOG_LINE = 2000
_ERRORS = {2: UsageError, 3: BackendMissingError, 4: DeviceUnavailableError}


class DoctorTarget(msgspec.Struct, frozen=True):
    """A row of `edgetrack doctor --json`."""

    target: str
    installed: bool
    install: str
    problem: str | None = None


class Doctor(msgspec.Struct, frozen=True):
    """What `edgetrack doctor --json` prints."""

    machine: MachineRecord
    targets: list[DoctorTarget]


@dataclass(frozen=True)
class DeviceJob:
    """What is to be measured.

    Attributes:
        request: as it is sent.
        targets: what the bundles need on the device.
        sources: where each file lies here, by hash.
    """

    request: BenchJob
    targets: set[str]
    sources: dict[str, Path]

    @property
    def files(self) -> list[FileInfo]:
        """All files, each hash once."""
        reference = self.request.reference
        every = [*self.request.bundles, *([reference] if reference else [])]
        return list({info.sha256: info for bundle in every for info in bundle.files.values()}.values())


@dataclass(frozen=True)
class DeviceResult:
    """What came back: the record, and every line that the benchmark printed there."""

    record: BenchRecord
    log: list[str]


@contextmanager
def prepared(request: BenchRequest, profile: Profile) -> Iterator[DeviceJob]:
    """Open and check the bundles here; zips stay unpacked as long as the job is needed.

    Raises:
        UsageError: no bundle, two of one name, or one that the device cannot run; frames that are here alone.
        EdgetrackError: a bundle that cannot be opened.
    """
    options = arguments(request, profile.name)
    if not request.bundles:
        raise UsageError("name the bundles that are to be measured on the device: edgetrack bench BUNDLE --device ...")
    with ExitStack() as stack:
        sources: dict[str, Path] = {}
        targets: set[str] = set()
        files_by_name: dict[str, dict[str, FileInfo]] = {}

        def sent(path: str | Path, hint: str | None) -> SentBundle:
            bundle = stack.enter_context(open_bundle(path))
            files, manifest = dict(bundle.manifest.files), (bundle.folder / MANIFEST_FILE).read_bytes()
            files[MANIFEST_FILE] = FileInfo(size=len(manifest), sha256=sha256(manifest))
            sources.update({info.sha256: bundle.folder / name for name, info in files.items()})
            targets.add(bundle.manifest.target)
            return SentBundle(bundle.manifest.name, hint, files)

        named = [open_ref(text) for text in request.bundles]
        profile.place(one.manifest for one in named)
        bundles = [sent(one.path, one.hint) for one in named]
        # One folder there serves a bundle with any hint; two bundles of one name would overwrite each other.
        if any(files_by_name.setdefault(bundle.name, bundle.files) != bundle.files for bundle in bundles):
            raise UsageError("two different bundles have one name; rename one by exporting it with another --output")
        reference = sent(request.reference, None) if request.reference is not None else None
        yield DeviceJob(BenchJob(bundles, reference, options), targets, sources)


def arguments(request: BenchRequest, profile: str) -> list[str]:
    """Arguments of `edgetrack bench` on the device, without its bundles, reference and output.

    Args:
        request: what was asked for; its device is replaced by the profile.
        profile: the profile that the device is to take for its own.

    Raises:
        UsageError: frames that are on this machine alone.
    """
    if not request.source.startswith("synthetic:"):
        raise UsageError(
            f"--source {request.source}: over SSH only built-in scenes are measured on, such as synthetic:drift; to "
            "use a video, copy it to the device and run edgetrack bench there"
        )
    config = request.config
    given: dict[str, object] = {
        "--device": profile,
        "--scenario": config.scenario,
        "--fps": config.fps,
        "--streams": config.streams or None,
        "--threads": config.threads or None,
        "--warmup": config.warmup_s,
        "--duration": f"{config.duration_s:.9f}".rstrip("0").rstrip("."),
        "--iterations": config.iterations,
        "--rounds": config.rounds or None,
        "--source": request.source,
        "--box": None if request.box is None else ",".join(repr(float(value)) for value in request.box),
        "--precision-hint": request.hint,
        "--timeout": request.timeout_s,
    }
    # `=` keeps a value that begins with a dash from being taken for an option.
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*words, "--here", *([] if request.with_reference else ["--no-reference"])]


def measure_there(choice: DeviceChoice, job: DeviceJob, notify: Callable[[str], None]) -> DeviceResult:
    """Run a job on the chosen host.

    Raises:
        DeviceUnavailableError: it cannot be reached, or the connection was lost; nothing is left half-done here.
        BackendMissingError: edgetrack, or a target's package, is not installed there.
        EdgetrackError: what went wrong there, of the same class.
    """
    if choice.host is None or choice.profile is None:
        raise UsageError("no host was chosen; give --host USER@HOST")
    return asyncio.run(_measure(choice.host, choice.profile, job, notify))


def save(outcome: DeviceResult, path: Path) -> None:
    """Write the record, and the benchmark's words beside it as `.log`; each whole or not at all.

    Raises:
        EdgetrackError: one cannot be written.
    """
    write_whole(path.with_name(f"{path.name}.log"), "".join(f"{line}\n" for line in outcome.log).encode())
    write_whole(path, outcome.record.to_json())


async def _measure(host: Host, profile: Profile, job: DeviceJob, notify: Callable[[str], None]) -> DeviceResult:
    python = host.python or profile.python
    async with connected(host) as connection:
        notify(f"{host.label}: connected")
        with translated(host, "looking at the device"):
            doctor = await RemoteProcess.start(host, connection, (python, *_DOCTOR))
            code, output = await asyncio.wait_for(doctor.result(), _DOCTOR_S)
        if code != 0:
            words = await doctor.last_words() or "it said nothing"
            raise BackendMissingError(
                f"{host.label}: edgetrack does not run there with {python!r}: {words}; install it on the device "
                "(pip install edgetrack with the target's extra and `headless`), and name that Python in devices.toml"
            )
        _check_device(output, host, profile, job, notify)
        with translated(host, "starting"):
            session = _Session(host, await RemoteProcess.start(host, connection, (python, *_AGENT)), notify)
        beats = asyncio.create_task(session.beat())
        try:
            with translated(host, "measuring", running=True):
                return await session.run(connection, job)
        finally:
            beats.cancel()
            with suppress(asyncio.CancelledError):
                await beats


def _check_device(output: bytes, host: Host, profile: Profile, job: DeviceJob, notify: Callable[[str], None]) -> None:
    """Check by the output of `edgetrack doctor --json` that the targets can run and that the profile fits."""
    doctor = decode_json(
        output,
        Doctor,
        lambda words: WorkerError(f"{host.label}: edgetrack doctor there answered in another form: {printable(words)}"),
    )
    for row in doctor.targets:
        if row.target in job.targets and not row.installed:
            raise BackendMissingError(
                f"{host.label}: {row.target} is not installed there; type there: {printable(row.install)}"
            )
        if row.target in job.targets and row.problem is not None:
            raise BackendMissingError(f"{host.label}: {row.target} cannot be imported there: {printable(row.problem)}")
    if not profile.fits(doctor.machine):
        board = doctor.machine.device_model or doctor.machine.cpu_model or doctor.machine.architecture
        notify(f"{host.label} is {printable(board)}, which the profile {profile.name} does not describe")


class _Session:
    """The agent on the other side."""

    def __init__(self, host: Host, process: RemoteProcess, notify: Callable[[str], None]) -> None:
        self._host = host
        self._process = process
        self._notify = notify
        self._log: list[str] = []

    async def beat(self) -> None:
        """Send signs of life until it is cancelled."""
        while True:
            await asyncio.sleep(protocol.BEAT_S)
            self._say(protocol.Beat())

    async def run(self, connection: Any, job: DeviceJob) -> DeviceResult:
        """From greeting to cleaning up."""
        ready = await asyncio.wait_for(self._hear(protocol.AgentReady), _STEP_S)
        if ready.protocol != protocol.PROTOCOL:
            raise EdgetrackError(
                f"edgetrack {printable(ready.version)} on {self._host.label} speaks protocol {ready.protocol}, this "
                f"one {protocol.PROTOCOL}; install the same version on both sides"
            )
        self._say(protocol.NeededFiles(job.files))
        missing = await asyncio.wait_for(self._hear(protocol.MissingFiles), _STEP_S)
        async with connection.start_sftp_client() as sftp:
            await self._upload(sftp, ready.incoming, job, missing.sha256)
            self._say(job.request)
            done = await self._hear(BenchDone)
            record = await asyncio.wait_for(self._fetch(sftp, done), _STEP_S)
        self._say(protocol.Clean())
        await asyncio.wait_for(self._process.wait(), _STEP_S)
        return DeviceResult(record, self._log)

    async def _upload(self, sftp: Any, incoming: str, job: DeviceJob, missing: Sequence[str]) -> None:
        wanted = sorted(job.sources.keys() & set(missing))
        if wanted:
            size = sum(job.sources[name].stat().st_size for name in wanted)
            self._notify(f"{self._host.label}: sending {len(wanted)} of {len(job.files)} files, {size / 1e6:.1f} MB")
        for name in wanted:
            target = f"{incoming}/{name}"
            with translated(self._host, f"sending {job.sources[name].name}", running=True):
                try:
                    await sftp.put(str(job.sources[name]), target)
                except BaseException:
                    with suppress(Exception):
                        await asyncio.wait_for(sftp.remove(target), protocol.BEAT_S)
                    raise

    async def _fetch(self, sftp: Any, done: BenchDone) -> BenchRecord:
        label = self._host.label
        if done.record is None or done.info is None:
            words = "; ".join(self._log[-_LAST_LINES:]) or "it said nothing"
            raise _ERRORS.get(done.code, WorkerError)(f"on {label}: {words}")
        if done.info.size > LARGEST_RECORD:
            raise WorkerError(f"{label}: a record of {done.info.size} bytes is no benchmark's")
        found = await sftp.lstat(done.record)
        # Opening a FIFO, or a device that never ends, would wait for as long as it likes.
        if found.permissions is None or not stat.S_ISREG(found.permissions) or found.size != done.info.size:
            raise WorkerError(f"{label}: what it names as its record is not a file of {done.info.size} bytes")
        async with sftp.open(done.record, "rb") as file:
            data = await file.read(done.info.size)
        if sha256(data) != done.info.sha256:
            raise WorkerError(f"{label}: the record was changed on its way here; type the same command again")
        return read_record(data, f"what {label} sent")

    def _say(self, message: protocol.AgentRequest) -> None:
        self._process.write(encode_line(message))

    async def _hear(self, expect: type[ExpectedReply]) -> ExpectedReply:
        """The next answer that is not a line of the benchmark's."""
        while True:
            line = await self._process.line()
            if not line.endswith(b"\n"):
                words = await self._process.last_words()
                raise EOFError("the connection was lost" + (f" ({words})" if words else ""))
            reply = protocol.decode_reply(line)
            if isinstance(reply, BenchLog):
                text = printable(reply.line, _LONGEST_LOG_LINE)
                self._log.append(text)
                self._notify(f"{self._host.label}: {text}")
            elif isinstance(reply, Refused):
                raise error_by_name(printable(reply.error), f"{self._host.label}: {printable(reply.message)}")
            elif isinstance(reply, expect):
                return reply
            else:
                raise WorkerError(f"{self._host.label} answered {type(reply).__name__} out of turn")


def read_record(data: bytes, source: str) -> BenchRecord:
    """The record that a device sent, with texts that can be shown here.

    Raises:
        EdgetrackError: it is none.
    """
    try:
        plain = printable_data(decode_json(data, Any, EdgetrackError))
    except (EdgetrackError, RecursionError) as error:
        raise EdgetrackError(f"{source} is not a benchmark's record: {error}") from None
    return BenchRecord.from_json(msgspec.json.encode(plain), source=source)
