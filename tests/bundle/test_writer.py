from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as arrays

from edgetrack.bundle import BundleWriter, find_bundles, open_bundle, read_npz, write_npz
from edgetrack.errors import BundleError, BundleIntegrityError, EdgetrackError, UsageError

# Writes one file, commits where asked, and stops for good at a chosen point, waiting to be killed or told to go on.
CHILD = """
import pathlib, sys
from edgetrack.bundle import BundleWriter, Manifest
folder, manifest, stop, overwrite = sys.argv[1:]
renames = 0
def pause():
    print("here", flush=True)
    sys.stdin.readline()
def counted(self, target, rename=pathlib.Path.rename):
    global renames
    if str(renames) == stop:
        pause()
    renames += 1
    return rename(self, target)
with BundleWriter(pathlib.Path(folder), overwrite=overwrite == "yes") as writer:
    for name in ("template.xml", "step.mlpackage"):
        (writer.folder / name).write_text("from the child")
    if stop == "write":
        pause()
    pathlib.Path.rename = counted
    writer.commit(Manifest.from_json(manifest.encode(), source="test"))
print("done", flush=True)
"""


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name.rsplit(".", 1)[1] for path in folder.iterdir() if path.name.startswith("."))


def test_a_commit_describes_and_installs_the_files(tmp_path: Path, tools: Any) -> None:
    destination = tmp_path / "out" / "smat-openvino-fp32"
    with BundleWriter(destination) as writer:
        assert writer.folder.parent == destination.parent
        assert writer.folder.name.startswith(f".{destination.name}.{os.getpid()}-")
        tools.fill(writer.folder)
        before = tools.contents(writer.folder)
        assert writer.commit(tools.manifest) == destination
        assert not leftovers(tmp_path / "out")
    after = tools.contents(destination)
    manifest = json.loads(after.pop("manifest.json"))
    assert after == before
    assert manifest["files"] == {name: tools.describe(data) for name, data in sorted(before.items())}


def test_the_same_export_gives_the_same_manifest(tmp_path: Path, tools: Any) -> None:
    one, two = (tools.write(tmp_path / name) for name in ("one", "two"))
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


def test_a_bundle_has_the_mode_of_any_other_folder(tmp_path: Path, tools: Any) -> None:
    (tmp_path / "other").mkdir()
    made = tools.write(tmp_path / "made")
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_relative_destination_survives_a_change_of_folder(
    tmp_path: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with BundleWriter(Path("made")) as writer:
        tools.fill(writer.folder)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        writer.commit(tools.manifest)
    assert open_bundle(tmp_path / "made").manifest.tracker == "smat"


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
def test_without_a_commit_nothing_stays(tmp_path: Path, tools: Any, failure: type[BaseException] | None) -> None:
    def export() -> None:
        with BundleWriter(tmp_path / "made") as writer:
            tools.fill(writer.folder)
            if failure is not None:
                raise failure

    if failure is None:
        export()
    else:
        with pytest.raises(failure):
            export()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_only_when_asked(bundle: Path, tools: Any) -> None:
    with pytest.raises(UsageError, match="--overwrite"):
        tools.write(bundle, seed=1)
    assert "seed='0'" in (bundle / "template.xml").read_text()
    tools.write(bundle, seed=1, overwrite=True)
    assert "seed='1'" in open_bundle(bundle).path("template.xml").read_text()
    assert not leftovers(bundle.parent)


def test_a_bundle_of_another_schema_can_be_replaced(tmp_path: Path, tools: Any) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "manifest.json").write_text('{"schema": 7}')
    assert open_bundle(tools.write(tmp_path / "made", overwrite=True))


@pytest.mark.parametrize("content", [None, "", "[]", '{"name": "web app"}', "not JSON", "[" * 100_000])
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, tools: Any, content: str | None) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    if content is not None:
        (precious / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match="not a bundle"):
        tools.write(precious, overwrite=True)
    assert (precious / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_a_file_or_link_is_never_replaced(bundle: Path, tools: Any, kind: str) -> None:
    taken = bundle.parent / "taken"
    if kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(bundle if kind == "link" else "nowhere")
    with pytest.raises(UsageError, match="not a bundle"):
        tools.write(taken, overwrite=True)
    assert os.path.lexists(taken)


@pytest.mark.parametrize("name", [".", "..", "/", "x/.."])
def test_a_destination_needs_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        BundleWriter(Path(name)).__enter__()


def test_a_parent_that_is_a_file(tmp_path: Path, tools: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetrackError, match="cannot be written"):
        tools.write(tmp_path / "file" / "made")


def test_the_folder_is_there_only_until_the_commit(tmp_path: Path, tools: Any) -> None:
    writer = BundleWriter(tmp_path / "made")
    with pytest.raises(UsageError, match="inside its `with`"):
        _ = writer.folder
    with writer:
        tools.fill(writer.folder)
        writer.commit(tools.manifest)
        with pytest.raises(UsageError, match="before its commit"):
            writer.commit(tools.manifest)


def put_link(folder: Path) -> None:
    (folder / "link").symlink_to("template.xml")


def put_folder_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder)


def put_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize("spoil", [put_link, put_folder_link, put_pipe])
def test_links_and_special_files_are_refused(tmp_path: Path, tools: Any, spoil: Callable[[Path], object]) -> None:
    with BundleWriter(tmp_path / "made") as writer:
        tools.fill(writer.folder)
        spoil(writer.folder)
        with pytest.raises(BundleIntegrityError, match="plain files only"):
            writer.commit(tools.manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", ".hidden", "-rf", "a\n", "é", "x" * 251])
def test_odd_names_are_refused(tmp_path: Path, tools: Any, name: str) -> None:
    with BundleWriter(tmp_path / "made") as writer:
        tools.fill(writer.folder)
        (writer.folder / "deep").mkdir()
        (writer.folder / "deep" / name).write_text("")
        with pytest.raises(BundleIntegrityError, match="remove or rename"):
            writer.commit(tools.manifest)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_the_callers_is_refused(tmp_path: Path, tools: Any) -> None:
    with BundleWriter(tmp_path / "made") as writer:
        tools.fill(writer.folder)
        (writer.folder / "manifest.json").write_text("{}")
        with pytest.raises(BundleError, match=r"written by commit\(\)"):
            writer.commit(tools.manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "No Such"}, "not one of schema"),
        ({"precision": "fp64"}, "not one of schema"),
        ({"procedure": {"factor": float("nan")}}, "not one of schema"),
        ({"title": "x" * 513}, "title is .* expected text with a length of at most 512"),
        ({"precision_exceptions": {f"{i:04000}": "fp32" for i in range(1100)}}, "the manifest has"),
    ],
)
def test_a_manifest_that_readers_would_refuse_is_refused(
    tmp_path: Path, tools: Any, change: dict[str, Any], message: str
) -> None:
    with BundleWriter(tmp_path / "made") as writer:
        tools.fill(writer.folder)
        with pytest.raises(BundleError, match=message):
            writer.commit(msgspec.structs.replace(tools.manifest, **change))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_without_its_file_is_refused(tmp_path: Path, tools: Any) -> None:
    with BundleWriter(tmp_path / "made") as writer, pytest.raises(BundleIntegrityError, match=r"template\.xml"):
        writer.commit(tools.manifest)


def test_a_failed_replacement_keeps_the_old_bundle(bundle: Path, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        if self.suffix == ".partial" and target == bundle:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        tools.write(bundle, seed=1, overwrite=True)
    assert "seed='0'" in open_bundle(bundle).path("template.xml").read_text()
    assert not leftovers(bundle.parent)


def test_an_old_bundle_that_cannot_be_put_back_is_named(
    bundle: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == bundle:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(BundleError, match=r"is now .*\.old"):
        tools.write(bundle, seed=1, overwrite=True)
    assert leftovers(bundle.parent) == ["old"]


def test_a_destination_taken_meanwhile_is_not_replaced(tmp_path: Path, tools: Any) -> None:
    with BundleWriter(tmp_path / "made") as slow:
        tools.fill(slow.folder, seed=1)
        tools.write(tmp_path / "made")
        with pytest.raises(UsageError, match="--overwrite"):
            slow.commit(tools.manifest)
    assert "seed='0'" in open_bundle(tmp_path / "made").path("template.xml").read_text()
    assert not leftovers(tmp_path)


def test_a_writer_keeps_out_of_a_living_ones_folder(tmp_path: Path, tools: Any) -> None:
    with BundleWriter(tmp_path / "made") as one, BundleWriter(tmp_path / "made", overwrite=True) as two:
        assert one.folder.is_dir()
        for writer in (one, two):
            tools.fill(writer.folder)
            writer.commit(tools.manifest)
    assert open_bundle(tmp_path / "made")


def test_a_writer_leaves_the_neighbours_alone(tmp_path: Path, tools: Any) -> None:
    (tmp_path / ".made.partial").mkdir()
    (tmp_path / ".made2.4194304-0123456789abcdef.partial").mkdir()
    tools.write(tmp_path / "made")
    assert leftovers(tmp_path) == ["partial", "partial"]


@pytest.mark.parametrize(
    ("stop", "left", "after_kill"),
    [
        ("write", ["partial"], True),  # while files are written
        # From here on the name is locked; the lock's file goes with the next writer.
        ("0", ["lock", "partial"], True),  # all written, the old bundle not yet aside
        ("1", ["lock", "old", "partial"], False),  # the old one aside, the new one not yet in
        ("2", ["lock", "old"], True),  # the new one in, the old one not yet removed
    ],
)
def test_a_killed_overwrite_leaves_no_half_bundle(
    bundle: Path, tools: Any, child: Callable[..., Any], stop: str, left: list[str], after_kill: bool
) -> None:
    process = child(CHILD, bundle, tools.manifest.to_json().decode(), stop, "yes")
    assert process.stdout.readline() == "here\n", process.stderr.read()
    process.kill()
    process.wait()
    assert leftovers(bundle.parent) == left
    assert bundle.exists() == after_kill
    with BundleWriter(bundle.parent / bundle.name, overwrite=True):
        assert len(leftovers(bundle.parent)) == 1
    text = "from the child" if stop == "2" else "<net seed='0'/>"
    assert open_bundle(bundle).path("template.xml").read_text() == text


def test_a_killed_first_export_leaves_nothing_under_the_name(
    tmp_path: Path, tools: Any, child: Callable[..., Any]
) -> None:
    process = child(CHILD, tmp_path / "made", tools.manifest.to_json().decode(), "write", "no")
    assert process.stdout.readline() == "here\n"
    with BundleWriter(tmp_path / "made"):
        assert leftovers(tmp_path) == ["partial", "partial"], "what a living process has there stays"
    process.kill()
    process.wait()
    assert not (tmp_path / "made").exists()
    assert open_bundle(tools.write(tmp_path / "made"))
    assert not leftovers(tmp_path)


def test_a_first_export_killed_at_its_end_leaves_nothing_under_the_name(
    tmp_path: Path, tools: Any, child: Callable[..., Any]
) -> None:
    process = child(CHILD, tmp_path / "made", tools.manifest.to_json().decode(), "0", "no")
    assert process.stdout.readline() == "here\n"
    process.kill()
    process.wait()
    assert not (tmp_path / "made").exists()
    assert find_bundles(tmp_path) == []


def test_of_two_processes_one_wins(tmp_path: Path, tools: Any, child: Callable[..., Any]) -> None:
    processes = [child(CHILD, tmp_path / "made", tools.manifest.to_json().decode(), "write", "no") for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "here\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate() for process in processes]
    assert sorted(out for out, _ in ends) == ["", "done\n"]
    assert sum("--overwrite" in error for _, error in ends) == 1
    assert open_bundle(tmp_path / "made")
    assert not leftovers(tmp_path)


def test_overwriting_writers_never_leave_a_half_bundle(tmp_path: Path, tools: Any) -> None:
    start = threading.Barrier(4)

    def export(seed: int) -> None:
        start.wait()
        for _ in range(3):
            tools.write(tmp_path / "made", seed=seed, overwrite=True)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(export, range(4))) == [None] * 4
    assert open_bundle(tmp_path / "made")
    assert not leftovers(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5)))
def test_arrays_come_back_as_they_were(tmp_path, array) -> None:
    write_npz(tmp_path / "a.npz", {"0/step/in/search": array})
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["0/step/in/search"], array)
    with np.load(tmp_path / "a.npz") as numpys:
        np.testing.assert_array_equal(numpys["0/step/in/search"], array)


def test_same_arrays_give_the_same_bytes(tmp_path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, {"x": np.arange(5), "y": np.zeros((2, 2), np.float32)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_objects_are_not_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(tmp_path / "a.npz", {"x": np.array([{}], dtype=object)})


def test_files_of_another_bundle_are_copied_without_those_left_out(bundle: Path, tmp_path: Path, tools: Any) -> None:
    with open_bundle(bundle) as opened, BundleWriter(tmp_path / "copy") as writer:
        writer.copy_from(opened, leave_out=("golden.npz",))
        writer.commit(opened.manifest)
    expected = {name: data for name, data in tools.contents(bundle).items() if name != "golden.npz"}
    copied = tools.contents(tmp_path / "copy")
    assert copied.keys() == expected.keys()
    assert all(copied[name] == data for name, data in expected.items() if name != "manifest.json")
