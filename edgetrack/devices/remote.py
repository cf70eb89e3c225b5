"""A benchmark on a device over SSH: look at it, send what is missing, measure, fetch, clean up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgetrack.benchmark.config import BenchRequest
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import BenchRecord
from edgetrack.bundle.integrity import MANIFEST_FILE
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.reader import open_bundle
from edgetrack.capabilities import open_ref
from edgetrack.devices import protocol
from edgetrack.devices.profiles import DeviceChoice, Host, Profile
from edgetrack.devices.protocol import (
    AgentReady,
    Beat,
    BenchDone,
    BenchJob,
    BenchLog,
    Clean,
    ExpectedReply,
    MissingFiles,
    NeededFiles,
    Refused,
    SentBundle,
)
from edgetrack.devices.ssh import command_line, connected, translated
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UsageError, WorkerError
from edgetrack.io import encode_line, sha256, write_whole
from edgetrack.presentation.sanitize import printable, printable_data
from edgetrack.processes import error_by_name

DOCTOR = ("-m", "edgetrack", "doctor", "--json")
AGENT = ("-m", "edgetrack.devices.agent")
_DOCTOR_S = 120.0
_STEP_S = 300.0
"""Longest wait for an answer that needs no measuring; hashing some GB on a slow card takes minutes."""
_LARGEST_RECORD = 512 << 20
_LAST_WORDS = 5
_ERRORS = {2: UsageError, 3: BackendMissingError, 4: DeviceUnavailableError}


class DoctorTarget(msgspec.Struct, frozen=True):
    """A row of `edgetrack doctor --json`."""

    target: str
    installed: bool
    install: str


class Doctor(msgspec.Struct, frozen=True):
    """What `edgetrack doctor --json` prints."""

    machine: MachineRecord
    targets: list[DoctorTarget]


@dataclass(frozen=True)
class DeviceJob:
    """What is to be measured.

    Attributes:
        bundles, reference: as they are sent.
        targets: what the bundles need on the device.
        sources: where each file lies here, by hash.
        options: arguments of `edgetrack bench` there.
    """

    bundles: list[SentBundle]
    reference: SentBundle | None
    targets: set[str]
    sources: dict[str, Path]
    options: list[str]

    @property
    def files(self) -> list[FileInfo]:
        """All files, each hash once."""
        every = [*self.bundles, *([self.reference] if self.reference else [])]
        return list({info.sha256: info for bundle in every for info in bundle.files.values()}.values())


@dataclass
class DeviceResult:
    """What came back: the record, and every line that the benchmark said there."""

    record: BenchRecord
    log: list[str] = field(default_factory=list)


@contextmanager
def prepared(
    bundles: Sequence[str], reference: str | None, profile: Profile, options: Sequence[str]
) -> Iterator[DeviceJob]:
    """Open and check the bundles here; zips stay unpacked as long as the job is needed.

    Raises:
        UsageError: no bundle, two of one name, or one that the device cannot run.
        EdgetrackError: a bundle that cannot be opened.
    """
    if not bundles:
        raise UsageError("name the bundles that are to be measured on the device: edgetrack bench BUNDLE --device ...")
    with ExitStack() as stack:
        sources: dict[str, Path] = {}

        def sent(path: str | Path, hint: str | None) -> tuple[SentBundle, Any]:
            bundle = stack.enter_context(open_bundle(path))
            files, manifest = dict(bundle.manifest.files), (bundle.folder / MANIFEST_FILE).read_bytes()
            files[MANIFEST_FILE] = FileInfo(size=len(manifest), sha256=sha256(manifest))
            sources.update({info.sha256: bundle.folder / name for name, info in files.items()})
            return SentBundle(bundle.manifest.name, hint, files), bundle.manifest

        named = [open_ref(text) for text in bundles]
        profile.place(one.manifest for one in named)
        every = [sent(one.path, one.hint) for one in named]
        labels = [bundle.name for bundle, _ in every]
        if len(set(labels)) < len(labels):
            # One folder there serves a bundle with any hint; two bundles of one name would overwrite each other.
            different = {bundle.name: bundle.files for bundle, _ in every}
            if any(different[bundle.name] != bundle.files for bundle, _ in every):
                raise UsageError(
                    "two different bundles have one name; rename one by exporting it with another --output"
                )
        held = sent(reference, None) if reference is not None else None
        yield DeviceJob(
            bundles=[bundle for bundle, _ in every],
            reference=held[0] if held else None,
            targets={manifest.target for _, manifest in (*every, *([held] if held else []))},
            sources=sources,
            options=list(options),
        )


def arguments(request: BenchRequest, profile: str) -> list[str]:
    """Arguments of `edgetrack bench` on the device, without its bundles, reference and output.

    Args:
        request: what was asked for; its device is replaced by the profile.
        profile: the device's profile, which the device is told to take itself for.

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
    async with connected(host) as connection:
        notify(f"{host.label}: connected")
        await _look(connection, host, profile, job, notify)
        with translated(host, "starting"):
            process = await connection.create_process(
                command_line([host.python or profile.python, *AGENT]), encoding=None
            )
        session = _Session(host, process, notify)
        beats = asyncio.create_task(session.beat())
        try:
            with translated(host, "measuring"):
                return await session.run(connection, job)
        finally:
            beats.cancel()
            with suppress(asyncio.CancelledError):
                await beats


async def _look(connection: Any, host: Host, profile: Profile, job: DeviceJob, notify: Callable[[str], None]) -> None:
    """Ask the device's doctor."""
    python = host.python or profile.python
    with translated(host, "looking at the device"):
        done = await asyncio.wait_for(connection.run(command_line([python, *DOCTOR])), _DOCTOR_S)
    if done.exit_status != 0:
        words = str(done.stderr).strip().splitlines() or ["it said nothing"]
        raise BackendMissingError(
            f"{host.label}: edgetrack does not run there with {python!r}: {printable(words[-1])}; install it on "
            "the device (pip install edgetrack and the extra of the target), and name that Python in devices.toml"
        )
    try:
        doctor = msgspec.json.decode(done.stdout, type=Doctor)
    except msgspec.MsgspecError as error:
        raise WorkerError(f"{host.label}: edgetrack doctor there answered in another form: {error}") from None
    for row in doctor.targets:
        if row.target in job.targets and not row.installed:
            raise BackendMissingError(f"{host.label}: {row.target} is not installed there; type there: {row.install}")
    if not profile.fits(doctor.machine):
        board = doctor.machine.device_model or doctor.machine.cpu_model or doctor.machine.architecture
        notify(f"{host.label} is {printable(board)}, which the profile {profile.name} does not describe")


class _Session:
    """The agent on the other side."""

    def __init__(self, host: Host, process: Any, notify: Callable[[str], None]) -> None:
        self._host = host
        self._process = process
        self._notify = notify
        self._log: list[str] = []

    async def beat(self) -> None:
        """Show for ever that we are there."""
        while True:
            await asyncio.sleep(protocol.BEAT_S)
            self._say(Beat())

    async def run(self, connection: Any, job: DeviceJob) -> DeviceResult:
        """From greeting to cleaning up."""
        ready = await asyncio.wait_for(self._hear(AgentReady), _STEP_S)
        if ready.protocol != protocol.PROTOCOL:
            raise EdgetrackError(
                f"edgetrack {ready.version} on {self._host.label} speaks protocol {ready.protocol}, this one "
                f"{protocol.PROTOCOL}; install the same version on both sides"
            )
        self._say(NeededFiles(job.files))
        missing = await asyncio.wait_for(self._hear(MissingFiles), _STEP_S)
        async with connection.start_sftp_client() as sftp:
            await self._upload(sftp, ready.incoming, job, missing.sha256)
            self._say(BenchJob(job.bundles, job.reference, job.options))
            done = await self._hear(BenchDone)
            record = await self._fetch(sftp, done)
        self._say(Clean())
        await asyncio.wait_for(self._process.wait_closed(), _STEP_S)
        return DeviceResult(record, self._log)

    async def _upload(self, sftp: Any, incoming: str, job: DeviceJob, missing: Sequence[str]) -> None:
        wanted = [name for name in missing if name in job.sources]
        if wanted:
            size = sum(job.sources[name].stat().st_size for name in wanted)
            self._notify(f"{self._host.label}: sending {len(wanted)} of {len(job.files)} files, {size / 1e6:.1f} MB")
        for name in wanted:
            target = f"{incoming}/{name}"
            with translated(self._host, f"sending {job.sources[name].name}"):
                try:
                    await sftp.put(str(job.sources[name]), target)
                except BaseException:
                    with suppress(Exception):
                        await asyncio.wait_for(sftp.remove(target), protocol.BEAT_S)
                    raise

    async def _fetch(self, sftp: Any, done: BenchDone) -> BenchRecord:
        if done.record is None or done.info is None:
            words = "; ".join(self._log[-_LAST_WORDS:]) or "it said nothing"
            raise _ERRORS.get(done.code, WorkerError)(f"on {self._host.label}: {words}")
        if done.info.size > _LARGEST_RECORD:
            raise WorkerError(f"{self._host.label}: a record of {done.info.size} bytes is no benchmark's")
        async with sftp.open(done.record, "rb") as file:
            data = await file.read(_LARGEST_RECORD)
        if sha256(data) != done.info.sha256:
            raise WorkerError(
                f"{self._host.label}: the record was changed on its way here; type the same command again"
            )
        return read_record(data, f"what {self._host.label} sent")

    def _say(self, message: protocol.AgentRequest) -> None:
        with suppress(OSError):
            self._process.stdin.write(encode_line(message))

    async def _hear(self, expect: type[ExpectedReply]) -> ExpectedReply:
        """The next answer that is not a line of the benchmark's."""
        while True:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError(await self._epitaph())
            reply = protocol.decode_reply(line)
            if isinstance(reply, BenchLog):
                text = printable(reply.line)
                self._log.append(text)
                self._notify(f"{self._host.label}: {text}")
            elif isinstance(reply, Refused):
                raise error_by_name(printable(reply.error), f"{self._host.label}: {printable(reply.message)}")
            elif isinstance(reply, expect):
                return reply
            else:
                raise WorkerError(f"{self._host.label} answered {type(reply).__name__} out of turn")

    async def _epitaph(self) -> str:
        """What the agent said last."""
        words = b""
        with suppress(Exception):
            words = await asyncio.wait_for(self._process.stderr.read(4096), protocol.BEAT_S)
        lines = words.decode("utf-8", "replace").strip().splitlines()
        return f"the connection was lost{f' ({printable(lines[-1])})' if lines else ''}"


def read_record(data: bytes, source: str) -> BenchRecord:
    """The record that a device sent, with texts that can be shown here.

    Raises:
        EdgetrackError: it is none.
    """
    try:
        plain = printable_data(msgspec.json.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EdgetrackError(f"{source} is not a benchmark's record: {error}") from None
    return BenchRecord.from_json(msgspec.json.encode(plain), source=source)
