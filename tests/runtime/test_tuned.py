from __future__ import annotations

import msgspec
import pytest

from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.runtime.tuned import TunedChoice, find_choice, keep_choice, read_choices
from edgetrack.system.machine import Gpu, MachineRecord
from tests.builders import scripted_manifest, write_scripted

MACHINE = MachineRecord(
    os="an OS", kernel="1", architecture="x86_64", python="CPython", cpu_model="a CPU", usable_cores=2, packages={}
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config" / "tuned.toml"


@pytest.fixture
def choice(tmp_path):
    path = write_scripted(tmp_path / "best", scripted_manifest("best"))
    digest = scripted_manifest_digest(path)
    return TunedChoice(
        tracker="smat",
        machine=MACHINE.kind,
        bundle=str(path),
        digest=digest,
        hint=None,
        device="cpu",
        threads=1,
        versions={},
        measured='2026-11-30, "9.5" ms\x7f',
        raced=(digest,),
    )


def scripted_manifest_digest(path):
    from edgetrack.bundle import open_bundle

    with open_bundle(path) as bundle:
        return bundle.manifest.digest


def test_a_choice_is_found_by_tracker_and_by_any_bundle_that_was_raced(file, choice, tmp_path):
    keep_choice(choice, file)
    assert read_choices(file) == (choice,)
    assert find_choice("smat", MACHINE, file) == choice
    assert find_choice(tmp_path / "best", MACHINE, file) == choice
    other = write_scripted(tmp_path / "other", scripted_manifest("other"))
    with pytest.raises(UsageError, match=r"nothing was tuned for .*type: edgetrack tune"):
        find_choice(other, MACHINE, file)
    with pytest.raises(UsageError, match="did you mean 'smat'"):
        find_choice("smatt", MACHINE, file)


def test_a_newer_choice_takes_the_place_of_that_machine_alone(file, choice):
    elsewhere = msgspec.structs.replace(choice, machine="another CPU, 4 cores")
    for one in (choice, elsewhere, msgspec.structs.replace(choice, threads=2)):
        keep_choice(one, file)
    assert [(one.machine, one.threads) for one in read_choices(file)] == [(elsewhere.machine, 1), (choice.machine, 2)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "another CPU, 4 cores"}, "measured on another CPU, 4 cores, and this is a CPU, 2 cores"),
        ({"digest": "0" * 64}, "was exported again since"),
        ({"bundle": "/no/such/bundle"}, "cannot be opened: "),
        ({"versions": {"openvino": "2025.0"}}, "measured with openvino 2025.0, and installed is"),
    ],
)
def test_a_stale_choice_is_refused_with_the_reason(file, choice, changes, words):
    keep_choice(msgspec.structs.replace(choice, **changes), file)
    with pytest.raises(UsageError, match=words) as caught:
        find_choice("smat", MACHINE, file)
    assert "stale" in str(caught.value)
    assert "type: edgetrack tune smat" in str(caught.value)


def test_a_gpu_is_part_of_the_machine():
    with_gpu = msgspec.structs.replace(MACHINE, gpus=(Gpu("an RTX", None, None),))
    assert with_gpu.kind == "a CPU, 2 cores, an RTX"


@pytest.mark.parametrize("text", ["schema = ", "schema = 1\nchoice = 3", "schema = 1\nfurther = 1"])
def test_a_file_that_is_something_else_is_refused(file, choice, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(UsageError, match="remove it, or tune again"):
        read_choices(file)
    with pytest.raises(UsageError):
        keep_choice(choice, file)
    assert file.read_text() == text


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, choice):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetrackError, match="cannot be written"):
        keep_choice(choice, tmp_path / "file" / "tuned.toml")
