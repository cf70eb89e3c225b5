from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetrack.benchmark.warnings import of_device, of_run
from edgetrack.bundle.reader import BundleRef
from edgetrack.capabilities import TARGETS, Target
from edgetrack.devices.profiles import (
    DeviceChoice,
    Profile,
    choose_device,
    config_file,
    find_profile,
    fitting,
    parse_host,
    profile_names,
)
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UnknownNameError, UsageError
from edgetrack.io import read_toml
from edgetrack.system.jetson import PowerMode
from edgetrack.system.machine import Gpu, MachineRecord
from edgetrack.system.timeline import Series, Timeline, Window


def machine(**changes):
    values = {"os": "Ubuntu 22.04", "kernel": "1", "architecture": "aarch64", "python": "CPython", "packages": {}}
    return MachineRecord(**{**values, **changes})


def jetson(board):
    return machine(is_jetson=True, device_model=f"NVIDIA {board}")


NAMES = {
    "jetson": jetson("Jetson TX2 Developer Kit"),
    "jetson-agx-thor": jetson("Jetson AGX Thor Developer Kit"),
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


def test_boards_with_the_same_chip_fit_one_profile_and_an_older_one_none():
    for board in ("Raspberry Pi Compute Module 5 Rev 1.0", "Raspberry Pi 500 Rev 1.0"):
        assert fitting(machine(device_model=board)) == ["raspberry-pi-5"]
    assert fitting(machine(device_model="Raspberry Pi 4 Model B Rev 1.5")) == []
    assert fitting(machine(device_model="Raspberry Pi Compute Module 4 Rev 1.1")) == []


@pytest.mark.parametrize(
    ("mode", "cpu_mhz", "codes"),
    [("15W", 1500.0, []), ("25W", 1340.0, []), ("MAXN_SUPER", 1500.0, ["clock-below-profile"]),
     ("7W", 900.0, ["power-mode"])],
)  # fmt: skip
def test_each_power_mode_has_its_own_clocks(mode, cpu_mhz, codes):
    expected = find_profile("jetson-orin-nano").expectation()
    clock = Series("tegrastats", "clock_mhz", "CPU", [cpu_mhz] * 4)
    window, state = Window("a", "track", 0.0, 4.0, 4.0, 100, "cuda:0"), PowerMode(mode, True)
    read = Timeline(interval_s=1.0, t_s=[0.5, 1.5, 2.5, 3.5], series=[clock], windows=[window], power_mode=state)
    found = [*of_device(read, expected), *of_run(read, "a", ["track"], expected)]
    assert [warning.code for warning in found] == codes


def test_a_xavier_runs_onnx_on_its_processor():
    profile = find_profile("jetson-xavier-nx")
    assert profile.device_of(SimpleNamespace(name="a", target="onnx")) == "cpu"
    with pytest.raises(UsageError, match="export it with --target onnx"):
        profile.device_of(SimpleNamespace(name="a", target="tensorrt"))


def bundle(name, target):
    return SimpleNamespace(name=name, target=target)


def test_where_bundles_run_on_a_device():
    profile = find_profile("jetson")
    assert profile.device_of(bundle("a", "tensorrt")) == "cuda:0"
    assert profile.device_of(bundle("a", "onnx")) == "cpu"
    with pytest.raises(UsageError, match="--target tensorrt"):
        profile.device_of(bundle("a", "coreml"))


def test_a_place_that_was_named_with_a_bundle_comes_before_the_profiles():
    choice = DeviceChoice(profile=find_profile("jetson"))
    assert choice.placed(BundleRef(Path("a"), bundle("a", "tensorrt"))).device == "cuda:0"
    assert choice.placed(BundleRef(Path("a"), bundle("a", "torch"), device="cuda:0")).device == "cuda:0"
    assert DeviceChoice("cuda:1").placed(BundleRef(Path("a"), bundle("a", "coreml"))).device == "cuda:1"


def test_what_is_exported_for_a_device_when_nothing_is_named(monkeypatch):
    """The first of its targets that this machine can prove, whether or not it runs here."""
    assert find_profile("jetson").best_target().name == "tensorrt"
    assert find_profile("x86").best_target().name == "openvino"
    monkeypatch.setattr(Target, "installed", False)
    with pytest.raises(BackendMissingError, match=r"export for the device x86.*edgetrack\[openvino\]"):
        find_profile("x86").best_target()


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


PC = MachineRecord(os="an OS", kernel="1", architecture="x86_64", python="CPython", packages={})
JETSON = MachineRecord(
    os="Ubuntu", kernel="1", architecture="aarch64", python="CPython", packages={}, is_jetson=True,
    device_model="NVIDIA Jetson Orin Nano Developer Kit",
)  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return tmp_path / "devices.toml"


@pytest.fixture
def choose(config):
    def call(device, host=None, machine=PC, **options):
        return choose_device(device, host, lambda: machine, config=config, **options)

    return call


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "ane"])
def test_plain_devices_are_here_and_nothing_is_looked_at(device, config):
    def never():
        raise AssertionError

    assert choose_device(device, None, never, config=config).device == device


def test_on_the_device_itself_it_is_local(choose, config):
    config.write_text('[jetson]\nhost = "orin.local"\n')
    choice = choose("jetson", machine=JETSON)
    assert (choice.host, choice.profile.name) == (None, "jetson")
    assert choose("jetson-orin-nano", machine=JETSON).host is None


def test_from_a_workstation_it_is_the_users_host(choose, config):
    config.write_text(
        '[jetson]\nhost = "orin.local"\nuser = "me"\npython = "/opt/e t/python"\nport = 2222\nkey = "~/k"\n'
    )
    choice = choose("jetson")
    assert (choice.host.host, choice.host.user, choice.host.port) == ("orin.local", "me", 2222)
    assert choice.host.python == "/opt/e t/python"
    assert "~" not in str(choice.host.key)


def test_a_name_of_the_users_own(choose, config):
    config.write_text('[desk]\nhost = "10.0.0.7"\nprofile = "jetson-orin-nx"\n')
    assert choose("desk").profile.name == "jetson-orin-nx"


@pytest.mark.parametrize(
    ("name", "section"),
    [("desk", 'host = "10.0.0.7"\nprofile = "x86"'), ("x86", 'host = "10.0.0.7"'), ("local", 'host = "10.0.0.7"')],
)
def test_a_host_that_was_named_is_not_taken_for_this_machine_because_both_are_pcs(choose, config, name, section):
    config.write_text(f"[{name}]\n{section}\n")
    assert choose(name, machine=PC).host.host == "10.0.0.7"
    assert choose(name, machine=PC, here=True).host is None


def test_another_board_like_this_one_has_a_name_of_its_own(choose, config):
    config.write_text('[jetson]\nhost = "orin.local"\n[other]\nhost = "orin2.local"\nprofile = "jetson"\n')
    assert choose("jetson", machine=JETSON).host is None
    assert choose("other", machine=JETSON).host.host == "orin2.local"


def test_without_a_named_host_a_pc_is_this_pc(choose):
    assert (choose("x86").host, choose("x86").profile.name) == (None, "x86")


def test_a_host_on_the_command_line_comes_first(choose, config):
    config.write_text('[jetson]\nhost = "orin.local"\nuser = "me"\nport = 2222\nkey = "/k"\npython = "/p"\n')
    choice = choose("jetson", "other.local")
    assert (choice.host.host, choice.host.user, choice.host.port, str(choice.host.key)) == (
        "other.local",
        "me",
        None,
        "/k",
    )
    assert choice.host.python == "/p"
    assert choose("jetson", "you@other.local:22", machine=JETSON).host.user == "you"
    assert choose("cpu", "pc.local").profile.name == "x86"


def test_here_means_here(choose):
    assert choose("jetson", here=True).host is None


def test_without_a_host_the_three_lines_are_shown(choose, config):
    with pytest.raises(DeviceUnavailableError) as caught:
        choose("jetson")
    assert caught.value.exit_code == 4
    lines = str(caught.value).splitlines()[-3:]
    config.write_text("\n".join(lines))
    assert choose("jetson").host.host == "name-or-address-of-the-device"
    assert str(config) in str(caught.value)


@pytest.mark.parametrize("device", ["jetsn", "-x", "$(reboot)", "cuda:x", "CPU"])
def test_unknown_devices(choose, device):
    with pytest.raises(UnknownNameError):
        choose(device)


def test_a_misspelt_device_names_the_nearest_profile_and_the_users_own(choose, config):
    config.write_text('[desktop]\nhost = "10.0.0.7"\nprofile = "x86"\n')
    with pytest.raises(UnknownNameError, match=r"device 'jetsn' is not known \(did you mean 'jetson'\?\)"):
        choose("jetsn")
    with pytest.raises(UnknownNameError, match=r"did you mean 'desktop'\?"):
        choose("destop")


def test_a_home_folder_in_the_users_file_that_nobody_has_is_left_as_it_is(choose, config):
    config.write_text('[desk]\nhost = "10.0.0.7"\nprofile = "x86"\nkey = "~nobody-of-this-name/k"\n')
    assert choose("desk").host.key == "~nobody-of-this-name/k"


def test_a_plain_device_has_no_host(choose):
    with pytest.raises(UsageError, match="--device cuda:0 with --host"):
        choose("cuda:0", "orin.local")


HOSTILE = [
    "", "-oProxyCommand=touch x", "a b", "a'b", 'a"b', "$(touch x)", "`touch x`", "a;b", "a\nb", "a\x00b", "@host",
    "me@", "-l@host", "me you@host", "host:0", "host:65536", "host:port", "host:-1", "host:٣", "[::1", "a/b", "a" * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_hosts_are_refused(text):
    with pytest.raises(UsageError, match="--host"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("orin.local", ("orin.local", None, None)),
        ("me@10.0.0.7", ("10.0.0.7", "me", None)),
        ("me@orin:2222", ("orin", "me", 2222)),
        ("me@[fe80::1]:2222", ("fe80::1", "me", 2222)),
    ],
)
def test_hosts(text, found):
    section = parse_host(text)
    assert (section.host, section.user, section.port) == found


@pytest.mark.parametrize(
    "text",
    [
        '[a]\nhost = "-oProxyCommand=x"\n',
        '[a]\nhost = "x"\npassword = "secret"\n',
        '[a]\nhost = "x"\nuser = "-l"\n',
        '[a]\nhost = "x"\npython = "a\\nb"\n',
        "[a]\n",
        "a = 1\n",
        "not TOML",
    ],
)
def test_a_users_file_that_is_none(choose, config, text):
    config.write_text(text)
    with pytest.raises(UsageError, match="list of devices"):
        choose("jetson")


def test_the_file_lies_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "edgetrack" / "devices.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_file().parts[-3:] == (".config", "edgetrack", "devices.toml")


def test_the_command_ends_with_4_and_says_what_to_write(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "edgetrack", "bench", "a", "--device", "jetson-xavier-nx"],
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-3] == "[jetson-xavier-nx]"
