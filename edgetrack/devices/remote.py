"""A verb on a device over SSH: check the device, send missing files, run, fetch what it wrote, clean up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgetrack.decoding import decode_json
from edgetrack.devices import protocol
from edgetrack.devices.inputs import JobInputs
from edgetrack.devices.profiles import DeviceChoice, Host, Profile
from edgetrack.devices.protocol import ExpectedReply, Refused, VerbDone, VerbJob, VerbLog, VerbStep
from edgetrack.devices.ssh import RemoteProcess, connected, translated
from edgetrack.devices.transfer import JobOutput, fetch, keep, send
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, EdgetrackError, UsageError, WorkerError
from edgetrack.io import ScratchFolder, encode_line, read_bytes
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.presentation.sanitize import printable, printable_data
from edgetrack.processes import error_by_name, module_arguments
from edgetrack.system.machine import MachineRecord

_T = TypeVar("_T")
_DOCTOR = module_arguments("edgetrack", "doctor", "--json")
_AGENT = module_arguments("edgetrack.devices.agent")
_DOCTOR_S = 120.0
_STEP_S = 300.0
"""Longest wait for an answer that needs no work; hashing some GB on a slow card takes minutes."""
_LAST_LINES = 5
_SCHEMA = 1
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
    """What is to be run there.

    Attributes:
        verb: of edgetrack.
        arguments: its options and arguments, which name files as they lie in the job's folder.
        inputs: these files.
        outputs: what it may write on this machine.
    """

    verb: protocol.DeviceVerb
    arguments: Sequence[str]
    inputs: JobInputs
    outputs: Sequence[JobOutput] = ()


@dataclass(frozen=True)
class DeviceListener:
    """Who is told what happens: of lines for people, and of steps."""

    notify: Callable[[str], None] = lambda line: None
    progress: Progress = no_progress


@dataclass(frozen=True)
class DeviceResult:
    """What came back.

    Attributes:
        code: the verb's exit code.
        output: what it printed as its result.
        log: what it printed for people, and its steps, line by line.
        host: where it ran, for messages.
        written: the files that were written here.
    """

    code: int
    output: bytes
    log: list[str]
    host: str
    written: list[Path] = field(default_factory=list)

    def record(self, type_: type[_T]) -> _T:
        """The JSON that it printed, with texts that can be shown here.

        Raises:
            EdgetrackError: it printed none, for the reason that it gave, or one of another form.
        """
        if not self.output.strip():
            raise self._failure()
        return read_record(self.output, type_, f"what {self.host} sent")

    def check(self) -> None:
        """See that the verb ended well.

        Raises:
            EdgetrackError: it did not; the class has its exit code.
        """
        if self.code:
            raise self._failure()

    def _failure(self) -> EdgetrackError:
        words = "; ".join(self.log[-_LAST_LINES:]) or "it said nothing"
        return _ERRORS.get(self.code, WorkerError)(f"on {self.host}: {words}")

    def lines(self) -> list[str]:
        """What it printed, as lines that can be shown here."""
        return [printable(line) for line in self.output.decode("utf-8", "replace").splitlines()]


def read_record(data: bytes, type_: type[_T], source: str) -> _T:
    """A record that a device sent, with texts that can be shown here.

    Raises:
        EdgetrackError: it is none.
    """

    def refused(words: str) -> EdgetrackError:
        return EdgetrackError(f"{source} is not the expected record: {printable(words)}")

    plain = decode_json(data, Any, refused)
    if isinstance(plain, dict) and plain.get("schema", _SCHEMA) != _SCHEMA:
        raise refused(f"its schema is {str(plain['schema'])[:20]}, this version reads {_SCHEMA}")
    try:
        safe = msgspec.json.encode(printable_data(plain))
    except RecursionError:
        raise refused("it is nested too deeply") from None
    return decode_json(safe, type_, refused)


def run_there(choice: DeviceChoice, job: DeviceJob, listener: DeviceListener) -> DeviceResult:
    """Run a job on the chosen host; what it wrote is written here when all of it has come.

    Raises:
        DeviceUnavailableError: it cannot be reached, or the connection was lost; nothing is left half-done here.
        BackendMissingError: edgetrack, or a target's package, is not installed there.
        EdgetrackError: what went wrong there, of the same class.
    """
    if choice.host is None or choice.profile is None:
        raise UsageError("no host was chosen; give --host USER@HOST")
    return asyncio.run(_run(choice.host, choice.profile, job, listener))


async def _run(host: Host, profile: Profile, job: DeviceJob, listener: DeviceListener) -> DeviceResult:
    python = host.python or profile.python
    async with connected(host) as connection:
        listener.notify(f"{host.label}: connected")
        with translated(host, "looking at the device"):
            asked = [f"--target={target}" for target in sorted(job.inputs.targets)]
            doctor = await RemoteProcess.start(host, connection, (python, *_DOCTOR, *asked))
            code, output = await asyncio.wait_for(doctor.result(), _DOCTOR_S)
        if code != 0:
            words = await doctor.last_words() or "it said nothing"
            raise BackendMissingError(
                f"{host.label}: edgetrack does not run there with {python!r}: {words}; install it on the device "
                "(pip install edgetrack with the target's extra and `headless`), and name that Python in devices.toml"
            )
        _check_device(output, host, profile, job, listener.notify)
        with translated(host, "starting"):
            session = _Session(host, await RemoteProcess.start(host, connection, (python, *_AGENT)), listener)
        beats = asyncio.create_task(session.beat())
        try:
            with translated(host, job.verb, running=True):
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
        if row.target in job.inputs.targets and not row.installed:
            raise BackendMissingError(
                f"{host.label}: {row.target} is not installed there; type there: {printable(row.install)}"
            )
        if row.target in job.inputs.targets and row.problem is not None:
            raise BackendMissingError(f"{host.label}: {row.target} cannot be imported there: {printable(row.problem)}")
    if not profile.fits(doctor.machine):
        board = doctor.machine.device_model or doctor.machine.processor
        notify(f"{host.label} is {printable(board)}, which the profile {profile.name} does not describe")


class _Session:
    """The agent on the other side."""

    def __init__(self, host: Host, process: RemoteProcess, listener: DeviceListener) -> None:
        self._host = host
        self._process = process
        self._listener = listener
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
        async with connection.start_sftp_client() as sftp:
            await self._upload(sftp, ready.incoming, job.inputs)
            for part in _parts(job.inputs.placed.items()):
                self._say(protocol.PlacedFiles(job.inputs.data, dict(part)))
            result = JobOutput(protocol.OUTPUT, Path())
            wanted = [one.there for one in (result, *job.outputs)]
            self._say(VerbJob(job.verb, list(job.arguments), wanted))
            done = await self._hear(VerbDone)
            with ScratchFolder() as scratch:
                return await self._fetch(sftp, done, [result, *job.outputs], scratch)

    async def _upload(self, sftp: Any, incoming: str, inputs: JobInputs) -> None:
        infos = {info.sha256: info for info in inputs.placed.values()}
        missing: set[str] = set()
        free = 0
        for part in _parts(infos.values()):
            self._say(protocol.NeededFiles(part))
            reply = await asyncio.wait_for(self._hear(protocol.MissingFiles), _STEP_S)
            missing |= infos.keys() & set(reply.sha256)
            free = reply.free
        if not missing:
            return
        size = sum(infos[name].size for name in missing)
        what = f"sending {len(missing)} of {len(infos)} files, {size / 1e6:.1f} MB"
        if size > free:
            raise DeviceUnavailableError(
                f"{self._host.label}: {what}: its disk has {free / 1e6:.1f} MB free; make room there, or name fewer "
                "--sequences"
            )
        self._listener.notify(f"{self._host.label}: {what}")
        moved = self._counter(what, size)
        with translated(self._host, "sending files", running=True):
            await send(sftp, {name: inputs.sources[name] for name in sorted(missing)}, incoming, moved)

    async def _fetch(self, sftp: Any, done: VerbDone, outputs: Sequence[JobOutput], scratch: Path) -> DeviceResult:
        size = sum(info.size for info in done.files.values())
        moved = self._counter("fetching the results", size)
        fetched = await fetch(sftp, self._host.label, done, outputs, scratch, moved)
        self._say(protocol.Clean())
        await asyncio.wait_for(self._process.wait(), _STEP_S)
        printed = [one for one in fetched if one.here == Path()]
        output = read_bytes(printed[0].scratch) if printed else b""
        written = list(keep([one for one in fetched if one not in printed]))
        return DeviceResult(done.code, output, self._log, self._host.label, written)

    def _counter(self, what: str, size: int) -> Callable[[int], None]:
        """Tell the progress of `size` bytes, in MB."""
        done = 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            self._listener.progress(f"{self._host.label}: {what}", done // 1_000_000, size // 1_000_000)

        return moved

    def _say(self, message: protocol.AgentRequest) -> None:
        self._process.write(encode_line(message))

    async def _hear(self, expect: type[ExpectedReply]) -> ExpectedReply:
        """The next answer that is not a line or step of the verb's."""
        while True:
            line = await self._process.line()
            if not line.endswith(b"\n"):
                words = await self._process.last_words()
                raise EOFError("the connection was lost" + (f" ({words})" if words else ""))
            reply = protocol.decode_reply(line)
            if isinstance(reply, VerbLog):
                text = printable(reply.line, _LONGEST_LOG_LINE)
                self._log.append(text)
                self._listener.notify(f"{self._host.label}: {text}")
            elif isinstance(reply, VerbStep):
                what = printable(reply.what, _LONGEST_LOG_LINE)
                self._log.append(f"{reply.step}/{reply.total} {what}" if reply.total else what)
                self._listener.progress(f"{self._host.label}: {what}", reply.step, reply.total)
            elif isinstance(reply, Refused):
                raise error_by_name(printable(reply.error), f"{self._host.label}: {printable(reply.message)}")
            elif isinstance(reply, expect):
                return reply
            else:
                raise WorkerError(f"{self._host.label} answered {type(reply).__name__} out of turn")


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Lists that fit into a message."""
    rest = iter(items)
    while part := list(islice(rest, protocol.MOST_FILES)):
        yield part
