"""Recipes: what edgetrack knows of a tracker as data, one TOML file each under `export_recipes/`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib.resources import as_file
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgetrack.bundle.manifest import (
    GraphRole,
    LostModel,
    Name,
    PaperFigures,
    Scalar,
    Sha256,
    scalar_text,
    split_precision,
)
from edgetrack.errors import BackendMissingError, RecipeError, UnknownNameError, UsageError, did_you_mean
from edgetrack.exporting.given import GivenGraph, GivenInput, GivenOutput
from edgetrack.exporting.stages import check_stages
from edgetrack.io import read_toml
from edgetrack.plugins import RECIPES, load_plugin, plugin_names
from edgetrack.resources import data_folder, package_folder

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable


DEFAULT, UNTRAINED = "default", "untrained"
"""Weights by name in place of a path: those that ship with edgetrack, and numbers from the tensors' names alone."""


class CheckpointFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The official weights file: its name, the key that holds the tensors, where it comes from.

    `official_sha256` lists the hashes that are known to be the authors' file; a file of another hash is `custom`.
    `unused` lists the beginnings of names of tensors that the published computation does not use: such tensors are
    left out, all others must be the network's.
    """

    file: str
    key: str | None = None
    unused: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    licence: str = ""
    source: str = ""
    official_sha256: tuple[str, ...] = ()


class DefaultWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights that a package of their own brings: its name, its file, the file's hash, and what is to be known of it.

    They are not part of edgetrack since their terms are not its licence. `licence` is their name in manifests.
    """

    package: Annotated[
        str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*\Z", description="a package's name, such as weights-of-mine")
    ]
    file: Annotated[
        str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*\Z", description="a file's name without its folder")
    ]
    sha256: Sha256
    note: str
    licence: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None

    @property
    def path(self) -> Path:
        """Where the file lies: in the installed package, else in a checkout's `packages`. Nothing of it is imported.

        Raises:
            BackendMissingError: it is in neither.
        """
        folder = package_folder(self.package)
        if folder is None or not (folder / self.file).is_file():
            raise BackendMissingError(
                f"the default weights are a package of their own, {self.package}, which is not installed; type: pip "
                f"install {self.package} (from a checkout: pip install ./packages/{self.package}), or give --weights "
                "with a checkpoint's path or `untrained`"
            )
        return folder / self.file


class Untrained(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors (by suffix of a tensor's name) and constants (by name) on top of the deterministic weights."""

    multipliers: dict[str, float] = {}
    overrides: dict[str, float] = {}


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """|a - b| <= atol + rtol |b| + peak max |b|, b the reference; all finite and at least 0."""

    atol: float = 0.0
    rtol: float = 0.0
    peak: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < float("inf") for value in (self.atol, self.rtol, self.peak)):
            raise ValueError(f"atol {self.atol}, rtol {self.rtol} and peak {self.peak} must be finite and at least 0")


USUAL_PARITY = {
    "fp32": Tolerance(atol=1e-4, rtol=1e-4),
    "fp16": Tolerance(atol=1e-3, peak=0.05),
    "bf16": Tolerance(atol=1e-3, peak=0.3),
    "int8": Tolerance(atol=1e-3, peak=0.5),
}
"""Of a recipe that states none; those below fp32 are a sanity check (docs/precision.md)."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often and how much the crops of a training are made to look different.

    Probabilities: `flip` and `grey` hit all crops of a sample together; `blur` each crop for itself; `occlude` the
    search crops. `brightness`, `contrast` and `tint` are the largest relative change, drawn for each crop.
    """

    flip: Share = 0.5
    grey: Share = 0.05
    blur: Share = 0.1
    occlude: Share = 0.1
    brightness: Share = 0.25
    contrast: Share = 0.2
    tint: Share = 0.08


class PhaseShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the training: pixels of the search crop, share of the whole, samples a step."""

    search_size: Annotated[int, msgspec.Meta(ge=32)]
    share: Positive
    batch: Annotated[int, msgspec.Meta(ge=1)]


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weights are changed, for how long, and on what.

    Attributes:
        optimizer: `adamw`, or `sgd` with `momentum`.
        course: of the learning rate: `cosine` falls to `floor` of it over the whole training, `step` to `drop` of it
            from `drop_at` (a share of the training) on.
        warmup: steps in which the rate rises from zero, linearly.
        clip: largest norm of the gradient.
        backbone_rate: factor on the rate of the tensors under `Training.backbone`.
        backbone_from: share of the training at which those tensors begin to train; before, they do not change.
        average: horizon of the weights' moving average (EMA) in steps; 1 is none.
        precision: of convolutions and matrix products.
        epochs, samples: length where the user gives none, and samples an epoch; without them it is a time.
        gap: how many frames apart the pictures of a sample may be.
        mix: weight by kind of sample, see `edgetrack.training.pairs`; kinds that are not named keep the usual weight.
        phases: in place of `Training.phases`.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    course: Literal["cosine", "step"]
    lr: Positive
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 0
    floor: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    drop_at: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    drop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    weight_decay: Share
    clip: Positive
    backbone_rate: Positive = 1.0
    backbone_from: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    average: Annotated[int, msgspec.Meta(ge=1)] = 200
    precision: Literal["bf16", "fp32"] = "bf16"
    epochs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    samples: Annotated[int, msgspec.Meta(ge=1)] | None = None
    gap: Annotated[int, msgspec.Meta(ge=1)] = 12
    mix: dict[str, Share] = {}
    augmentation: Augmentation = Augmentation()
    phases: tuple[PhaseShare, ...] = ()

    def __post_init__(self) -> None:
        if (self.epochs is None) != (self.samples is None):
            raise ValueError("epochs and samples go together: a length is so many epochs of so many samples")


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a tracker is trained; the first of `schedules` is the default.

    Attributes:
        backbone: the prefix of the names of tensors that a pretrained backbone would bring.
        centre_jitter, scale_jitter: of the search crop, as in `edgetrack.box.jitter`.
        loss: factors of the terms of the family's loss, by name.
        undecayed: parts of names of tensors that do not decay, beside biases and normalisations.
        initial: name, or pattern with `*`, -> the value that fills such tensors, on top of the usual initialisation.
    """

    backbone: str
    centre_jitter: Share
    scale_jitter: Share
    loss: dict[str, Share]
    schedules: Annotated[dict[str, Schedule], msgspec.Meta(min_length=1)]
    phases: Annotated[tuple[PhaseShare, ...], msgspec.Meta(min_length=1)]
    undecayed: tuple[str, ...] = ()
    initial: dict[str, float] = {}


class Ablation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the paper states of a configuration other than the published one: `set` has its overrides."""

    set: dict[str, Scalar]
    fps: float | None = None
    memory_gb: float | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tracker's export recipe; `parity` has a tolerance for each precision that is offered.

    `family` names the network and the procedure, which a tracker may share with others; left out, it is `name`.
    `aliases` are further names that a user may type for it; bundles carry `name`. `stages` cuts the graphs into pieces
    whose precision can be chosen (`edgetrack.exporting.stages`), `keep` names for each lower precision the ones
    that stay in FP32 unless the user says otherwise. `graphs` are the names and roles, in order, of the ONNX files that
    an export may start from in place of the network. `configuration` is what the network is made with: sizes in which
    the members of a family differ, and what an ablation leaves out or replaces. `choices` lists, for keys of
    `configuration` and `procedure` that take few values, all of them; `ablations` what the paper states of some.

    `lost` has models of loss, each for the weights of one checkpoint (docs/lost.md).

    `onnx` says how each graph is made of ONNX files that name and lay out their tensors in their own way
    (`edgetrack.exporting.given`); `inputs`, `outputs` and `constants` are the same for one graph of one file.
    """

    schema: Literal[1]
    name: Name
    family: Name | msgspec.UnsetType = msgspec.UNSET
    title: str = ""
    aliases: tuple[Name, ...] = ()
    default: bool = False
    paper: PaperFigures = PaperFigures()
    ablations: tuple[Ablation, ...] = ()
    checkpoint: CheckpointFormat = CheckpointFormat(file="")
    default_weights: DefaultWeights | None = None
    untrained: Untrained = Untrained()
    configuration: dict[str, Scalar] = {}
    training: Training | None = None
    graphs: dict[Name, GraphRole] = msgspec.field(default_factory=lambda: {"template": "init", "step": "step"})
    procedure: dict[str, Scalar]
    choices: dict[str, tuple[Scalar, ...]] = {}
    parity: dict[str, Tolerance] = msgspec.field(default_factory=lambda: dict(USUAL_PARITY))
    stages: dict[str, tuple[str, ...]] = {}
    keep: dict[str, tuple[str, ...]] = {}
    onnx: dict[Name, GivenGraph] = {}
    inputs: dict[Name, GivenInput] = {}
    outputs: dict[Name, GivenOutput] = {}
    constants: dict[str, float] = {}
    lost: tuple[LostModel, ...] = ()

    @property
    def given(self) -> dict[str, GivenGraph]:
        """The graphs that are made of ONNX files; empty where the files are the graphs as they are."""
        if not self.inputs:
            return self.onnx
        return {"step": GivenGraph(inputs=self.inputs, outputs=self.outputs, constants=self.constants)}

    @property
    def family_name(self) -> str:
        """Whose network and procedure it is."""
        return self.name if self.family is msgspec.UNSET else self.family

    def __post_init__(self) -> None:
        if not self.title:
            msgspec.structs.force_setattr(self, "title", self.name)
        check_stages(self.stages)
        if bool(self.inputs) != bool(self.outputs) or (self.constants and not self.inputs):
            raise ValueError("[inputs] and [outputs] belong together: one graph, `step`, of one file")
        if self.onnx and (self.inputs or "step" not in self.onnx):
            raise ValueError(
                "[onnx] names every graph, `step` among them, and stands in place of [inputs] and [outputs]"
            )
        for precision, names in self.keep.items():
            if unknown := [name for name in names if name not in self.stages]:
                near = did_you_mean(unknown[0], self.stages)
                raise ValueError(f"[keep] {precision} names {unknown[0]!r}, which [stages] has not{near}")
        for key, values in self.choices.items():
            if key not in self.values:
                raise ValueError(f"[choices] names {key!r}, which neither [configuration] nor [procedure] has")
            if self.values[key] not in values:
                raise ValueError(f"[choices] {key}: the recipe's own value {self.values[key]!r} is not among them")
        for ablation in self.ablations:
            if unknown := [key for key in ablation.set if key not in self.values]:
                raise ValueError(
                    f"[[ablations]] sets {unknown[0]!r}, which neither [configuration] nor [procedure] has"
                )

    @property
    def values(self) -> dict[str, Scalar]:
        """What an export may set otherwise: the keys of `configuration` and `procedure`; one in both is one value."""
        return {**self.procedure, **self.configuration}

    def lost_of(self, weights: str | None, overrides: Mapping[str, Scalar]) -> LostModel | msgspec.UnsetType:
        """The model of loss of a checkpoint, by its SHA-256, in the recipe's own configuration; UNSET without one."""
        known = (one for one in self.lost if one.weights_sha256 == weights) if weights and not overrides else iter(())
        return next(known, msgspec.UNSET)

    def paper_of(self, overrides: Mapping[str, Scalar]) -> PaperFigures:
        """What the paper states of a configuration; its source alone where it states nothing."""
        if not overrides:
            return self.paper
        stated = next((one for one in self.ablations if one.set == overrides), None)
        if stated is None:
            return PaperFigures(source=self.paper.source)
        return PaperFigures(source=self.paper.source, fps=stated.fps, memory_gb=stated.memory_gb)

    def overridden(self, settings: Iterable[str]) -> tuple[Recipe, dict[str, Scalar]]:
        """The recipe with some of its values set otherwise, and those that differ from its own.

        Args:
            settings: texts such as `gate=select`; the key is one of `values`, the value of the same kind as its own.

        Raises:
            UsageError: not `KEY=VALUE`, a key twice, or a value of another kind.
            UnknownNameError: there is no such key, or its `choices` have no such value.
        """
        given: dict[str, Scalar] = {}
        for text in settings:
            key, equals, value = text.partition("=")
            key = key.strip()
            if not (key and equals):
                raise UsageError(f"--set {text!r} is not KEY=VALUE, such as memory=exact")
            if key not in self.values:
                raise UnknownNameError.of("setting", key, self.values, f"these are the keys of {self.name}")
            if key in given:
                raise UsageError(f"--set gives {key} twice; give it once")
            given[key] = self.read_value(key, value.strip())
        changed = {key: value for key, value in given.items() if value != self.values[key]}
        tables = {
            table: {**own, **{key: value for key, value in changed.items() if key in own}}
            for table, own in (("configuration", self.configuration), ("procedure", self.procedure))
        }
        return msgspec.structs.replace(self, **tables), changed

    def read_value(self, key: str, text: str) -> Scalar:
        """A text as a value of one of `values`, of the same kind as the recipe's own.

        Raises:
            UsageError: it is of another kind.
            UnknownNameError: the key's `choices` do not have it.
        """
        kind = type(self.values[key])
        try:
            value = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError:
            expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise UsageError(f"--set {key}={text}: expected {expected}, as the recipe's {self.values[key]!r}") from None
        if key in self.choices and value not in self.choices[key]:
            raise UnknownNameError.of(key, text, map(scalar_text, self.choices[key]))
        return value

    def tolerance(self, precision: str) -> Tolerance:
        """The parity tolerance at a precision; `int8-bf16` has that of `int8` where the recipe states none.

        Raises:
            RecipeError: the recipe states none.
        """
        found = self.parity.get(precision) or self.parity.get(split_precision(precision)[0])
        if found is None:
            raise RecipeError(
                f"recipe {self.name!r} has no [parity.{precision}] section; it has: {', '.join(self.parity)}"
            )
        return found

    def choose_weights(self, given: str | None) -> str:
        """The given weights; where none are given the default ones, if there are any, else untrained ones.

        Raises:
            UsageError: `default`, and there are none.
            UnknownNameError: neither a file nor one of the two words, though like one.
        """
        if given is None:
            return UNTRAINED if self.default_weights is None else DEFAULT
        if given == DEFAULT:
            self.require_default()
        elif given != UNTRAINED and did_you_mean(given, (DEFAULT, UNTRAINED)) and not os.path.lexists(given):
            raise UnknownNameError.of("--weights", given, (DEFAULT, UNTRAINED), "or a checkpoint's path")
        return given

    def require_default(self) -> DefaultWeights:
        """The default weights.

        Raises:
            UsageError: there are none.
        """
        if self.default_weights is None:
            raise UsageError(
                f"no weights of tracker {self.name!r} ship with edgetrack; give --weights with the path of "
                f"{self.checkpoint.file} ({self.checkpoint.source or 'see docs/trackers.md'}), or --weights untrained"
            )
        return self.default_weights


def read_recipe(path: Path) -> Recipe:
    """Read and check one recipe file.

    Raises:
        RecipeError: not TOML, or not a recipe.
    """
    return read_toml(path, Recipe, "recipe", error=RecipeError)


def shipped_names() -> list[str]:
    """The trackers that edgetrack itself can export."""
    return sorted(path.stem for path in data_folder("export_recipes").glob("*.toml"))


def recipe_names() -> list[str]:
    """The trackers that can be exported, those of plug-ins included."""
    return sorted({*shipped_names(), *plugin_names(RECIPES)})


def find_recipe(name: str) -> Recipe:
    """The recipe of a tracker, by name or alias, of `default`, or the one in a file when `name` ends in `.toml`.

    Raises:
        UnknownNameError: no such tracker.
        RecipeError: the file is not a recipe.
        UsageError: the plug-in that brings the tracker cannot be used.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name == DEFAULT:
        name = default_tracker()
    shipped = shipped_names()
    if name in shipped:
        return read_recipe(data_folder("export_recipes") / f"{name}.toml")
    plugin = load_plugin(RECIPES, name)
    if plugin is not None:
        return _read_plugin(name, plugin)
    for other in shipped:
        recipe = find_recipe(other)
        if name in recipe.aliases:
            return recipe
    raise UnknownNameError.of("tracker", name, recipe_names(), "or a recipe's path, which ends in .toml")


def _read_plugin(name: str, resource: object) -> Recipe:
    """The recipe that an entry point gives: a path, or a file of `importlib.resources`, in a zip or not."""
    if not isinstance(resource, (str, Path, Traversable)):
        raise RecipeError(
            f"the plug-in for tracker {name!r} gives {resource!r}, expected the path of a TOML file "
            f"(entry point group {RECIPES!r})"
        )
    with as_file(Path(resource) if isinstance(resource, str) else resource) as path:
        recipe = read_recipe(path)
    if recipe.name != name:
        raise RecipeError(
            f"recipe {path.name} of the plug-in for tracker {name!r} is named {recipe.name!r}; give both the same name"
        )
    return recipe


def default_tracker() -> str:
    """The tracker that is exported when none is named; never a plug-in's."""
    for name in shipped_names():
        if find_recipe(name).default:
            return name
    raise RecipeError("no recipe is marked `default = true`")
