"""Sensors under a made /sys, and libraries of NVIDIA's in place of which stands what their documentation says."""

from __future__ import annotations

import pytest

from edgetrack.system.sensors import CpuClocks, Rapl, Reading, ThermalZones, ThrottleCounts


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


PI_4, PI_5 = "soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"


@pytest.mark.parametrize("folder", [PI_4, PI_5])
def test_throttling_of_intel_and_of_the_raspberry_pi(write, tmp_path, folder):
    assert not ThrottleCounts(tmp_path).found
    for core, count in enumerate([2, 3]):
        write(f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", count)
    flags = write(f"sys/devices/platform/{folder}/get_throttled", "50000")
    source = ThrottleCounts(tmp_path)
    assert list(source.read()) == [Reading("throttle_count", "cores", 5.0), Reading("throttled", "firmware", 0.0)]
    flags.write_text("50005\n")
    assert list(source.read())[1].value == 1.0
