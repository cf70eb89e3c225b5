"""Lines as boards print them; sources: forum posts and logs of the boards named, shortened where noted."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.devices.profiles import find_profile
from edgetrack.system.jetson import (
    Jtop,
    PowerMode,
    Tegrastats,
    parse_jetson_clocks,
    parse_line,
    parse_nvpmodel,
    read_power_mode,
)
from edgetrack.system.timeline import Series, Timeline, Window, energy_of

ORIN_NANO = (
    "09-21-2025 15:38:17 RAM 3645/7620MB (lfb 63x4MB) SWAP 236/3810MB (cached 0MB) "
    "CPU [1%@729,1%@729,4%@729,1%@729,0%@729,0%@729] EMC_FREQ 0%@204 GR3D_FREQ 0%@[305] NVDEC off NVJPG off "
    "NVJPG1 off VIC off OFA off APE 200 cpu@44.125C soc2@43.375C soc0@42.125C gpu@44.531C tj@44.531C soc1@43.156C "
    "VDD_IN 2957mW/2957mW VDD_CPU_GPU_CV 486mW/486mW VDD_SOC 1012mW/1012mW"
)
AGX_ORIN = (
    "RAM 11231/30536MB (lfb 3457x4MB) SWAP 0/15268MB (cached 0MB) CPU [100%@2201,100%@2201,99%@2201,off] "
    "EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 115 NVDLA0_FREQ @1600 APE 174 CV0@73.625C CPU@77.281C "
    "Tboard@62C SOC2@70C Tdiode@62.25C SOC0@69.531C CV1@-256C GPU@69.125C tj@77.281C SOC1@68.968C "
    "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW NC 0mW/0mW NC 16mW/0mW "
    "VDDQ_VDD2_1V8AO 1091mW/1091mW"
)
JETPACK_7 = (
    "09-01-2026 09:25:18 RAM 5739/7546MB (lfb 1x2MB) SWAP 2047/2048MB (cached 209MB) "
    "CPU [72%@1728,75%@1728,88%@1728,79%@1728,87%@1728,78%@1728] GR3D_FREQ 33% cpu@50C/50C soc2@47.937C/47.937C "
    "gpu@48.75C/48.75C tj@50C/50C VDD_IN 9761mW/9761mW/9761mW VDD_CPU_GPU_CV 4238mW/4238mW/4238mW "
    "VDD_SOC 1825mW/1825mW/1825mW"
)
THOR = (
    "11-20-2025 10:02:11 RAM 8231/125772MB (lfb 27x4MB) CPU [2%@972,0%@972,1%@2601,off] EMC_FREQ 0%@4266 "
    "GR3D_FREQ @[0,0,0] cpu@43.5C tj@44.218C soc012@44.218C soc345@42.656C VDD_GPU -392mW/-392mW "
    "VDD_CPU_SOC_MSS 3924mW/3910mW "
    "VIN_SYS_5V0 6520mW/6500mW VIN 23100mW/23000mW"
)
XAVIER_NX = (
    "RAM 2690/6854MB (lfb 6x1MB) SWAP 479/3427MB (cached 3MB) CPU [3%@1904,7%@1906,1%@1905,0%@1907,off,off] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] VIC_FREQ 601 APE 150 AUX@39C CPU@39.5C AO@37.5C GPU@37.5C PMIC@50C "
    "VDD_IN 5079mW/5079mW VDD_CPU_GPU_CV 696mW/696mW VDD_SOC 1104mW/1104mW"
)
AGX_XAVIER = (
    "RAM 3000/31920MB (lfb 6000x4MB) CPU [10%@1190,5%@1190] EMC_FREQ 0% GR3D_FREQ 20% AO@34C GPU@34.5C Tdiode@37.25C "
    "GPU 310mW/155mW CPU 465mW/465mW SOC 1242mW/1242mW CV 0mW/0mW VDDRQ 155mW/155mW SYS5V 2760mW/2760mW"
)
NANO = (
    "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224,15%@1224,13%@1224,10%@1224] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@21C CPU@25C PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C POM_5V_IN 2545/2547 POM_5V_GPU 0/0 "
    "POM_5V_CPU 549/529"
)


def found(line, quantity):
    return {reading.name: reading.value for reading in parse_line(line) if reading.quantity == quantity}


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (ORIN_NANO, {"VDD_IN": 2.957, "VDD_CPU_GPU_CV": 0.486, "VDD_SOC": 1.012}),
        (JETPACK_7, {"VDD_IN": 9.761, "VDD_CPU_GPU_CV": 4.238, "VDD_SOC": 1.825}),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 3.15, "VDD_CPU_CV": 14.312, "VIN_SYS_5V0": 4.968, "VDDQ_VDD2_1V8AO": 1.091},
        ),
        (THOR, {"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 3.924, "VIN_SYS_5V0": 6.52, "VIN": 23.1}),
        (XAVIER_NX, {"VDD_IN": 5.079, "VDD_CPU_GPU_CV": 0.696, "VDD_SOC": 1.104}),
        (AGX_XAVIER, {"GPU": 0.31, "CPU": 0.465, "SOC": 1.242, "CV": 0.0, "VDDRQ": 0.155, "SYS5V": 2.76}),
        (NANO, {"POM_5V_IN": 2.545, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.549}),
    ],
)
def test_power_is_that_of_the_moment_in_watts(line, rails):
    assert found(line, "power_w") == pytest.approx(rails)


@pytest.mark.parametrize(
    ("line", "profile", "watts"),
    [(ORIN_NANO, "jetson-orin-nano", 2.957), (AGX_ORIN, "jetson-agx-orin", 22.43), (AGX_ORIN, "jetson", 22.43),
     (THOR, "jetson-agx-thor", 23.1), (THOR, "jetson", 23.1),
     (THOR.partition(" VIN ")[0], "jetson-agx-thor", 10.052),
     (XAVIER_NX, "jetson-xavier-nx", 5.079), (XAVIER_NX, "jetson", 5.079)],
)  # fmt: skip
def test_a_boards_profile_finds_the_power_of_the_whole_module(line, profile, watts):
    series = [Series("tegrastats", r.quantity, r.name, [r.value] * 4) for r in parse_line(line)]
    window = Window("a", "track", 0.0, 4.0, 4.0, 100)
    timeline = Timeline(interval_s=1.0, t_s=[0.5, 1.5, 2.5, 3.5], series=series, windows=[window])
    energy = energy_of(timeline, "a", "track", find_profile(profile).expectation().rails)
    assert energy.mean_w == pytest.approx(watts)
    assert energy.mj_per_frame == pytest.approx(watts * 40)


def test_temperatures_without_the_constant_of_the_power_chip():
    assert found(XAVIER_NX, "temperature_c") == {"AUX": 39.0, "CPU": 39.5, "AO": 37.5, "GPU": 37.5}
    assert found(JETPACK_7, "temperature_c")["tj"] == 50.0


def test_zones_that_are_powered_down_are_left_out():
    assert found("RAM 1/2MB (lfb 1x1MB) CV0@-256C CPU@44.1C", "temperature_c") == {"CPU": 44.1}


def test_clocks_and_loads_leave_out_cores_that_are_off():
    assert found(XAVIER_NX, "clock_mhz") == {"CPU": 1907.0, "GPU": 510.0, "EMC": 1600.0}
    assert found(XAVIER_NX, "load_percent") == {"CPU": 2.75, "GPU": 0.0}
    assert found(AGX_ORIN, "clock_mhz") == {"CPU": 2201.0, "GPU": 407.0, "EMC": 2133.0}
    assert "CV1" not in found(AGX_ORIN, "temperature_c")
    assert found(JETPACK_7, "clock_mhz") == {"CPU": 1728.0}
    assert found(JETPACK_7, "load_percent")["GPU"] == 33.0


def test_memory():
    assert found(ORIN_NANO, "memory_mb") == {"RAM": 3645.0}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "tegrastats: permission denied",
        "CPU [off,off]",
        "VDD_IN mW/mW GR3D_FREQ %@",
        "RAM x/yMB CPU [1%@] EMC_FREQ",
        "VDD_IN 99999999999999999999mW/1mW",
        "@C" * 10_000,
    ],
)
def test_what_is_no_line_says_nothing(line):
    assert parse_line(line) == []


def test_a_line_that_is_cut_off_says_what_it_can():
    assert {reading.name for reading in parse_line(ORIN_NANO[:300])} >= {"RAM", "CPU", "cpu"}
    for end in range(len(ORIN_NANO)):
        parse_line(ORIN_NANO[:end])


@given(st.text())
def test_no_text_is_an_error(text):
    parse_line(text)


def program(*lines, end=""):
    code = f"for line in {list(lines)!r}: print(line, flush=True)\n{end}"
    return [sys.executable, "-S", "-c", code]


def test_the_last_line_of_a_running_program_is_read():
    source = Tegrastats(program("rubbish", XAVIER_NX, "more rubbish", end="import sys; sys.stdin.read()"))
    source._reader.join(60)
    assert {reading.name for reading in source.read()} >= {"VDD_IN", "RAM"}
    source.close()


def test_an_old_line_is_none_and_a_program_that_ended_is_an_error():
    now = [0.0]
    source = Tegrastats(program(XAVIER_NX), now=lambda: now[0])
    source._reader.join(60)
    source._process.wait(60)
    assert list(source.read())
    now[0] = 10.0
    with pytest.raises(OSError, match="ended with exit code 0"):
        list(source.read())
    source.close()


def test_a_program_that_never_ends_is_ended():
    source = Tegrastats(program(XAVIER_NX, end="import time\nwhile True: time.sleep(60)"))
    source.close()
    assert source._process.returncode is not None


def test_a_missing_program_is_an_error():
    with pytest.raises(OSError, match="no-such-program"):
        Tegrastats(["no-such-program"])


ORIN_STATS = SimpleNamespace(
    power={
        "rail": {"VDD_CPU_GPU_CV": {"volt": 4960, "curr": 178, "power": 881, "avg": 880}, "odd": {"power": None}},
        "tot": {"volt": 4968, "curr": 775, "power": 3852, "avg": 3850, "name": "VDD_IN"},
    },
    temperature={"cpu": {"temp": 44.656, "online": True}, "cv0": {"temp": -256, "online": False}},
    gpu={"gpu": {"type": "integrated", "status": {"load": 26.7}, "freq": {"cur": 624750, "max": 624750}}},
    cpu={"cpu": [{"online": True, "freq": {"cur": 729600}}, {"online": True, "freq": {"cur": 1510400}}, {"online": 0}]},
    memory={"RAM": {"tot": 7803000, "used": 2097152}},
    stats={"nvp model": "15W", "jetson_clocks": "OFF", "Power TOT": 3852},
    close=lambda: None,
)


def test_jetson_stats_in_our_units():
    readings = {(reading.quantity, reading.name): reading.value for reading in Jtop(ORIN_STATS).read()}
    assert readings == {
        ("power_w", "VDD_CPU_GPU_CV"): 0.881,
        ("power_w", "TOT"): 3.852,
        ("temperature_c", "cpu"): 44.656,
        ("clock_mhz", "gpu"): 624.75,
        ("load_percent", "gpu"): 26.7,
        ("clock_mhz", "CPU"): 1510.4,
        ("memory_mb", "RAM"): 2048.0,
    }
    assert (Jtop(ORIN_STATS).power_mode(), Jtop(ORIN_STATS).jetson_clocks()) == ("15W", False)


def test_jetson_stats_calls_modes_as_nvpmodel_does_and_reads_no_channel_without_a_rail():
    odd = SimpleNamespace(stats={"nvp model": "MODE_30W"}, power={"rail": {"NC": {"power": 16}}}, close=lambda: None)
    assert Jtop(odd).power_mode() == parse_nvpmodel("NV Power Mode: MODE_30W\n2\n") == "30W"
    assert list(Jtop(odd).read()) == []


XAVIER_NX_STATS = SimpleNamespace(
    power={
        "rail": {
            "VDD_CPU_GPU_CV": {"volt": 5064, "curr": 136, "power": 688, "avg": 690, "warn": 32760, "crit": 32760},
            "VDD_SOC": {"volt": 5064, "curr": 216, "power": 1093, "avg": 1094, "warn": 32760, "crit": 32760},
        },
        "tot": {"volt": 5056, "curr": 984, "power": 4975, "avg": 4970, "warn": 3000, "crit": 3600, "name": "VDD_IN"},
    },
    temperature={"AO": {"temp": 37.5, "online": True}, "CPU": {"temp": 39.0, "online": True}, "PMIC": {"temp": 50.0}},
    gpu={"gv11b": {"type": "integrated", "status": {"load": 0.0}, "freq": {"cur": 1109250, "max": 1109250}}},
    cpu={"cpu": [{"online": True, "freq": {"cur": 1420800}}, {"online": False}]},
    memory={"RAM": {"tot": 7018772, "used": 2754560}},
    stats={"nvp model": "15W_6CORE", "jetson_clocks": "ON"},
    close=lambda: None,
)


def test_jetson_stats_of_an_older_board():
    readings = {(reading.quantity, reading.name): reading.value for reading in Jtop(XAVIER_NX_STATS).read()}
    assert readings["power_w", "TOT"] == 4.975
    assert readings["power_w", "VDD_SOC"] == 1.093
    assert readings["clock_mhz", "gv11b"] == 1109.25
    assert readings["clock_mhz", "CPU"] == 1420.8
    assert readings["memory_mb", "RAM"] == 2690.0
    assert ("temperature_c", "PMIC") not in readings
    assert (Jtop(XAVIER_NX_STATS).power_mode(), Jtop(XAVIER_NX_STATS).jetson_clocks()) == ("15W_6CORE", True)


@pytest.mark.parametrize("odd", [None, [], "x", {"rail": 3, "cpu": {"a": 1}, "RAM": None, "tot": {"power": True}}])
def test_jetson_stats_of_another_shape_says_nothing(odd):
    names = ("power", "temperature", "gpu", "cpu", "memory", "stats")
    jetson = SimpleNamespace(**dict.fromkeys(names, odd), close=lambda: None)
    assert list(Jtop(jetson).read()) == []
    assert Jtop(jetson).jetson_clocks() is None


def test_a_service_that_is_gone_is_an_error_of_ours():
    class Gone:
        @property
        def power(self):
            raise RuntimeError("Lost connection")

    with pytest.raises(OSError, match="Lost connection"):
        list(Jtop(Gone()).read())


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NV Power Mode: 15W\n0\n", "15W"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", "15W_6CORE"),
        ("nvpmodel: command failed", None),
        ("", None),
    ],
)
def test_the_power_modes_name(text, mode):
    assert parse_nvpmodel(text) == mode


CLOCKS = """SOC family:tegra234  Machine:NVIDIA Jetson Orin NX Engineering Reference Developer Kit
Online CPUs: 0-1
cpu0:  Online=1 Governor=schedutil MinFreq={low} MaxFreq=1510400 CurrentFreq=1510400 IdleStates: WFI=1 c7=1
cpu1:  Online=0 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=729600 IdleStates: WFI=1 c7=1
GPU MinFreq=624750000 MaxFreq=624750000 CurrentFreq=624750000
"""


@pytest.mark.parametrize(("low", "fixed"), [(1510400, True), (729600, False)])
def test_fixed_clocks(low, fixed):
    assert parse_jetson_clocks(CLOCKS.format(low=low)) is fixed
    assert parse_jetson_clocks(CLOCKS.format(low=low).replace("Online=1 ", "")) is fixed
    assert parse_jetson_clocks("permission denied") is None


def test_where_jetson_clocks_wants_root_the_processors_limits_tell(write, tmp_path):
    def run(command, **options):
        text = "NV Power Mode: MAXN\n0\n" if command[0] == "nvpmodel" else "root please"
        return subprocess.CompletedProcess(command, int(command[0] == "jetson_clocks"), text, "")

    for name in ("scaling_min_freq", "scaling_max_freq"):
        write(f"sys/devices/system/cpu/cpufreq/policy0/{name}", 1510400)
    assert read_power_mode(tmp_path, run) == PowerMode("MAXN", True)
