from __future__ import annotations

import importlib.metadata
import json
import subprocess

import msgspec
import pytest

from edgetrack.system.machine import CPU_FLAGS, PACKAGES, Gpu, MachineRecord, collect, cpu_flags

EPYC_CORE = """\
processor\t: {index}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9354 32-Core Processor
cpu MHz\t\t: {mhz}
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu sse2 fma avx f16c avx2 avx512f avx512_bf16 avx512_vnni {extra}
power management: ts ttp tm hwpstate cpb eff_freq_ro [13] [14]
"""
ORIN_CORE = """\
processor\t: {index}
model name\t: ARMv8 Processor rev 1 (v8l)
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""
PI_CORE = """\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
PI_BOARD = "Revision\t: c04170\nSerial\t\t: 1f2e3d4c5b6a7988\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
MEMINFO = "MemTotal:       {total} kB\nMemFree:         1000000 kB\nMemAvailable:   {available} kB\n"
TEGRA = (
    "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 04:36:44 UTC 2024"
)
NO_LIMIT_V1 = "9223372036854771712"


def grow(root, files):
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


def no_command(command, **settings):
    raise FileNotFoundError(command[0])


def answering(answers):
    """A `run` that answers by the program's name and fails for others as a shell-less start does."""

    def run(command, **settings):
        assert settings["timeout"] > 0
        if command[0] not in answers:
            raise FileNotFoundError(command[0])
        code, out = answers[command[0]]
        return subprocess.CompletedProcess(command, code, stdout=out, stderr="")

    return run


def no_package(name):
    raise importlib.metadata.PackageNotFoundError(name)


def look(root, run=no_command, system="Linux", affinity=lambda: None, version=no_package, packages=()):
    return collect(packages, root=root, run=run, system=system, affinity=affinity, version=version)


@pytest.fixture
def epyc(tmp_path):
    cores = [EPYC_CORE.format(index=i, core=i // 2, mhz=2600 + i, extra="" if i else "amx_tile") for i in range(4)]
    return grow(
        tmp_path,
        {
            "proc/cpuinfo": "\n".join(cores) + "\n",
            "proc/meminfo": MEMINFO.format(total=32 * 2**20, available=24 * 2**20),
            "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
            "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
            "proc/sys/kernel/hostname": "secret-host\n",
            "etc/hostname": "secret-host\n",
            "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\n',
            "proc/driver/nvidia/version": (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n"
                "GCC version:  gcc version 13.2.0 (Ubuntu 13.2.0-23ubuntu4)\n"
            ),
            "dev/nvidia0": "",
            **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor": "schedutil\n" for i in range(4)},
            **{f"sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq": "3799072\n" for i in range(4)},
            "sys/devices/system/cpu/cpufreq/boost": "1\n",
        },
    )


@pytest.fixture
def orin(tmp_path):
    clusters = {i: "729600" if i < 4 else "2201600" for i in range(8)}
    return grow(
        tmp_path,
        {
            "proc/cpuinfo": "\n".join(ORIN_CORE.format(index=i) for i in range(8)),
            "proc/meminfo": MEMINFO.format(total=15 * 2**20, available=12 * 2**20),
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "etc/nv_tegra_release": TEGRA + "\n# KERNEL_VARIANT: oot\n",
            "proc/driver/nvidia/version": (
                "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@host)\n"
            ),
            **{f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i}\n" for i in range(8)},
            **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": f"{clusters[i]}\n" for i in range(8)},
            **{f"sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq": "2201600\n" for i in range(8)},
        },
    )


@pytest.fixture
def pi5(tmp_path):
    return grow(
        tmp_path,
        {
            "proc/cpuinfo": "\n".join(PI_CORE.format(index=i) for i in range(4)) + "\n" + PI_BOARD,
            "proc/meminfo": MEMINFO.format(total=8 * 2**20, available=7 * 2**20),
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
        },
    )


def named(**fields):
    return MachineRecord(os="an OS", kernel="1", architecture="x86_64", python="CPython", packages={}, **fields)


def test_a_virtual_machines_processor_is_told_from_others_of_its_name_by_its_instructions():
    old = named(cpu_model="AMD EPYC", cpu_flags=("avx2", "fma"), usable_cores=2)
    new = msgspec.structs.replace(old, cpu_flags=("avx2", "avx512f", "avx512_bf16", "fma"))
    assert old.processor == "AMD EPYC (avx2 fma)"
    assert old.kind == "AMD EPYC (avx2 fma), 2 cores" != new.kind


def test_a_name_with_a_number_stands_alone():
    record = named(cpu_model="AMD EPYC 9354 32-Core Processor", cpu_flags=("avx2",), usable_cores=1)
    assert record.processor == "AMD EPYC 9354 32-Core Processor"
    assert record.kind == "AMD EPYC 9354 32-Core Processor, 1 core"
    assert named(cpu_flags=("avx2",)).processor == "x86_64"


def test_a_board_and_its_gpus_are_the_kind():
    gpus = (Gpu("NVIDIA A2", "550", 1), Gpu("NVIDIA A2", "550", 1))
    assert named(device_model="A board", cpu_model="Cortex", gpus=gpus).kind == "A board, NVIDIA A2"


class TestBoards:
    def test_epyc_with_a_graphics_card(self, epyc):
        smi = "NVIDIA GeForce RTX 3090, 550.54.14, 24576 MiB\nNVIDIA A2, 550.54.14, 15356 MiB\n"
        record = look(epyc, run=answering({"nvidia-smi": (0, smi)}))
        assert (record.os, record.kernel) == ("Ubuntu 24.04.1 LTS", "6.8.0-45-generic")
        assert record.cpu_model == "AMD EPYC 9354 32-Core Processor"
        assert (record.physical_cores, record.logical_cores, record.usable_cores) == (2, 4, 4)
        assert record.cpu_flags == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "f16c", "fma")
        assert (record.governor, record.current_mhz, record.max_mhz) == ("schedutil", 2603.0, 3799.072)
        assert (record.memory_total_mib, record.memory_available_mib) == (32768, 24576)
        assert record.load_average == (0.52, 0.58, 0.59)
        assert (record.nvidia_present, record.nvidia_driver) == (True, "550.54.14")
        assert record.gpus == (
            Gpu("NVIDIA GeForce RTX 3090", "550.54.14", 24576),
            Gpu("NVIDIA A2", "550.54.14", 15356),
        )
        assert (record.is_jetson, record.device_model, record.container) == (False, None, None)

    def test_jetson_orin(self, orin):
        record = look(orin, run=answering({"nvidia-smi": (0, "Orin (nvgpu), 540.4.0, [N/A]\n")}))
        assert record.device_model == "NVIDIA Jetson AGX Orin Developer Kit"
        assert (record.is_jetson, record.l4t) == (True, "36.4.0")
        assert record.cpu_model == "Cortex-A78AE"
        assert (record.physical_cores, record.logical_cores) == (8, 8)
        assert record.cpu_flags == ("asimd", "asimdhp", "asimddp")
        assert (record.current_mhz, record.max_mhz) == (2201.6, 2201.6)
        assert record.nvidia_driver == "540.4.0"
        assert record.gpus == (Gpu("Orin (nvgpu)", "540.4.0", None),)

    def test_jetson_is_known_by_its_board_alone(self, orin):
        (orin / "etc/nv_tegra_release").unlink()
        record = look(orin)
        assert (record.is_jetson, record.l4t) == (True, None)

    def test_raspberry_pi_5(self, pi5):
        record = look(pi5)
        assert record.device_model == "Raspberry Pi 5 Model B Rev 1.0"
        assert (record.cpu_model, record.logical_cores, record.physical_cores) == ("Cortex-A76", 4, None)
        assert record.governor == "ondemand, performance"
        assert (record.is_jetson, record.nvidia_present, record.gpus) == (False, False, ())

    def test_a_processor_of_two_kinds_names_both_and_keeps_the_common_flags(self, tmp_path):
        big = PI_CORE.format(index=1).replace("asimddp", "asimddp bf16 i8mm sve")
        unknown = PI_CORE.format(index=2).replace("0xd0b", "0xfff")
        text = "\n".join([PI_CORE.format(index=0), big, unknown])
        grow(tmp_path, {"proc/cpuinfo": text})
        assert look(tmp_path).cpu_model == "Cortex-A76 + Arm implementer 0x41 part 0xfff"
        assert cpu_flags(tmp_path) == ("asimd", "asimdhp", "asimddp")

    @pytest.mark.parametrize(
        ("implementer", "part", "name"),
        [
            ("0x41", "0xd83", "Neoverse-V3AE"),
            ("0x41", "0xd85", "Cortex-X925"),
            ("0x51", "0x001", "Oryon"),
            ("0xc0", "0xac3", "AmpereOne"),
            ("0x61", "0x000", "Arm implementer 0x61 part 0x0"),
        ],
    )
    def test_names_of_arms_processors(self, tmp_path, implementer, part, name):
        text = PI_CORE.format(index=0).replace("0x41", implementer).replace("0xd0b", part)
        assert look(grow(tmp_path, {"proc/cpuinfo": text})).cpu_model == name

    def test_flags_of_armv9(self, tmp_path):
        text = PI_CORE.format(index=0).replace("asimddp", "asimddp sve i8mm bf16 sve2 svei8mm svebf16")
        grow(tmp_path, {"proc/cpuinfo": text})
        assert cpu_flags(tmp_path)[3:] == ("bf16", "i8mm", "sve", "svebf16", "svei8mm", "sve2")

    @pytest.mark.parametrize(
        ("capacities", "allowed", "fast", "usable"),
        [
            ([410] * 4 + [1024] * 2 + [1010] * 2, range(8), 4, 4),
            ([410] * 4 + [1024] * 4, range(4), None, 4),
            ([410] * 4 + [1024] * 4, range(3, 6), 2, 2),
            ([250] * 4 + [870] * 3 + [1024], range(8), 4, 4),
            ([1024] * 8, range(8), None, 8),
        ],
        ids=["RK3588", "its slow ones alone", "some of both", "a phone", "all alike"],
    )
    def test_slow_cores_are_left_out_where_there_are_fast_ones(self, tmp_path, capacities, allowed, fast, usable):
        cores = {f"sys/devices/system/cpu/cpu{i}/cpu_capacity": f"{c}\n" for i, c in enumerate(capacities)}
        grow(tmp_path, {"proc/cpuinfo": "\n".join(PI_CORE.format(index=i) for i in range(8)), **cores})
        record = look(tmp_path, affinity=lambda: set(allowed))
        assert (record.fast_cores, record.usable_cores) == (fast, usable)

    def test_nothing_at_all(self, tmp_path):
        record = look(tmp_path)
        assert record == MachineRecord(
            os="Linux", kernel=record.kernel, architecture=record.architecture, python=record.python, packages={}
        )
        assert cpu_flags(tmp_path) == ()

    @pytest.mark.parametrize("garbage", ["", "\n\n", "processor\nmodel name", "MemTotal: many kB", "\0\xff"])
    def test_garbage_is_no_error(self, tmp_path, garbage):
        names = [
            "cpuinfo",
            "meminfo",
            "loadavg",
            "self/cgroup",
            "1/cgroup",
            "device-tree/model",
            "driver/nvidia/version",
        ]
        grow(tmp_path, {f"proc/{name}": garbage for name in names})
        grow(tmp_path, {"sys/fs/cgroup/cpu.max": garbage, "sys/fs/cgroup/memory.max": garbage})
        record = look(tmp_path)
        assert (record.memory_total_mib, record.cpu_quota, record.load_average) == (None, None, None)


class TestLimits:
    def test_affinity_narrows_the_usable_cores(self, epyc):
        assert look(epyc, affinity=lambda: {0, 2, 3}).usable_cores == 3

    @pytest.mark.parametrize(
        ("maximum", "quota", "usable"),
        [("max 100000", None, 4), ("150000 100000", 1.5, 1), ("20000 100000", 0.2, 1), ("800000 100000", 8.0, 4)],
    )
    def test_quota_of_cgroup_v2(self, epyc, maximum, quota, usable):
        grow(epyc, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": maximum + "\n"})
        record = look(epyc)
        assert (record.cpu_quota, record.usable_cores) == (quota, usable)

    def test_the_tightest_quota_on_the_way_up_counts(self, epyc):
        grow(
            epyc,
            {
                "proc/self/cgroup": "0::/user.slice/app.scope\n",
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
            },
        )
        assert look(epyc).cpu_quota == 2.0

    @pytest.mark.parametrize("mounted", ["cpu,cpuacct", "cpu"])
    def test_quota_of_cgroup_v1_where_the_hosts_path_is_not_there(self, epyc, mounted):
        grow(
            epyc,
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
                f"sys/fs/cgroup/{mounted}/cpu.cfs_quota_us": "250000\n",
                f"sys/fs/cgroup/{mounted}/cpu.cfs_period_us": "100000\n",
            },
        )
        record = look(epyc)
        assert (record.cpu_quota, record.usable_cores) == (2.5, 2)

    def test_no_quota_in_cgroup_v1_is_minus_one(self, epyc):
        grow(
            epyc,
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
        )
        assert look(epyc).cpu_quota is None

    def test_memory_of_cgroup_v2_counts_droppable_cache_as_available(self, epyc):
        grow(
            epyc,
            {
                "proc/self/cgroup": "0::/../../pod\n",
                "sys/fs/cgroup/memory.max": str(4096 * 2**20),
                "sys/fs/cgroup/memory.current": str(3072 * 2**20),
                "sys/fs/cgroup/memory.stat": f"anon 1000\nfile 2000\ninactive_file {1024 * 2**20}\n",
            },
        )
        record = look(epyc)
        assert (record.memory_total_mib, record.memory_available_mib) == (4096, 2048)

    def test_memory_of_cgroup_v1(self, epyc):
        grow(
            epyc,
            {
                "proc/self/cgroup": "4:memory:/jobs/one\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000",
                "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": str(512 * 2**20),
                "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": str(600 * 2**20),
            },
        )
        record = look(epyc)
        assert (record.memory_total_mib, record.memory_available_mib) == (512, 0)

    def test_no_limit_is_the_machines_memory(self, epyc):
        grow(epyc, {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1000\n"})
        assert look(epyc).memory_total_mib == 32768


class TestGpu:
    def test_open_module_of_an_x86_driver(self, tmp_path):
        text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs-builder@U16)\n"
        grow(tmp_path, {"proc/driver/nvidia/version": text})
        record = look(tmp_path)
        assert (record.nvidia_present, record.nvidia_driver, record.gpus) == (True, "560.35.03", ())

    def test_known_by_nvidia_smi_alone(self, tmp_path):
        record = look(tmp_path, run=answering({"nvidia-smi": (0, "NVIDIA T4, 535.1, 15360 MiB")}))
        assert (record.nvidia_present, record.nvidia_driver) == (True, "535.1")

    def test_known_by_its_device_file_alone(self, tmp_path):
        record = look(grow(tmp_path, {"dev/nvidia0": ""}))
        assert (record.nvidia_present, record.nvidia_driver, record.gpus) == (True, None, ())

    @pytest.mark.parametrize(
        "run",
        [
            answering(
                {"nvidia-smi": (9, "NVIDIA-SMI has failed because it couldn't talk to the driver, sorry, really")}
            ),
            answering({"nvidia-smi": (0, "No devices were found")}),
        ],
    )
    def test_a_failing_nvidia_smi_is_no_gpu(self, tmp_path, run):
        record = look(tmp_path, run=run)
        assert (record.nvidia_present, record.gpus) == (False, ())

    def test_a_hanging_nvidia_smi_is_given_up(self, tmp_path):
        def hang(command, timeout, **settings):
            raise subprocess.TimeoutExpired(command, timeout)

        assert look(tmp_path, run=hang).gpus == ()


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"proc/1/cgroup": "1:name=systemd:/kubepods/burstable/pod1234-secret\n"}, "kubepods"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
    ],
)
def test_container(tmp_path, files, container):
    assert look(grow(tmp_path, files)).container == container


def test_macos_is_read_without_proc(epyc):
    answers = {"machdep.cpu.brand_string": "Apple M2\n", "hw.model": "Mac14,2\n"}

    def run(command, **settings):
        if command[0] != "sysctl":
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, stdout=answers[command[-1]], stderr="")

    record = look(epyc, run=run, system="Darwin")
    assert record.os.startswith("macOS")
    assert (record.cpu_model, record.device_model, record.cpu_flags) == ("Apple M2", "Mac14,2", ())
    assert record.memory_total_mib > 0


def test_macos_without_sysctl(tmp_path):
    record = look(tmp_path, system="Darwin")
    assert (record.cpu_model, record.device_model) == (None, None)


def test_packages_that_are_absent_are_left_out(tmp_path):
    def version(name):
        return {"numpy": "2.3.5", "torch": "2.13.0+cpu"}.get(name) or no_package(name)

    assert look(tmp_path, version=version, packages=["torch", "onnx"]).packages == {
        "numpy": "2.3.5",
        "torch": "2.13.0+cpu",
    }


def test_names_no_host_user_serial_or_container(pi5):
    grow(pi5, {"etc/hostname": "secret-host\n", "proc/sys/kernel/hostname": "secret-host\n"})
    grow(pi5, {"proc/1/cgroup": "0::/docker/0123456789abcdef\n", "proc/self/cgroup": "0::/user.slice/user-ann\n"})
    text = look(pi5).to_json().decode()
    assert not [word for word in ("secret-host", "1f2e3d4c", "0123456789abcdef", "ann", str(pi5)) if word in text]


class TestThisMachine:
    def test_json_round_trip(self):
        record = collect()
        assert MachineRecord.from_json(record.to_json()) == record
        assert json.loads(record.to_json())["schema"] == 1

    def test_is_plausible(self):
        record = collect()
        assert 1 <= record.usable_cores <= record.logical_cores
        assert 0 < record.memory_available_mib <= record.memory_total_mib
        assert set(record.cpu_flags) <= set(CPU_FLAGS)
        assert {"numpy"} <= set(record.packages) <= set(PACKAGES)

    @pytest.mark.parametrize("text", ["{}", '{"os": 3}'])
    def test_refuses_json_that_is_no_record(self, text):
        with pytest.raises(msgspec.ValidationError):
            MachineRecord.from_json(text)
