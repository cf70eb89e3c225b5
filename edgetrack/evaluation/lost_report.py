"""What a calibration of `lost` found, as a table, and where it is kept: a copy of the bundle, or of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetrack.bundle import BundleWriter, open_bundle
from edgetrack.bundle.manifest import LostModel
from edgetrack.bundle.reader import BundleRef
from edgetrack.bundle.writer import check_destination
from edgetrack.errors import UsageError
from edgetrack.evaluation.lost_model import LostCalibration
from edgetrack.exporting.recipe import find_recipe, shipped_names
from edgetrack.io import check_output, read_text, toml_value, write_whole
from edgetrack.presentation.table import Column, Table, counted, span
from edgetrack.resources import data_folder

_ENTRY = re.compile(r"^\[\[lost\]\]\n(?:(?!\[).*\n?)*", re.MULTILINE)


def calibration_table(found: LostCalibration) -> Table:
    """A row for each set of features that was tried; notes say what was chosen and how it does."""
    model = found.model
    kept = tuple(model.weights)
    rows = [[" + ".join(t.features), t.auroc, "kept" if t.features == kept else ""] for t in found.trials]
    weights = ", ".join(f"{weight:.3f} {name}" for name, weight in model.weights.items())
    sequences = sum(len(data.sequences) for data in model.data)
    notes = [
        "AUROC of sequences that the logistic was not fitted on; a feature is kept where it adds 0.01 or more",
        f"{counted(sequences, 'sequence')}, {counted(found.frames, 'frame')}, {found.off_target} of them off target",
        f"lost: {counted(model.frames, 'frame')} in a row below {model.threshold:.3f} (95 % {span(model.interval, 3)})",
        f"recall {model.recall:.3f} (95 % {span(found.recall, 3)}), false alarms {model.false_alarms:.2%} (95 % "
        f"{span(found.false_alarms, 4)}) where {model.rate:.2%} were allowed, on the frames that were calibrated on",
        *(
            f"calibrated on every other sequence (below {half.threshold:.3f}), on the rest: recall {half.recall:.3f}, "
            f"false alarms {half.false_alarms:.2%} of {counted(half.frames, 'frame')}, {half.off_target} off target"
            for half in found.halves
        ),
    ]
    if kept != ("score",):
        notes.insert(1, f"log-odds of the confidence: {model.bias:.3f} + {weights}")
    return Table([Column("features", align="left"), Column("AUROC", 4), Column("", align="left")], rows, notes)


@dataclass(frozen=True)
class LostOutput:
    """Where a model goes: `path` is a bundle, or a recipe where `recipe` is the text to start from; None nowhere."""

    ref: BundleRef
    path: Path | None
    recipe: str | None
    overwrite: bool

    @classmethod
    def check(cls, ref: BundleRef, path: Path | None, recipe: str | None, *, overwrite: bool) -> LostOutput:
        """Refuse what could not be written, before anything is measured for it.

        Raises:
            UsageError: the path is taken, or a recipe is named and none is to be written.
            UnknownNameError, RecipeError: there is no such recipe, or it cannot be read.
        """
        if path is None or path.suffix != ".toml":
            if recipe is not None:
                raise UsageError("--recipe names what is copied to a recipe; add -o FILE.toml, or leave --recipe out")
            if path is not None:
                check_destination(path.absolute(), overwrite=overwrite, shown=path)
            return cls(ref, path, None, overwrite)
        check_output(path, overwrite=overwrite)
        return cls(ref, path, _recipe_text(recipe or ref.manifest.tracker), overwrite)

    def write(self, model: LostModel) -> None:
        """Write it, whole or not at all; a bundle keeps its name and gets a manifest of its own."""
        if self.path is None:
            return
        if self.recipe is not None:
            write_whole(self.path, recipe_with(self.recipe, model).encode())
            return
        with open_bundle(self.ref.path) as bundle, BundleWriter(self.path, overwrite=self.overwrite) as writer:
            writer.copy_from(bundle)
            writer.commit(msgspec.structs.replace(bundle.manifest, lost=model))


def _recipe_text(name: str) -> str:
    recipe = find_recipe(name)
    if not name.endswith(".toml") and recipe.name not in shipped_names():
        raise UsageError(f"the recipe of {name!r} comes of a plug-in; give its file with --recipe FILE.toml")
    path = Path(name) if name.endswith(".toml") else data_folder("export_recipes") / f"{recipe.name}.toml"
    return read_text(path, error=UsageError)


def recipe_with(text: str, model: LostModel) -> str:
    """A recipe's text with the model as an entry `[[lost]]`, in place of that of the same weights."""
    own = f"weights_sha256 = {toml_value(model.weights_sha256)}\n" if model.weights_sha256 else None
    kept = _ENTRY.sub(lambda entry: "" if own is None or own in entry[0] else entry[0], text)
    fields = {name: value for name, value in msgspec.to_builtins(model).items() if value is not None}
    lines = [f"{name} = {toml_value(value)}" for name, value in fields.items()]
    return "\n".join([kept.rstrip("\n"), "", "# Found by `edgetrack calibrate lost`.", "[[lost]]", *lines, ""])
