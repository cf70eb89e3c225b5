"""A tuning in plain words and as a table: what is recommended, why, what is undecided and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgetrack.evaluation.protocols.anchored import POINTS
from edgetrack.presentation.table import Column, Table, counted
from edgetrack.stats.bootstrap import FEW_SEQUENCES
from edgetrack.stats.race import Race
from edgetrack.tuning.accuracy import AccuracyFinding
from edgetrack.tuning.candidates import TuneCandidate
from edgetrack.tuning.record import TuneEntry, TuneRecord, Undecided

_SHOWN = 4
_OUT = ("refused", "unproven")


def advice(record: TuneRecord, candidates: Mapping[str, TuneCandidate]) -> list[str]:
    """The recommendation and its reasons, in sentences."""
    choice, wishes = record.choice, record.wishes
    refused = [one for one in record.entries if one.standing in _OUT]
    if choice is None or choice.track_ms is None:
        why = "; ".join(f"{one.label}: {one.reason}" for one in refused[:_SHOWN])
        return [f"Nothing meets the wishes{f': {why}' if why else ''}."]
    said = [f"Take {choice.label}: {_pace(choice)}, {choice.peak_rss_mb or 0:.0f} MiB."]
    equal = [one for one in record.entries if one.standing == "equal"]
    within = f"is as fast within {100 * wishes.margin:g} %"
    said += [f"{one.label} {within}, and {_dearer(one, choice, candidates)}." for one in equal[:_SHOWN]]
    # The entries are in order, so the last of a variant's that is set, read backwards, is its fastest.
    for one in {(one.bundle, one.hint, one.device): one for one in reversed(refused)}.values():
        if one.track_ms is not None and one.track_ms < choice.track_ms:
            less = 100 * (1 - one.track_ms / choice.track_ms)
            said.append(f"{one.label} takes {less:.0f} % less time, but {one.reason}.")
    if wishes.fps is not None:
        meets = [one for one in record.entries if one.track_ms is not None and one.track_ms <= 1000 / wishes.fps]
        said.append(f"It does the {wishes.fps:g} fps that are asked for, as {counted(len(meets) - 1, 'other')} would.")
    if wishes.max_drop is None and choice.precision != "fp32":
        said.append("What it costs in tracking was not measured: give --val and --max-drop.")
    elif choice.ao is not None:
        said.append(f"AO against FP32: {choice.ao.describe()}.")
    elif wishes.max_drop is not None:
        said.append("It computes in FP32, as was proven when it was exported.")
    return said


def undecided(race: Race, accuracy: Mapping[str, AccuracyFinding], round_s: float) -> list[Undecided]:
    """What is not decided, and about how much longer that would take."""
    found = []
    if race.open:
        more = race.rounds_to_decide()
        named = ", ".join(race.open[:_SHOWN]) + (f" and {len(race.open) - _SHOWN} more" * (len(race.open) > _SHOWN))
        what = f"whether within {100 * race.margin:g} % of the fastest: {named}"
        found.append(Undecided(what, None if more is None else more * round_s))
    return found + [
        Undecided(f"AO of {variant}: {one.describe()}", one.more_s)
        for variant, one in accuracy.items()
        if one.verdict == "undecided"
    ]


def tune_table(record: TuneRecord) -> Table:
    """One row a candidate, the fastest first; the notes below are the recommendation and what it rests on."""
    energy = any(one.mj_per_frame is not None for one in record.entries)
    columns = [
        Column("bundle", align="left"),
        Column("threads"),
        Column("track ms", 2),
        Column("fps", 1, drop=2),
        Column("x fastest"),
        Column("AO points", drop=1),
        Column("peak MiB", 0, drop=3),
        Column("load ms", 0, drop=5),
        Column("size MiB", 1, drop=6),
        *([Column("mJ", 1, drop=4)] if energy else []),
        Column("rounds", drop=7),
        Column("front", align="left", drop=4),
        Column("verdict", align="left"),
    ]
    rows = [
        [
            one.label.rpartition(" on ")[0],
            one.threads,
            one.track_ms,
            1000 / one.track_ms if one.track_ms else None,
            _ratio(one),
            None
            if one.ao is None
            else f"{POINTS * one.ao.value:+.2f} ({POINTS * one.ao.low:+.2f} to {POINTS * one.ao.high:+.2f})",
            one.peak_rss_mb,
            one.load_ms,
            one.size_mb,
            *([one.mj_per_frame] if energy else []),
            one.rounds,
            "*" if one.front else "",
            one.standing,
        ]
        for one in record.entries
    ]
    return Table(columns, rows, list(tune_notes(record)))


def tune_notes(record: TuneRecord) -> Iterator[str]:
    """The recommendation, what is undecided, what was left out, and how it was measured."""
    yield from record.advice
    for one in record.undecided:
        more = "time alone would not decide it" if one.more_s is None else f"about {one.more_s / 60:.1f} min more"
        yield f"UNDECIDED: {one.what}; {more}"
    if not record.complete:
        yield "the same command goes on with what was measured; --restart begins again"
    few = min((one.ao.sequences for one in record.entries if one.ao is not None), default=FEW_SEQUENCES)
    if few < FEW_SEQUENCES:
        yield f"{counted(few, 'sequence')} {'is' if few == 1 else 'are'} few: intervals of AO are too narrow"
    machine = record.machine
    load = "" if machine.load_average is None else f", load {machine.load_average[0]:.1f} before"
    yield (
        f"{machine.processor}, {counted(machine.usable_cores, 'usable core')}{load}; "
        f"{counted(len(record.rounds_ms), 'round')} in {record.race_seconds / 60:.1f} min, "
        f"{record.seconds / 60:.1f} min in all{'' if record.complete else ', NOT COMPLETE'}"
    )
    yield (
        "track = crop + graphs + decode, median; x fastest: over common rounds, with the interval of the race (5 % for "
        "all that is said together); front (*): no other has less time, less memory and as high a precision"
    )
    yield from (f"left out: {one.what}: {one.reason}" for one in record.left_out)
    yield from (f"{one.label}: {one.reason}" for one in record.entries if one.standing in (*_OUT, "failed"))


def _pace(one: TuneEntry) -> str:
    return f"{one.track_ms:.2f} ms a frame ({1000 / (one.track_ms or 1):.0f} fps)"


def _ratio(one: TuneEntry) -> str | None:
    found = one.versus_fastest
    if found is None:
        return None
    return f"{found.value:.2f}" + (
        "" if found.low is None or found.high is None else f" ({found.low:.2f}-{found.high:.2f})"
    )


def _dearer(one: TuneEntry, choice: TuneEntry, candidates: Mapping[str, TuneCandidate]) -> str:
    """What a candidate takes more than the one that was chosen."""
    if one.threads != choice.threads:
        return f"takes {counted(one.threads, 'thread')} instead of {choice.threads}"
    if candidates[one.label].precision_rank != candidates[choice.label].precision_rank:
        return f"computes in {candidates[one.label].precision}, a lower precision"
    return f"takes {one.peak_rss_mb or 0:.0f} MiB"
