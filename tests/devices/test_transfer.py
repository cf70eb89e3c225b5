from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from edgetrack.bundle.manifest import FileInfo
from edgetrack.devices.protocol import VerbDone
from edgetrack.devices.ssh import connected
from edgetrack.devices.transfer import CHUNK, FetchedFile, JobOutput, fetch, keep, send
from edgetrack.errors import EdgetrackError


def test_a_device_writes_the_file_that_was_asked_for_and_no_other(tmp_path):
    boxes = JobOutput("results/boxes.csv", tmp_path / "mine.csv")
    assert boxes.place("results/boxes.csv") == tmp_path / "mine.csv"
    assert boxes.place("results/boxes.csv/x") is None
    assert boxes.place("results/other.csv") is None


NAMES = {
    "out/runs/a@jetson-0123456789abcdef.json": "a@jetson-0123456789abcdef.json",
    "out/runs/a/b.json": "a/b.json",
    "out/runs": None,
    "out/runs/": None,
    "out/runs/../x.json": None,
    "out/runs/a/../../x.json": None,
    "out/runs/.hidden": None,
    "out/runs/a/.hidden": None,
    "out/runs//etc/passwd": None,
    "out/runs2/a.json": None,
    "out/runs/a\u202e.json": None,
    "out/runs/a\n.json": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_devices_files_stay_in_the_folder_they_were_asked_for(tmp_path, name):
    everything = JobOutput("out/runs", tmp_path, re.compile(".*"))
    expected = NAMES[name]
    assert everything.place(name) == (None if expected is None else tmp_path / expected)


def test_only_names_that_were_asked_for(tmp_path):
    runs = JobOutput("out/runs", tmp_path, re.compile(r"[a-z]+\.json"))
    assert runs.place("out/runs/a.json") == tmp_path / "a.json"
    assert runs.place("out/runs/results.json.exe") is None


def over_sftp(device, use):
    """What `use(sftp)` gives, on a connection to the device."""

    async def run():
        async with connected(device.choice().host) as connection, connection.start_sftp_client() as sftp:
            return await use(sftp)

    return asyncio.run(run())


def test_a_large_upload_goes_on_before_the_chunk_that_was_cut(device, tmp_path):
    """The part may have holes in its last chunk: that is sent again."""
    data = bytes(range(256)) * ((3 * CHUNK) // 256) + b"end"
    (tmp_path / "clip").write_bytes(data)
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "hash").write_bytes(data[:CHUNK] + bytes(CHUNK // 2))
    moved = []
    over_sftp(device, lambda sftp: send(sftp, {"hash": tmp_path / "clip"}, str(incoming), moved.append))
    assert (incoming / "hash").read_bytes() == data
    assert moved == [CHUNK, CHUNK, CHUNK, 3]


def test_many_small_files_arrive_whole(device, tmp_path):
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    sources = {f"{number:02}": tmp_path / f"{number}.jpg" for number in range(20)}
    for name, path in sources.items():
        path.write_bytes(name.encode() * 1000)
    over_sftp(device, lambda sftp: send(sftp, sources, str(incoming), lambda count: None))
    assert {path.name: path.read_bytes() for path in incoming.iterdir()} == {
        name: path.read_bytes() for name, path in sources.items()
    }


def test_what_lies_here_already_is_not_fetched_again(device, tmp_path):
    here, there, scratch = tmp_path / "here", tmp_path / "there", tmp_path / "scratch"
    for folder in (here, there / "out", scratch):
        folder.mkdir(parents=True)
    for name, data in {"old.json": b"same", "new.json": b"other"}.items():
        (there / "out" / name).write_bytes(data)
    (here / "old.json").write_bytes(b"same")
    (here / "new.json").write_bytes(b"another")
    files = {
        f"out/{path.name}": FileInfo(size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted((there / "out").iterdir())
    }
    outputs = [JobOutput("out", here, re.compile(".*"))]
    found = over_sftp(
        device,
        lambda sftp: fetch(sftp, "orin", VerbDone(0, str(there), files), outputs, scratch, lambda count: None),
    )
    assert [one.here.name for one in found] == ["new.json"]
    assert (here / "new.json").read_bytes() == b"another"
    assert list(keep(found)) == [here / "new.json"]
    assert (here / "new.json").read_bytes() == b"other"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "scratch").write_bytes(b"x")
    with pytest.raises(EdgetrackError, match="cannot be written"):
        list(keep([FetchedFile(tmp_path / "scratch", tmp_path / "file" / "below")]))
