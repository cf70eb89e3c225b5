"""Sensors under a made /sys, and libraries of NVIDIA's in place of which stands what their documentation says."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from edgetrack.telemetry.jtop import Jtop
from edgetrack.telemetry.nvml import Nvml
from edgetrack.telemetry.power_mode import PowerMode, parse_jetson_clocks, parse_nvpmodel, read_power_mode
from edgetrack.telemetry.reading import Reading
from edgetrack.telemetry.sources import SOURCE_NAMES, find_sensors
from edgetrack.telemetry.sysfs import CpuClocks, Rapl, ThermalZones, ThrottleCounts


@pytest.fixture
def write(tmp_path):
    def put(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    return put


def test_zones_without_a_sensor_are_left_out_and_twins_told_apart(write, tmp_path):
    for index, (name, value) in enumerate(
        [("cpu-thermal", 44125), ("cv0-thermal", -256000), ("acpitz", 27800), ("acpitz", 29800), ("odd", "no number")]
    ):
        write(f"sys/class/thermal/thermal_zone{index}/type", name)
        write(f"sys/class/thermal/thermal_zone{index}/temp", value)
    assert list(ThermalZones(tmp_path).read()) == [
        Reading("temperature_c", "cpu-thermal", 44.125),
        Reading("temperature_c", "acpitz thermal_zone2", 27.8),
        Reading("temperature_c", "acpitz thermal_zone3", 29.8),
    ]


def test_the_fastest_core_counts(write, tmp_path):
    write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", 600000)
    write("sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", 2400000)
    write("proc/cpuinfo", "cpu MHz\t\t: 1000.0")
    assert list(CpuClocks(tmp_path).read()) == [Reading("clock_mhz", "CPU", 2400.0)]


def test_a_stated_clock_is_named_as_such(write, tmp_path):
    write("proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2596.142\ncpu MHz\t\t: what\n")
    assert list(CpuClocks(tmp_path).read()) == [Reading("clock_mhz", "CPU as stated", 2596.142)]


def test_energy_counters_become_power_also_when_they_begin_anew(write, tmp_path):
    now = [10.0]
    folder = "sys/class/powercap/intel-rapl:0"
    write(f"{folder}/name", "package-0")
    write(f"{folder}/max_energy_range_uj", 1_000_000_000)
    write("sys/class/powercap/intel-rapl:0:0/name", "core")
    write("sys/class/powercap/intel-rapl:0:0/energy_uj", 1)
    write(f"{folder}/energy_uj", 990_000_000)
    source = Rapl(tmp_path, lambda: now[0])
    assert list(source.read()) == []
    now[0], _ = 12.0, write(f"{folder}/energy_uj", 998_000_000)
    assert list(source.read()) == [Reading("power_w", "package-0", 4.0)]
    now[0], _ = 13.0, write(f"{folder}/energy_uj", 3_000_000)
    assert list(source.read()) == [Reading("power_w", "package-0", 5.0)]


def test_throttling_of_intel_and_of_the_raspberry_pi(write, tmp_path):
    assert not ThrottleCounts(tmp_path).found
    for core, count in enumerate([2, 3]):
        write(f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", count)
    flags = write("sys/devices/platform/soc/soc:firmware/get_throttled", "50000")
    source = ThrottleCounts(tmp_path)
    assert list(source.read()) == [Reading("throttle_count", "cores", 5.0), Reading("throttled", "firmware", 0.0)]
    flags.write_text("50005\n")
    assert list(source.read())[1].value == 1.0


JETSON = SimpleNamespace(
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
    readings = {(reading.quantity, reading.name): reading.value for reading in Jtop(JETSON).read()}
    assert readings == {
        ("power_w", "VDD_CPU_GPU_CV"): 0.881,
        ("power_w", "TOT"): 3.852,
        ("temperature_c", "cpu"): 44.656,
        ("clock_mhz", "gpu"): 624.75,
        ("load_percent", "gpu"): 26.7,
        ("clock_mhz", "CPU"): 1510.4,
        ("memory_mb", "RAM"): 2048.0,
    }
    assert (Jtop(JETSON).power_mode(), Jtop(JETSON).jetson_clocks()) == ("15W", False)


XAVIER_NX = SimpleNamespace(
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
    readings = {(reading.quantity, reading.name): reading.value for reading in Jtop(XAVIER_NX).read()}
    assert readings["power_w", "TOT"] == 4.975
    assert readings["power_w", "VDD_SOC"] == 1.093
    assert readings["clock_mhz", "gv11b"] == 1109.25
    assert readings["clock_mhz", "CPU"] == 1420.8
    assert readings["memory_mb", "RAM"] == 2690.0
    assert ("temperature_c", "PMIC") not in readings
    assert (Jtop(XAVIER_NX).power_mode(), Jtop(XAVIER_NX).jetson_clocks()) == ("15W_6CORE", True)


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


class Library:
    """NVML with one GPU that does not tell its memory."""

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    class NVMLError(Exception):
        pass

    def __init__(self, count=1, reasons=0):
        self.count, self.reasons, self.shut = count, reasons, 0

    def nvmlInit(self):  # noqa: N802 - NVML's names
        pass

    def nvmlShutdown(self):  # noqa: N802
        self.shut += 1

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetPowerUsage": lambda gpu: 123456,
            "nvmlDeviceGetTemperature": lambda gpu, kind: 61,
            "nvmlDeviceGetClockInfo": lambda gpu, kind: 1980,
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=97),
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: self.reasons,
        }
        if name in answers:
            return answers[name]

        def refuse(*arguments):
            raise self.NVMLError(name)

        return refuse


@pytest.mark.parametrize(("reasons", "throttled"), [(0x1, 0.0), (0x4, 1.0), (0x20, 1.0), (0x2, 0.0)])
def test_nvml_in_our_units(reasons, throttled):
    library = Library(reasons=reasons)
    source = Nvml(library)
    assert [(reading.quantity, reading.name, reading.value) for reading in source.read()] == [
        ("power_w", "cuda:0", 123.456),
        ("temperature_c", "cuda:0", 61.0),
        ("clock_mhz", "cuda:0", 1980.0),
        ("load_percent", "cuda:0", 97.0),
        ("throttled", "cuda:0", throttled),
    ]
    source.close()
    source.close()
    assert library.shut == 1


def test_no_gpu_is_an_error():
    with pytest.raises(OSError, match="no GPU"):
        Nvml(Library(count=0))


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
    assert parse_jetson_clocks("permission denied") is None


def test_where_jetson_clocks_wants_root_the_processors_limits_tell(write, tmp_path):
    def run(command, **options):
        text = "NV Power Mode: MAXN\n0\n" if command[0] == "nvpmodel" else "root please"
        return subprocess.CompletedProcess(command, int(command[0] == "jetson_clocks"), text, "")

    for name in ("scaling_min_freq", "scaling_max_freq"):
        write(f"sys/devices/system/cpu/cpufreq/policy0/{name}", 1510400)
    assert read_power_mode(tmp_path, run) == PowerMode("MAXN", True)


def test_what_was_asked_for_and_is_not_there_is_reported(tmp_path):
    found = find_sensors(["rapl", "thermal", "nvml", "jtop", "tegrastats"], root=tmp_path)
    assert found.sources == []
    assert [missing.source for missing in found.missing] == ["rapl", "thermal", "nvml", "jtop", "tegrastats"]
    assert all(missing.reason for missing in found.missing)
    assert find_sensors(None, root=tmp_path).missing == []


def test_this_machines_own_sensors_can_be_read():
    found = find_sensors()
    assert {source.name for source in found.sources} <= set(SOURCE_NAMES)
    for source in found.sources:
        assert all(isinstance(reading.value, float) for reading in source.read())
        source.close()
