"""Opening a data set: which layout it has, and its sequences."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, get_args

from edgetrack.errors import DatasetError, UnknownNameError, UsageError, did_you_mean
from edgetrack.evaluation.datasets.clip import Clip, ClipFiles, ScoringRules, read_clip
from edgetrack.evaluation.datasets.layouts import LAYOUTS, Layout
from edgetrack.evaluation.datasets.pairs import Modality, SecondFiles
from edgetrack.io import readable
from edgetrack.media import load_scene, scene_names
from edgetrack.resources import data_set_folders
from edgetrack.runtime.prompt import Text

SYNTHETIC = "synthetic:"
_MODALITIES = get_args(Modality)
"""The second images that scenes have; the first one where none is asked for."""


@dataclass(frozen=True)
class Dataset:
    """Sequences of one layout, none of them read yet.

    Attributes:
        name: for labels and folders.
        where: the absolute path, or the text that names built-in scenes.
        layout: name of the layout.
        rules: how it is scored.
        entries: the files of each sequence.
        text: the description of every target, in place of the sequences' own.
        texts: descriptions of single sequences, in place of these.
    """

    name: str
    where: str
    layout: str
    rules: ScoringRules
    entries: tuple[ClipFiles, ...]
    text: Text | None = None
    texts: Mapping[str, Text] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the sequences, in order."""
        return [entry.name for entry in self.entries]

    @property
    def images(self) -> int:
        """The most images a frame that a sequence has: 1 or 2."""
        return 2 if any(entry.second is not None for entry in self.entries) else 1

    def read(self, entry: ClipFiles) -> Clip:
        """One sequence.

        Raises:
            SequenceError: it is not what it should be; the others are not affected.
        """
        clip = read_clip(entry, self.rules)
        text = self.texts.get(clip.name, self.text)
        return clip if text is None else replace(clip, text=text)

    def select(self, names: Collection[str] | None) -> Dataset:
        """The same with only these sequences, in the data set's order; all of them for None.

        Raises:
            UnknownNameError: there is no such sequence.
        """
        if names is None:
            return self
        for name in names:
            if name not in self.names:
                raise UnknownNameError.of(f"of {self.name} the sequence", name, self.names)
        return replace(self, entries=tuple(e for e in self.entries if e.name in names))


def _by_name(path: str | Path) -> Path:
    folders = data_set_folders()
    found = next((folder / path for folder in folders if (folder / path).exists()), None)
    if found is None:
        names = [entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()]
        looked = f", neither here nor in {os.pathsep.join(map(str, folders))}" if folders else ""
        near = did_you_mean(str(path), names)
        raise DatasetError(f"data set {path} does not exist{looked}{near}; give a folder, a video or {SYNTHETIC}")
    return found.absolute()


def layout_names() -> list[str]:
    """What `--layout` takes."""
    return [layout.name for layout in LAYOUTS]


def open_dataset(path: str | Path, layout: str | None = None) -> Dataset:
    """Find the sequences of a data set.

    Args:
        path: a folder, also by its name in one of `$EDGETRACK_DATA`; a video with its boxes beside it (`clip.mp4`,
            `clip.txt`); `synthetic:` for all built-in
            scenes, or one of them as `synthetic:drift`, with options as `synthetic:drift?frames=50`. Trackers of two
            images a frame get a scene's thermal images, or with `aux=depth` or `aux=event` these.
        layout: one of `layout_names()`; None recognizes it from the files.

    Raises:
        DatasetError: nothing there, or nothing there that has the layout (any layout).
        UnknownNameError: no such layout or scene.
        UsageError: a layout of built-in scenes.
    """
    layouts = LAYOUTS if layout is None else (_find_layout(layout),)
    if isinstance(path, str) and path.startswith(SYNTHETIC):
        if layout is not None:
            raise UsageError(f"built-in scenes have no layout, given {layout!r}; leave it out")
        return _synthetic(path)
    # Workers of a cluster have another working directory.
    root = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - leaves ~nobody as it is
    if not root.exists():
        root = _by_name(path)
    found = _recognized(root, layouts, layout is not None)
    # An archive often unpacks into one folder more.
    deeper = [d for d in _folders_in(root) if _recognized(d, layouts, layout is not None)] if found is None else []
    if len(deeper) == 1:
        root = deeper[0]
        found = _recognized(root, layouts, layout is not None)
    if found is not None:
        candidate, entries = found
        _check_names(entries, root)
        root = root.resolve()
        return Dataset(name_of(root), str(root), candidate.name, candidate.rules, entries)
    if deeper:
        raise DatasetError(f"{path} holds {len(deeper)} data sets; give one of: {', '.join(map(str, deeper[:5]))}")
    looked = "\n".join(f"  {c.name:<12}{c.looks_for}" for c in layouts)
    raise DatasetError(f"{path} has no known layout of a data set; looked for\n{looked}")


def name_of(root: Path) -> str:
    """What a data set in this folder or file is called."""
    return readable(root.stem) or "data"


def _recognized(root: Path, layouts: Sequence[Layout], asked: bool) -> tuple[Layout, tuple[ClipFiles, ...]] | None:
    for candidate in layouts:
        if root.is_dir() or candidate.name == "video":
            entries = _find(candidate, root)
            if entries and (asked or any(map(candidate.recognizes, entries))):
                return candidate, entries
    return None


def _folders_in(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []


def _find(layout: Layout, root: Path) -> tuple[ClipFiles, ...]:
    try:
        return tuple(replace(found, name=readable(found.name)) for found in layout.find(root))
    except OSError as error:
        raise DatasetError(f"data set {root} cannot be listed: {error.strerror or error}") from error


def _check_names(entries: tuple[ClipFiles, ...], root: Path) -> None:
    name, count = Counter(entry.name for entry in entries).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{root} holds {count} sequences called {name!r}; rename all but one of their folders")


def _find_layout(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UnknownNameError.of("layout", name, layout_names())


def _synthetic(spec: str) -> Dataset:
    name, _, query = spec.removeprefix(SYNTHETIC).partition("?")
    if name:
        load_scene(name)
    scenes = [name] if name else scene_names()
    parts = [part for part in query.split("&") if part]
    asked = [part.removeprefix("aux=") for part in parts if part.startswith("aux=")]
    rest = [part for part in parts if not part.startswith("aux=")]
    modality = asked[0] if asked else _MODALITIES[0]
    if modality not in _MODALITIES or len(asked) > 1:
        raise UnknownNameError.of("second image", "&".join(asked), list(_MODALITIES))

    def source(scene: str, *further: str) -> str:
        options = "&".join((*rest, *further))
        return f"{SYNTHETIC}{scene}{'?' if options else ''}{options}"

    def entry(scene: str) -> ClipFiles:
        # Where a view is asked for, it is all that is seen.
        alone = any(part.startswith("view=") for part in rest)
        second = None if alone else SecondFiles(cast(Modality, modality), source(scene, f"view={modality}"))
        return ClipFiles(scene, source(scene), None, second=second)

    label = f"synthetic-{name}" if name else "synthetic"
    label = f"{label}-{modality}" if asked else label
    return Dataset(label, spec, "synthetic", ScoringRules(), tuple(entry(scene) for scene in scenes))
