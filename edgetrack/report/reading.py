"""Reading results: each file is recognised by what is in it, and nothing in it is taken at its word.

Text loses control and direction characters and what is longer than a page could show; numbers are finite and of a size
that can be drawn; records hold as many items as a page can bear.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgetrack.benchmark.record import BenchRecord as Benchmark
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.evaluation.comparison_record import Comparison
from edgetrack.evaluation.record import Record as Evaluation
from edgetrack.evaluation.sensitivity import Sensitivity
from edgetrack.presentation.sanitize import printable
from edgetrack.report.checks import check_benchmark, check_comparison, check_evaluation, check_sensitivity
from edgetrack.report.model import Results, Skipped, Sourced

Kind = TypeVar("Kind")
LARGEST_FILE = 256 * 2**20
LARGEST_NUMBER = 1e12
LONGEST_TEXT = 2000
DEEPEST_FOLDER = 5
MOST_FILES = 20_000
DEEPEST_VALUE = 40
_MARKS: tuple[tuple[type[Any], frozenset[str]], ...] = (
    (Benchmark, frozenset({"machine", "settings", "source", "results"})),
    (Comparison, frozenset({"a", "b", "dataset", "sequences"})),
    (Sensitivity, frozenset({"stages", "first", "last", "max_drop"})),
    (Evaluation, frozenset({"results"})),
)
_EXPECTED = "expected what `edgetrack bench`, `eval` or `compare` wrote with --output, or a bundle's sensitivity.json"


def read_results(paths: Sequence[Path]) -> Results:
    """Read files, and whatever results lie in folders; a folder's other files are passed over.

    Raises:
        UsageError: a path that does not exist, or nothing was found.
        EdgetrackError: a file that was named cannot be read or is no result.
    """
    found: list[Sourced[Any]] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            _read_folder(path, found, skipped, seen)
        elif path.is_file():
            record = read_file(path)
            if record is None:
                raise EdgetrackError(f"{path} is no result that is known; {_EXPECTED}")
            found += [] if path.resolve() in seen else [Sourced(str(path), record)]
            seen.add(path.resolve())
        else:
            raise UsageError(f"{path} does not exist; {_EXPECTED}, or a folder of such files")
    if not found:
        raise UsageError(
            f"no results in {', '.join(map(str, paths))}; make some first, such as: "
            "edgetrack bench BUNDLE --output out/bench.json"
            + "".join(f"\n  left out: {one.source}: {one.reason}" for one in skipped)
        )
    return Results(
        benchmarks=_of_kind(found, Benchmark),
        evaluations=_of_kind(found, Evaluation),
        comparisons=_of_kind(found, Comparison),
        sensitivities=_of_kind(found, Sensitivity),
        skipped=tuple(skipped),
    )


def read_file(path: Path) -> Any:
    """The record in a file; None where it is none of ours.

    Raises:
        EdgetrackError: it cannot be read, or looks like one of ours and is not.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise EdgetrackError(f"{path} is larger than {LARGEST_FILE // 2**20} MB; {_EXPECTED}")
        plain = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    kind = _kind_of(plain)
    if kind is None:
        return None
    try:
        record = msgspec.convert(clean(plain), type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise EdgetrackError(f"{path} looks like a result of edgetrack, but: {error}; {_EXPECTED}") from None
    _check(record, str(path))
    return record


def clean(value: Any, depth: int = 0) -> Any:
    """The same data with printable text.

    Raises:
        ValueError: a number that is not finite or far too large, or data nested deeper than any record.
    """
    if depth > DEEPEST_VALUE:
        raise ValueError(f"it is nested deeper than {DEEPEST_VALUE} levels")
    if isinstance(value, str):
        return printable(value, LONGEST_TEXT)
    if isinstance(value, (int, float)):
        if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
            raise ValueError(f"a number is {str(value)[:30]}; expected a finite one up to {LARGEST_NUMBER:g}")
        return value
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {printable(key, LONGEST_TEXT): clean(item, depth + 1) for key, item in value.items()}
    return value


def _read_folder(folder: Path, found: list[Sourced[Any]], skipped: list[Skipped], seen: set[Path]) -> None:
    for count, path in enumerate(_files_in(folder)):
        if count == MOST_FILES:
            raise UsageError(f"{folder} holds more than {MOST_FILES} JSON files; give the results themselves")
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        try:
            record = read_file(path)
        except EdgetrackError as error:
            skipped.append(Skipped(printable(str(path), LONGEST_TEXT), printable(str(error), LONGEST_TEXT)))
            continue
        if record is not None:
            found.append(Sourced(printable(str(path), LONGEST_TEXT), record))


def _files_in(folder: Path) -> Iterator[Path]:
    """JSON files in a fixed order; links to folders are not followed."""
    for here, folders, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST_FOLDER else []
        for name in sorted(names):
            path = Path(here, name)
            if path.suffix == ".json" and path.is_file():
                yield path


def _kind_of(plain: Any) -> type[Any] | None:
    if not isinstance(plain, Mapping):
        return None
    return next((kind for kind, marks in _MARKS if marks <= plain.keys()), None)


def _check(record: Any, source: str) -> None:
    if record.schema != 1:
        raise EdgetrackError(f"{source} is a result of schema {record.schema}; this version reads schema 1")
    if isinstance(record, Benchmark):
        check_benchmark(record, source)
    elif isinstance(record, Evaluation):
        check_evaluation(record, source)
    elif isinstance(record, Comparison):
        check_comparison(record, source)
    else:
        check_sensitivity(record, source)


def _of_kind(found: Sequence[Sourced[Any]], kind: type[Kind]) -> tuple[Sourced[Kind], ...]:
    return tuple(one for one in found if isinstance(one.value, kind))
