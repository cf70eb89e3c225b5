"""What a job takes to the device: bundles, data sets, clips and records, as files by hash and the words that name them.

On the device they lie in the job's folder, in which the verb runs, so the words are paths in it: as they were typed
where that is possible, so that results name the same source as here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from edgetrack.bundle.integrity import MANIFEST_FILE
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.reader import BundleRef, bundle_label, open_bundle
from edgetrack.devices.protocol import KEPT, RESULTS
from edgetrack.errors import UsageError
from edgetrack.evaluation.datasets import SYNTHETIC, Dataset
from edgetrack.evaluation.datasets.clip import ClipFiles
from edgetrack.io import encode_json, readable, sha256
from edgetrack.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, open_source
from edgetrack.media.folders import GROUND_TRUTH_NAMES, IMAGE_FOLDERS, is_pattern
from edgetrack.media.live import parse_address
from edgetrack.presentation.progress import Progress, no_progress

_ANNOTATIONS = frozenset((".txt", ".label", ".ini", ".tag", ".m", ".csv", ".value"))


class JobInputs:
    """The files of a job; a context manager, since a zipped bundle stays unpacked until all is sent.

    Args:
        progress: is told which file is hashed.

    Attributes:
        placed: each file's place in the job's folder, with its size and hash.
        sources: where each file lies here, by hash.
        targets: what the bundles need on the device.
    """

    def __init__(self, progress: Progress = no_progress) -> None:
        self.placed: dict[str, FileInfo] = {}
        self.sources: dict[str, Path] = {}
        self.targets: set[str] = set()
        self._progress = progress
        self._stack = ExitStack()
        self._bundles: dict[Path, str] = {}
        self._owned: set[str] = set()

    def __enter__(self) -> JobInputs:
        return self

    def __exit__(self, *what: object) -> None:
        self._stack.close()

    @property
    def data(self) -> str:
        """A hash of all but the bundles: what jobs on the same data have in common."""
        rest = sorted((place, info.sha256) for place, info in self.placed.items() if place not in self._owned)
        return hashlib.sha256(encode_json(rest)).hexdigest()

    def bundle(self, ref: BundleRef) -> str:
        """A bundle with its hint and its device, where it has them.

        Raises:
            EdgetrackError: it cannot be opened.
        """
        if ref.path not in self._bundles:
            bundle = self._stack.enter_context(open_bundle(ref.path))
            place = self._free(bundle.manifest.name)
            files, manifest = dict(bundle.manifest.files), (bundle.folder / MANIFEST_FILE).read_bytes()
            files[MANIFEST_FILE] = FileInfo(size=len(manifest), sha256=sha256(manifest))
            for name, info in files.items():
                self._put(f"{place}/{name}", bundle.folder / name, info)
                self._owned.add(f"{place}/{name}")
            self.targets.add(bundle.manifest.target)
            self._bundles[ref.path] = place
        return bundle_label(bundle_label(self._bundles[ref.path], ref.hint), ref.device)

    def file(self, path: Path) -> str:
        """A single file.

        Raises:
            OSError: it cannot be read.
        """
        place = self._free(path.name)
        self._add(place, path)
        return place

    def dataset(self, dataset: Dataset, whole: Dataset) -> str:
        """The sequences of a data set; scenes are on every device.

        Args:
            dataset: those that are wanted.
            whole: all sequences of that data set: what belongs to others of them is not sent.

        Raises:
            OSError: a file cannot be read.
        """
        if dataset.where.startswith(SYNTHETIC):
            return dataset.where
        root = Path(dataset.where)
        if root.is_file():
            place = self._free(root.stem)
            self._all(place, root.parent, [root, *_existing([root.with_suffix(".txt")])])
            return f"{place}/{root.name}"
        place = self._free(root.name or "data")
        self._all(place, root, _dataset_files(root, dataset, whole))
        return place

    def source(self, spec: str) -> str:
        """A clip; scenes are on every device, and a camera, stream or pipeline is the device's own.

        Raises:
            UsageError: it cannot be opened.
            OSError: a file cannot be read.
        """
        if spec.startswith(SYNTHETIC) or parse_address(spec) is not None:
            return spec
        with open_source(spec):  # what is wrong with it is said before anything is sent
            pass
        path = Path(spec).expanduser()
        if path.is_file():
            root, files = path.parent, [path]
        elif path.is_dir():
            root = path.parent if path.name in IMAGE_FOLDERS else path
            files = _sequence_files(root)
        else:
            fixed = next(index for index, part in enumerate(path.parts) if is_pattern(part))
            root = Path(*path.parts[:fixed])
            files = list(root.glob(str(Path(*path.parts[fixed:]))))
            root = root.parent if root.name in IMAGE_FOLDERS else root
            folders = dict.fromkeys((root, *(path.parent for path in files)))
            files += _existing(folder / name for folder in folders for name in GROUND_TRUTH_NAMES)
        place = _typed(root)
        self._all(place, root, files)
        return str(PurePosixPath(place, path.relative_to(root).as_posix()))

    def _all(self, place: str, root: Path, files: Iterable[Path]) -> None:
        for path in files:
            self._add(str(PurePosixPath(place, path.relative_to(root).as_posix())), path)

    def _add(self, place: str, path: Path) -> None:
        self._progress(f"hashing {readable(path.name)}", len(self.placed) + 1, 0)
        self._put(place, path, FileInfo(size=path.stat().st_size, sha256=sha256(path)))

    def _put(self, place: str, path: Path, info: FileInfo) -> None:
        if not place.isprintable():
            raise UsageError(
                f"{readable(place)!r} cannot be sent to a device: its name has control characters; rename it"
            )
        if self.placed.setdefault(place, info) != info:
            raise UsageError(f"two files are both called {place}; rename one of them, or give them from one folder")
        self.sources.setdefault(info.sha256, path)

    def _free(self, name: str) -> str:
        """A name at the top of the job's folder that nothing else has."""
        taken = {place.partition("/")[0] for place in self.placed} | {KEPT, RESULTS}
        names = (name, *(f"{number}-{name}" for number in range(2, len(taken) + 3)))
        return next(one for one in names if one not in taken)


def _typed(folder: Path) -> str:
    """A folder's place as it was typed, or its name where that leads outside."""
    clean = not folder.is_absolute() and ".." not in folder.parts and (folder.parts or (".",))[0] not in (KEPT, RESULTS)
    return folder.as_posix() if clean else (folder.resolve().name or "source")


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _sequence_files(root: Path) -> list[Path]:
    """What `open_source` may read of a sequence's folder: images there or below, and their boxes."""
    folders = [root, *(root / name for name in IMAGE_FOLDERS if (root / name).is_dir())]
    wanted = (path for folder in folders for path in sorted(folder.iterdir()))
    return _existing(p for p in wanted if p.suffix.lower() in IMAGE_SUFFIXES or p.name in GROUND_TRUTH_NAMES)


def _dataset_files(root: Path, dataset: Dataset, whole: Dataset) -> Iterator[Path]:
    """Images, videos and annotations below a folder, but those in the folders of sequences that are not wanted."""
    wanted = {place for entry in dataset.entries for place in _places(entry)}
    others = {place for entry in whole.entries for place in _places(entry)} - wanted
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES | _ANNOTATIONS
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads upwards
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        if real in others:
            continue
        paths = (Path(folder, name) for name in sorted(files) if not name.startswith("."))
        yield from (path for path in paths if path.suffix.lower() in suffixes and os.path.realpath(path) not in others)


def _places(entry: ClipFiles) -> list[str]:
    """Where a sequence's frames really are: folders, or video files."""
    return [os.path.realpath(one) for one in (entry.frames, *([entry.second.frames] if entry.second else []))]
