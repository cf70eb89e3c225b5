from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgetrack.benchmark.machine import Gpu, MachineRecord
from edgetrack.capabilities import TARGETS
from edgetrack.devices.profile import Profile, find_profile, fitting, profile_names
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.io import read_toml


def machine(**changes):
    values = {"os": "Ubuntu 22.04", "kernel": "1", "architecture": "aarch64", "python": "CPython", "packages": {}}
    return MachineRecord(**{**values, **changes})


def jetson(board):
    return machine(is_jetson=True, device_model=f"NVIDIA {board}")


NAMES = {
    "jetson": jetson("Jetson AGX Thor Developer Kit"),
    "jetson-orin-nano": jetson("Jetson Orin Nano Engineering Reference Developer Kit Super"),
    "jetson-orin-nx": jetson("Jetson Orin NX Engineering Reference Developer Kit"),
    "jetson-agx-orin": jetson("Jetson AGX Orin Developer Kit"),
    "jetson-xavier-nx": jetson("Jetson Xavier NX Developer Kit"),
    "raspberry-pi-5": machine(device_model="Raspberry Pi 5 Model B Rev 1.0"),
    "x86": machine(architecture="x86_64"),
    "rtx": machine(architecture="x86_64", gpus=(Gpu("NVIDIA GeForce RTX 4090", "570", 24564),)),
    "apple": machine(os="macOS 15.1", architecture="arm64", device_model="Mac15,3"),
}


def test_all_profiles_are_sound_and_speak_of_real_targets():
    assert set(profile_names()) == {*NAMES, "local"}
    for name in profile_names():
        profile = find_profile(name)
        assert set(profile.backends) <= {target.name for target in TARGETS}
        assert profile.expectation().rails


@pytest.mark.parametrize("name", NAMES)
def test_each_device_is_recognised_and_no_other_is_taken_for_it(name):
    family = {"jetson"} if name.startswith("jetson") else {"x86"} if name == "rtx" else set()
    assert set(fitting(NAMES[name])) == {name} | family


def test_an_older_raspberry_is_none():
    assert fitting(machine(device_model="Raspberry Pi 500 Rev 1.0")) == []


def bundle(name, target):
    return SimpleNamespace(name=name, target=target)


def test_where_bundles_run_on_a_device():
    profile = find_profile("jetson")
    assert profile.place([bundle("a", "tensorrt"), bundle("b", "tensorrt")]) == "cuda:0"
    assert profile.place([bundle("a", "onnx")]) == "cpu"
    with pytest.raises(UsageError, match="two runs"):
        profile.place([bundle("a", "onnx"), bundle("b", "tensorrt")])
    with pytest.raises(UsageError, match="--target tensorrt"):
        profile.place([bundle("a", "coreml")])


@pytest.mark.parametrize("name", ["jetsn", "../x86", "", "x86\n", "-oProxyCommand=x", "$(touch x)"])
def test_unknown_names(name):
    with pytest.raises(UnknownNameError, match="jetson-orin-nano"):
        find_profile(name)


SOUND = 'schema = 1\nname = "a"\ntitle = "A"\nconnection = "ssh"\n[backends]\nonnx = "cpu"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 2" + SOUND[10:],
        SOUND + "unknown = 1\n",
        SOUND.replace('"cpu"', '"cpu; reboot"'),
        SOUND.replace('"ssh"', '"telnet"'),
        SOUND.replace('name = "a"', 'name = "../a"'),
        SOUND + "[expect]\ncpu_mhz = -1\n",
        SOUND + "[expect]\ncpu_mhz = nan\n",
        SOUND + '[telemetry]\nsources = ["/dev/mem"]\n',
        SOUND + '[telemetry]\npower = ["plug:all"]\n',
    ],
)
def test_hostile_profiles_are_refused(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a device profile of schema 1"):
        read_toml(path, Profile, "device profile")


def test_a_sound_profile_is_read(tmp_path):
    (tmp_path / "a.toml").write_text(SOUND)
    assert read_toml(tmp_path / "a.toml", Profile, "device profile").python == "python3"
