"""Every error that edgetrack raises on purpose, as one tree.

    EdgetrackError                    exit code 1: a check failed, or a file is not what it should be
      UsageError                 2    what was asked for cannot be done as asked
        UnknownNameError              a tracker, target, scene or sequence that does not exist
        InvalidBoxError               a box that is not four finite numbers with a positive size in the frame
        InvalidFrameError             an image that no tracker can take
        InvalidTextError              a description of the target that cannot be read
        RecipeError                   a recipe that does not say what it must
        SourceError                   a video, folder or camera that cannot be opened
        DatasetError                  a data set that is not there or not laid out as any that is known
        CalibrationError              a calibration set that is not one, or does not fit its clips
      SourceInterruptedError     1    a video that ended early or holds an unreadable frame
      SequenceError              1    a sequence of a data set whose frames and boxes cannot be evaluated
      CheckpointError            1    a weights file that cannot be read
        UnsafeCheckpointError         ... because it asks to run code
        WeightsMismatchError          ... because its tensors are not the model's
      BundleError                1    a bundle that cannot be read
        BundleIntegrityError          ... because a file is missing, extra, changed or out of place
      ParityError                1    an exported graph does not compute what the model computes
      AccuracyError              1    a lower precision that costs more accuracy than was allowed
      NotSeparableError          1    scores that do not tell when a target is lost
      HubError                   1    a bundle that cannot be fetched or published
      NumericalError             1    a graph returned NaN or infinity
      WorkerError                1    a process that works for us died or broke its protocol
      BackendMissingError        3    a backend's package, or an extra, is not installed
      DeviceUnavailableError     4    the device that was asked for is not on this machine

Messages say what was given, what was expected and what to type next. `exit_code` is the command line's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

_MOST_NAMES = 20
_LONGEST_NAME = 80


class EdgetrackError(Exception):
    """Base of all errors that edgetrack raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(EdgetrackError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in its list: of a tracker, target, precision, scenario, budget, layout, scene, sequence ..."""

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str], more: str = "") -> UnknownNameError:
        """The error for `name`, with the nearest of the known names where one is near.

        Args:
            what: what the name stands for, such as "tracker".
            more: what to type to see or add names, as a clause: "`edgetrack list --scenes` shows them".
        """
        names = list(dict.fromkeys(known))
        if len(names) > _MOST_NAMES:
            expected = f"there are {len(names)}, such as {', '.join(names[:5])}"
        else:
            expected = f"expected one of: {', '.join(names)}" if names else "there is none"
        shown, end = name[:_LONGEST_NAME], f"; {more}" if more else ""
        return cls(f"{what} {shown!r} is not known{did_you_mean(shown, names)}; {expected}{end}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, as a part of a message; empty where none is near."""
    import difflib  # 10 ms that only a misspelt name pays

    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


class InvalidBoxError(UsageError):
    """A box that is not four finite numbers with a positive size that touches the frame."""


class InvalidTextError(UsageError):
    """A description of the target that no tracker, or not this one, can read."""


class InvalidFrameError(UsageError):
    """An image that no tracker can take."""


class RecipeError(UsageError):
    """A recipe that does not say what it must."""


class SourceError(UsageError):
    """A video, folder, glob or camera that cannot be opened."""


class DatasetError(UsageError):
    """A data set that is not there, or not laid out as any that is known."""


class CalibrationError(UsageError):
    """A calibration set that is not one, or that does not fit its clips."""


class SourceInterruptedError(EdgetrackError):
    """A video that ended before its stated length, or a frame that cannot be decoded."""


class SequenceError(EdgetrackError):
    """A sequence of a data set whose frames and boxes are missing, corrupt or do not fit each other."""


class CheckpointError(EdgetrackError):
    """A weights file that cannot be read."""


class UnsafeCheckpointError(CheckpointError):
    """A weights file that asks to run code while it is read; nothing of it was run."""


class WeightsMismatchError(CheckpointError):
    """A weights file whose tensors are not those of the model."""


class BundleError(EdgetrackError):
    """A bundle that cannot be read."""


class BundleIntegrityError(BundleError):
    """A bundle with a file that is missing, extra, changed or outside its folder."""


class ParityError(EdgetrackError):
    """An exported graph does not compute what the model computes."""


class AccuracyError(EdgetrackError):
    """A lower precision costs more accuracy than was allowed."""


class NotSeparableError(EdgetrackError):
    """Scores of frames on and off target that no threshold tells apart."""


class HubError(EdgetrackError):
    """A bundle that cannot be fetched from, or published at, the address that was given."""


class NumericalError(EdgetrackError):
    """A graph returned NaN or infinity."""


class WorkerError(EdgetrackError):
    """A process that works for us died, hung or broke its protocol."""


class BackendMissingError(EdgetrackError):
    """The package of a backend, or an extra, is not installed."""

    exit_code = 3


class DeviceUnavailableError(EdgetrackError):
    """The device that was asked for is not on this machine."""

    exit_code = 4
