"""Where `--device` leads, and the same command on another machine: one way for every verb."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgetrack.cli.options import given_words
from edgetrack.errors import DeviceUnavailableError, UsageError

if TYPE_CHECKING:
    from edgetrack.bundle.reader import BundleRef
    from edgetrack.devices.profiles import DeviceChoice
    from edgetrack.devices.protocol import DeviceVerb
    from edgetrack.devices.remote import DeviceResult
    from edgetrack.devices.transfer import JobOutput
    from edgetrack.evaluation.datasets import Dataset

_HERE_ONLY = ("host", "here", "as_json", "as_markdown", "output", "overwrite", "verbose", "quiet")
"""Options that say where to run and how to show it; the command on the device has its own."""
DEFAULT = "cpu"


def chosen_device(device: str | None, host: str | None, here: bool, *, asked_by: str = "") -> DeviceChoice:
    """Where to run.

    Args:
        device, host, here: as the options give them.
        asked_by: what names the device where the command does not, for messages.

    Raises:
        UsageError: the options exclude each other, or the device cannot be used so.
        DeviceUnavailableError: it is not this machine, and no host is known for it.
    """
    from edgetrack.benchmark.run import this_machine
    from edgetrack.devices.profiles import choose_device

    if host is not None and here:
        raise UsageError("--host and --here exclude each other; give one of them")
    try:
        return choose_device(device or DEFAULT, host, this_machine, here=here)
    except (DeviceUnavailableError, UsageError) as error:
        if not asked_by:
            raise
        raise type(error)(f"{asked_by} asks for the device {device}: {error}") from None


class DeviceCommand:
    """The command that was typed, on its way to a device; a context manager.

    Args:
        context: the command, with its options.
        choice: a host.
        verb: as the command line names it.

    Attributes:
        profile: the device's.
    """

    def __init__(self, context: typer.Context, choice: DeviceChoice, verb: DeviceVerb) -> None:
        from contextlib import ExitStack

        from edgetrack.cli.console import stderr
        from edgetrack.devices.inputs import JobInputs
        from edgetrack.devices.remote import DeviceListener
        from edgetrack.presentation.progress import shown_progress

        if choice.profile is None or choice.host is None:
            raise UsageError("--host goes with --device PROFILE")
        self._context, self._choice, self._verb = context, choice, verb
        self.profile = choice.profile
        self._words = {name: list[str]() for name in _HERE_ONLY}
        self._outputs: list[JobOutput] = []
        self._dataset = ""
        self.say("device", f"--device={choice.profile.name}", "--here")
        with ExitStack() as stack:
            console = stderr()
            progress = stack.enter_context(shown_progress(console))
            self._listener = DeviceListener(console.print, progress)
            self._inputs = stack.enter_context(JobInputs(progress))
            self._stack = stack.pop_all()

    def __enter__(self) -> DeviceCommand:
        return self

    def __exit__(self, *what: object) -> None:
        self._stack.close()

    def say(self, name: str, *words: str) -> None:
        """Give these words for a parameter, whatever was typed for it."""
        self._words[name] = list(words)

    def bundle(self, ref: BundleRef) -> str:
        """The name of a bundle there, with its hint and device.

        Raises:
            UsageError: the device does not run it.
            EdgetrackError: it cannot be opened.
        """
        self._choice.placed(ref)
        return self._inputs.bundle(ref)

    def file(self, path: str) -> str:
        """The name of a file there."""
        try:
            return self._inputs.file(Path(path))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None

    def dataset(self, dataset: Dataset, whole: Dataset) -> str:
        """A data set, as `--layout` and the name there say it; returns the name.

        Raises:
            UsageError: a file of it cannot be read.
        """
        from edgetrack.evaluation.datasets import SYNTHETIC, name_of

        try:
            word = self._inputs.dataset(dataset, whole)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror or error}") from None
        self._dataset = dataset.name if word.startswith(SYNTHETIC) else name_of(Path(word))
        # What is left out of it may be what its layout is known by.
        self.say("layout", *([] if word.startswith(SYNTHETIC) else [f"--layout={dataset.layout}"]))
        return word

    def source(self, spec: str) -> str:
        """The name of a clip there.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return self._inputs.source(spec)
        except OSError as error:
            raise UsageError(f"{spec} cannot be read: {error.strerror or error}") from None

    def writes(self, name: str, here: Path | None) -> None:
        """Let an option name a file that comes back to the place that was typed."""
        from edgetrack.devices.protocol import RESULTS

        if here is not None:
            there = f"{RESULTS}/{name}{here.suffix}"
            self.say(name, f"--{name}={there}")
            self.wants(there, here)

    def wants(self, there: str, here: Path, names: re.Pattern[str] | None = None) -> None:
        """Have a file brought back, or the files of a folder that have such names."""
        from edgetrack.devices.transfer import JobOutput

        self._outputs.append(JobOutput(there, here, names))

    def runs(self, ref: BundleRef, here: Path) -> None:
        """Have the runs of a bundle on the data set brought back to a folder."""
        from edgetrack.devices.protocol import KEPT
        from edgetrack.evaluation.execution.ledger import files_of, plain_name

        there = f"{KEPT}/eval/{ref.manifest.name}/{plain_name(self._dataset)}"
        self.wants(there, here, files_of(self.profile.name))

    def run(self, *further: str) -> DeviceResult:
        """Run it there.

        Args:
            further: options beside those that were typed.

        Raises:
            EdgetrackError: see `devices.remote.run_there`.
        """
        from edgetrack.devices.remote import DeviceJob, run_there

        job = DeviceJob(self._verb, [*further, *self._arguments()], self._inputs, self._outputs)
        try:
            return run_there(self._choice, job, self._listener)
        except KeyboardInterrupt:
            self._listener.notify(
                "interrupted; what ran on the device is ended, and what it has finished is kept there"
            )
            raise

    def _arguments(self) -> list[str]:
        options: list[str] = []
        arguments: list[str] = []
        given = given_words(self._context)
        for parameter in self._context.command.get_params(self._context):
            name = parameter.name or ""
            words = self._words.get(name)
            value = self._context.params.get(name)
            values = value if isinstance(value, tuple) else (value,)
            if words is None and name in given and any(isinstance(one, Path) for one in values):
                raise UsageError(f"--{name.replace('_', '-')} names a file of this machine; leave it out with a device")
            is_argument = parameter.param_type_name == "argument"
            (arguments if is_argument else options).extend(given.get(name, []) if words is None else words)
        return [*options, "--", *arguments]
