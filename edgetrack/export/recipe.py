"""Recipes: what edgetrack knows of a tracker as data, one TOML file each under `export_recipes/`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgetrack.bundle.manifest import Name, PaperFigures, Scalar
from edgetrack.errors import RecipeError, UnknownNameError
from edgetrack.resources import data_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class CheckpointFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The official weights file: its name, the key that holds the tensors, where it comes from.

    `official_sha256` lists the hashes that are known to be the authors' file; a file of another hash is `custom`.
    """

    file: str
    key: str | None = None
    licence: str = ""
    source: str = ""
    official_sha256: tuple[str, ...] = ()


class Untrained(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors (by suffix of a tensor's name) and constants (by name) on top of the deterministic weights."""

    multipliers: dict[str, float] = {}
    overrides: dict[str, float] = {}


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """|a - b| <= atol + rtol |b|, b from PyTorch; both finite and at least 0."""

    atol: float
    rtol: float

    def __post_init__(self) -> None:
        if not all(0 <= value < float("inf") for value in (self.atol, self.rtol)):
            raise ValueError(f"atol {self.atol} and rtol {self.rtol} must be finite and at least 0")


Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0)]


class LossWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors of the three terms of the training loss."""

    focal: Share
    l1: Share
    giou: Share


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the weights are changed: learning rate and its course, steps of warm-up, decay, largest gradient norm.

    `cosine` falls to a hundredth over the whole training, `step` to a tenth at 80 % of it.
    """

    course: Literal["cosine", "step"]
    lr: Positive
    warmup: Annotated[int, msgspec.Meta(ge=0)]
    weight_decay: Share
    clip: Positive


class PhaseShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the training: pixels of the search crop, share of the whole, pairs a step."""

    search_size: Annotated[int, msgspec.Meta(ge=32)]
    share: Positive
    batch: Annotated[int, msgspec.Meta(ge=1)]


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a tracker is trained; the first of `schedules` is the default.

    `backbone` is the prefix of the names of tensors that a pretrained backbone would bring, `initial` constants (by
    name) on top of the usual initialisation.
    """

    backbone: str
    centre_jitter: Share
    scale_jitter: Share
    loss: LossWeights
    schedules: dict[str, Schedule]
    phases: tuple[PhaseShare, ...]
    initial: dict[str, float] = {}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tracker's export recipe; `parity` has a tolerance for each precision that was tried."""

    schema: Literal[1]
    name: Name
    title: str
    default: bool = False
    paper: PaperFigures = PaperFigures()
    checkpoint: CheckpointFormat
    untrained: Untrained = Untrained()
    training: Training | None = None
    procedure: dict[str, Scalar]
    parity: dict[str, Tolerance]

    def tolerance(self, precision: str) -> Tolerance:
        """The parity tolerance at a precision.

        Raises:
            RecipeError: the recipe states none.
        """
        if precision not in self.parity:
            raise RecipeError(
                f"recipe {self.name!r} has no [parity.{precision}] section; it has: {', '.join(self.parity)}"
            )
        return self.parity[precision]


def read_recipe(path: Path) -> Recipe:
    """Read and check one recipe file.

    Raises:
        RecipeError: not TOML, or not a recipe.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Recipe)
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise RecipeError(f"recipe {path.name} is not a recipe of schema 1: {error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5000 digits, 1000 brackets
        raise RecipeError(f"recipe {path.name} is not TOML: {error}") from None


def recipe_names() -> list[str]:
    """The trackers that can be exported."""
    return sorted(path.stem for path in data_folder("export_recipes").glob("*.toml"))


def find_recipe(name: str) -> Recipe:
    """The recipe of a tracker, or the one in a file when `name` ends in `.toml`.

    Raises:
        UnknownNameError: no such tracker.
        RecipeError: the file is not a recipe.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name not in recipe_names():
        raise UnknownNameError(f"tracker {name!r} is not known; expected one of: {', '.join(recipe_names())}")
    return read_recipe(data_folder("export_recipes") / f"{name}.toml")


def default_tracker() -> str:
    """The tracker that is exported when none is named."""
    for name in recipe_names():
        if find_recipe(name).default:
            return name
    raise RecipeError("no recipe is marked `default = true`")
