from __future__ import annotations

import mmap
import os
import re
import resource
from pathlib import Path

import psutil
import pytest

from edgetrack.system import sensors

STATUS = (
    "Name:\tpython\nVmPeak:\t 9999999 kB\nVmSize:\t 8888888 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t3\n"
)


@pytest.fixture
def status(tmp_path):
    path = tmp_path / "status"
    path.write_text(STATUS)
    return path


def test_linux_reads_the_resident_peak_and_not_the_virtual_one(status):
    assert sensors.peak_rss_mb(status=status) == 200.0


@pytest.mark.parametrize(("platform", "mb"), [("linux", 300.0), ("darwin", 300.0 / 1024)])
def test_without_a_status_file_rusage_stands_in_with_its_platforms_unit(tmp_path, monkeypatch, platform, mb):
    usage = type("Usage", (), {"ru_maxrss": 300 * 1024})
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert sensors.peak_rss_mb(status=tmp_path / "missing", platform=platform) == mb


def test_the_current_figure_is_the_kernels():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    resident_kib = int(re.search(r"VmRSS:\s*(\d+) kB", status.read_text())[1])
    assert sensors.current_rss_mb() == pytest.approx(resident_kib / 1024, rel=0.2)
    assert sensors.current_rss_mb(os.getpid()) == pytest.approx(resident_kib / 1024, rel=0.2)


def test_holding_memory_raises_current_and_peak():
    before = sensors.current_rss_mb()
    # Pages of our own: an allocator may hand out what it kept from earlier tests, which is resident already.
    with mmap.mmap(-1, 64 * 2**20) as held:
        for start in range(0, len(held), mmap.PAGESIZE):
            held[start] = 1
        assert sensors.current_rss_mb() >= before + 60
        assert sensors.peak_rss_mb() >= before + 60
    assert sensors.peak_rss_mb() >= before + 60


def test_unique_memory_is_part_of_the_resident():
    unique = sensors.uss_mb()
    assert unique is None or 0 < unique <= sensors.current_rss_mb() * 1.1


@pytest.mark.parametrize("error", [psutil.AccessDenied(), AttributeError(), OSError()])
def test_unique_memory_is_none_where_the_system_hides_it(monkeypatch, error):
    def refuse(self):
        raise error

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    assert sensors.uss_mb() is None
