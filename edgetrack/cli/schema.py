"""`edgetrack schema`: JSON Schemas of the files that are read and written, made from the types that check them."""

from __future__ import annotations

import importlib
from enum import Enum
from typing import Annotated, Any

import typer

PLACES = {
    "manifest": "edgetrack.bundle.manifest:Manifest",
    "bench": "edgetrack.benchmark.record:BenchRecord",
    "eval": "edgetrack.evaluation.results:EvalRecord",
    "compare": "edgetrack.evaluation.comparison:CompareRecord",
    "tune": "edgetrack.tuning.record:TuneRecord",
    "budget": "edgetrack.gate.budget:Budget",
    "recipe": "edgetrack.exporting.recipe:Recipe",
}
"""What a schema is of -> the struct that it is made from."""
SchemaName = Enum("SchemaName", {name: name for name in PLACES}, type=str)  # type: ignore[misc]


def schema(
    name: Annotated[
        SchemaName,
        typer.Argument(help="A manifest, a record of bench, eval, compare or tune, a budget, a recipe."),
    ],
) -> None:
    """Print the JSON Schema of a file that edgetrack reads or writes; a TOML file is what it holds as JSON."""
    from edgetrack.cli.console import print_json

    print_json(json_schema(name.value))


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one of `PLACES`."""
    import msgspec

    module, _, struct = PLACES[name].partition(":")
    found = msgspec.json.schema(getattr(importlib.import_module(module), struct))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"edgetrack {name}",
        **_portable(found),
    }


def _portable(value: Any) -> Any:
    """The same with patterns that others than Python read: its end of a text is `\\Z`, ECMAScript's is `$`."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\Z", "$") if key == "pattern" and isinstance(one, str) else _portable(one)
            for key, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value
