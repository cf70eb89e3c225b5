"""A recipe's stages: pieces of graphs, by the names of their nodes, whose precision can be chosen."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping

from edgetrack.errors import RecipeError, UnknownNameError

Stages = Mapping[str, tuple[str, ...]]
"""Stage -> `graph:regular expression` for the whole names of its nodes."""


def check_stages(stages: Stages) -> None:
    """Raise ValueError where an entry is not `graph:regular expression`."""
    for name, entries in stages.items():
        for entry in entries:
            graph, colon, pattern = entry.partition(":")
            if not (graph and colon and pattern):
                raise ValueError(f"stage {name!r}: {entry!r} is not graph:regular-expression")
            try:
                with warnings.catch_warnings():
                    # Python says so of what it will read otherwise one day, such as "[[x]]".
                    warnings.simplefilter("error")
                    re.compile(pattern)
            except (re.error, Warning) as error:
                raise ValueError(f"stage {name!r}: {pattern!r} is not a regular expression: {error}") from None


def patterns_of(stages: Stages, names: Iterable[str], graph: str) -> tuple[str, ...]:
    """The regular expressions of some stages that concern a graph.

    Raises:
        UnknownNameError: there is no such stage.
    """
    found = []
    for name in names:
        if name not in stages:
            raise UnknownNameError.of("stage", name, stages, "the recipe's [stages] names them")
        for entry in stages[name]:
            owner, _, pattern = entry.partition(":")
            if owner == graph:
                found.append(pattern)
    return tuple(found)


def require_stages(stages: Stages, tracker: str) -> None:
    """Raise RecipeError where a tracker has none: sensitivity is measured stage by stage."""
    if not stages:
        raise RecipeError(
            f"the recipe of {tracker!r} has no [stages] table, so accuracy cannot be controlled by stages; add one: "
            "docs/precision.md shows how"
        )
