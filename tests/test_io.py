"""Files written whole, hashed, locked and read strictly; lines between processes; times as people write them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import EdgetrackError, RecipeError, UsageError
from edgetrack.io import (
    LARGEST_TOML,
    ScratchFolder,
    decode_line,
    encode_json,
    encode_line,
    locked,
    open_regular,
    parse_duration,
    read_text,
    read_toml,
    replace_whole,
    sha256,
    write_whole,
)


def test_parts_are_joined_and_the_old_file_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in (b"longer than the next", b"next"):
        replace_whole(path, text, memoryview(b"!"))
    assert path.read_bytes() == b"next!"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        replace_whole(path, b"half", "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EdgetrackError, match=r"folder cannot be written: .*--output"):
        write_whole(tmp_path / "folder", b"text")


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A text and a number."""

    text: str
    number: float


DECODER = msgspec.json.Decoder(Said)


def refused(shown: str, why: str) -> ValueError:
    return ValueError(f"{shown}: {why}")


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_message_is_one_line_and_comes_back(text: str, number: float) -> None:
    line = encode_line(Said(text, number))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line, DECODER, refused) == Said(text, number)


@given(st.binary())
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=": "):
        decode_line(line, DECODER, refused)


def test_a_long_line_is_cut_where_it_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"^'x{120}\.\.\.': ") as caught:
        decode_line(b"x" * 100_000, DECODER, refused)
    assert len(str(caught.value)) < 300


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    count: int = 0


def test_a_file_becomes_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "x"\ncount = 3\n')
    assert read_toml(tmp_path / "a.toml", Thing, "thing") == Thing("x", 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a thing of schema 1: .*name"),
        (b'name = "x"\nother = 1\n', "is not a thing of schema 1: .*other"),
        (b'name = "x"\ncount = "3"\n', "is not a thing of schema 1: count is .3.; expected a whole number"),
        (b"name = ", "is not TOML"),
        (b"\xff\xfe", "is UTF-16"),
        (b"\x00", "is UTF-16 or no text"),
        (b"x = " + b"[" * 5000, "is not TOML"),
        (b"x = " + b"9" * 5000, "is not TOML"),
        (b"#" * (LARGEST_TOML + 1), "is larger than 64 KiB"),
    ],
)
def test_what_is_none_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=rf"(?s)a\.toml {words}.*; see the docs") as caught:
        read_toml(path, Thing, "thing", error=RecipeError, advice="see the docs")
    assert str(path) in str(caught.value)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"thing .*a\.toml cannot be read: No such file"):
        read_toml(tmp_path / "a.toml", Thing, "thing")
    with pytest.raises(UsageError, match="cannot be read: a folder, not a regular file"):
        read_toml(tmp_path, Thing, "thing")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        assert isinstance(read_toml(path, Thing, "thing"), Thing)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    with (tmp_path / "file").open("rb") as file:
        file.seek(5)
        assert sha256(file) == hashlib.sha256(data[5:]).hexdigest()


def test_the_umask_of_the_user_holds(tmp_path: Path) -> None:
    program = "import os, sys, pathlib; from edgetrack.io import replace_whole; os.umask(0o077); "
    program += "replace_whole(pathlib.Path(sys.argv[1]), b'x')"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=True, timeout=60)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_one_process_at_a_time_and_no_file_left(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = "import sys, pathlib; from edgetrack.io import locked\nwith locked(pathlib.Path(sys.argv[1]), 0): pass"
    with locked(path):
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, timeout=60, check=False)
        assert b"Timeout" in done.stderr
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_no_lock_where_there_cannot_be_one() -> None:
    with locked(Path("/proc/lock")):
        pass


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("45s", 45), ("30m", 1800), ("1.5h", 5400), (" 2 min", 120), (" 7 ", 7), ("2", 2)],
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_a_number_alone_has_the_unit_of_its_option_and_0_is_allowed_where_it_means_something() -> None:
    assert (parse_duration("90", plain="m"), parse_duration("90s", plain="m")) == (5400, 90)
    assert parse_duration("0", zero_allowed=True) == 0
    with pytest.raises(UsageError, match=r"expected a time above 0, such as 90 \(minutes\)"):
        parse_duration("0", plain="m")


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "nan", "inf", "5d", "m", "1e3", "1e9", "1:30", "1 2", "30m30s", "\u0663"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match=r"--duration is .*; expected a time above 0, such as 90"):
        parse_duration(text, "--duration")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that takes the place of the temporary one."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_scratch_folder_is_private_and_goes(temporary: Path) -> None:
    with ScratchFolder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert not list(temporary.iterdir())


def test_what_a_killed_run_left_is_swept_and_nothing_else(temporary: Path) -> None:
    code = (
        "import os, sys; from edgetrack.io import ScratchFolder; scratch = ScratchFolder(); folder = scratch.path; "
        "(folder / 'model.bin').touch(); os.utime(folder, (1, 1)); print(folder, flush=True); {end}"
    )
    dead = subprocess.run(
        [sys.executable, "-c", code.format(end="os.kill(os.getpid(), 9)")], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert Path(dead, "model.bin").is_file()
    for kept in ("edgetrack-scratch-mine", "edgetrack-old"):
        (temporary / kept).mkdir()
        os.utime(temporary / kept, (1, 1))
    with subprocess.Popen(
        [sys.executable, "-c", code.format(end="sys.stdin.read()")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as alive:
        assert alive.stdout
        lives = alive.stdout.readline().strip()
        with ScratchFolder():
            assert not Path(dead).exists()
            assert Path(lives, "model.bin").is_file()
            assert (temporary / "edgetrack-scratch-mine").is_dir()
            assert (temporary / "edgetrack-old").is_dir()
        alive.kill()


def test_no_temporary_folder_is_one_message(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(temporary / "none")])
    with pytest.raises(EdgetrackError, match=r"^no temporary folder can be made: .*set TMPDIR"):
        ScratchFolder()


@pytest.mark.parametrize("data", ["a\r\nç\n".encode(), "a\r\nç\n".encode("utf-8-sig")])
def test_text_is_read_with_or_without_a_mark(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    assert read_text(tmp_path / "t").splitlines() == ["a", "ç"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a\n".encode("utf-16"), "t is UTF-16 or no text; save it as UTF-8"),
        ("a\n".encode("utf-16-le"), "t is UTF-16 or no text; save it as UTF-8"),
        (b"a\nb\n\xe9t\xe9\n", "line 3 of .*t is not UTF-8 .byte 0xe9.; save it as UTF-8"),
        (b"\xef\xbb\xbfa\nb\xb5", "line 2 of .*t is not UTF-8 .byte 0xb5.; save it as UTF-8"),
        (b"x" * 2000, "t is larger than 1 KiB"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(RecipeError, match=words):
        read_text(tmp_path / "t", error=RecipeError, largest=1024)


def test_toml_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_bytes("a = 1\n".encode("utf-8-sig"))
    assert read_toml(tmp_path / "t.toml", dict[str, int], "recipe") == {"a": 1}


def test_names_that_are_not_utf8_are_kept_readable_and_apart() -> None:
    names = [os.fsdecode(name) for name in (b"\xca\xfd", b"\xca\xfe")]
    data = encode_json({names[0]: [names[1], "\u6570", 1]}, order="deterministic")
    assert msgspec.json.decode(data) == {"\\udcca\\udcfd": ["\\udcca\\udcfe", "\u6570", 1]}


def test_a_name_that_a_worker_could_not_open_is_named() -> None:
    class Request(msgspec.Struct):
        source: str

    with pytest.raises(UsageError, match=r"udcca.* is not UTF-8; rename the file or folder"):
        encode_line(Request(os.fsdecode(b"a\xca")))


@pytest.mark.parametrize("make", ["pipe", "link", "device", "folder"])
def test_only_regular_files_are_opened_and_no_pipe_is_waited_for(tmp_path: Path, make: str) -> None:
    path = tmp_path / "file"
    if make == "folder":
        path.mkdir()
    elif make == "device":
        path = Path("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path = tmp_path / "pipe"
        if make == "link":
            path = tmp_path / "link"
            path.symlink_to("pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(path)
    with pytest.raises(UsageError, match=r"cannot be read: .*, not a regular file"):
        read_text(path)
    with pytest.raises(UsageError, match=r"budget .* cannot be read: .*, not a regular file"):
        read_toml(path, dict, "budget")
