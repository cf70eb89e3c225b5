"""One English sentence about a target, cut into phrases by rules: a convenience; phrases that you write are better.

A sentence such as `red car driving on the road` is a noun phrase, what the target does, and where. Words that begin a
part, participles and prepositions, cut it; the noun phrase's last word is the category. Rules are wrong now and then:
`edgetrack track --text` prints what they made of a sentence.
"""

from __future__ import annotations

import re


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
# Nouns that end like a participle.
_NOUNS = _set(
    "being building ceiling ceilings clothing evening king lightning morning nothing painting ping ring spring string "
    "swing thing wing something"
)
_DOES = re.compile(r"[a-z]{2,}ing|flies|runs|walks|moves|jumps|swims|sits|stands")
# What is done to the target, where `by` follows.
_DONE = re.compile(r"[a-z]{2,}(ed|en)|held|worn|drawn|hung|kept|led|put|thrown|swung")
_WORDS = re.compile(r"[^\s,;.]+")
_ARTICLES = frozenset(("a", "an", "the", "another", "one", "this", "that"))
_OF = "of"


def split(sentence: str) -> dict[str, str]:
    """`red car driving on the road` to category `car`, appearance `red car`, action `driving`, location `on the road`.

    Returns:
        Only the attributes that the sentence speaks of; nothing for an empty one.
    """
    parts: dict[str, list[str]] = {"head": [], "appearance": [], "action": [], "location": []}
    kind, words = "head", _WORDS.findall(sentence)
    for index, word in enumerate(words):
        kind = _kind(kind, word.lower(), [w.lower() for w in words[index + 1 : index + 4]], bool(parts["head"]))
        parts[kind].append(word)
    head = [word for word in parts["head"] if word.lower() not in _ARTICLES]
    # A hand of a woman is a hand.
    named = head[: head.index(_OF)] if _OF in head[1:] else head
    found = {
        "category": named[-1] if named else "",
        "appearance": " ".join([*head, *parts["appearance"]]) if len(head) > 1 or parts["appearance"] else "",
        "action": " ".join(parts["action"]),
        "location": " ".join(parts["location"]),
    }
    return {name: phrase for name, phrase in found.items() if phrase}


def _kind(current: str, word: str, following: list[str], named: bool) -> str:
    """What the sentence speaks of from this word on."""
    if not named:
        return "head"
    if word in _LOOKS:
        return "appearance" if current == "head" else current
    if word == "in" and any(w in _COLOURS or w in _CLOTHES for w in following):
        # Of the target, or of who holds it: that is where it is.
        return current if current == "location" else "appearance"
    if word == "being" or (_DOES.fullmatch(word) and word not in _NOUNS):
        return current if current == "location" else "action"
    if following[:1] == ["by"] and _DONE.fullmatch(word):
        return current if current == "location" else "action"
    if word == "by" and current == "action":
        return current
    return "location" if word in _PLACES else current
