"""What the package finds around it: its cache folder and the cores it may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgetrack.resources import cache_folder, usable_cores


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGETRACK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_chosen_folder_is_made_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGETRACK_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def test_off_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGETRACK_CACHE", "off")
    assert cache_folder() is None
    assert not any(tmp_path.iterdir())


def test_default_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "home" / ".cache" / "edgetrack"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "edgetrack"


def test_folder_that_cannot_be_made_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGETRACK_CACHE", str(tmp_path / "file" / "cache"))
    assert cache_folder() is None


def test_folder_that_is_a_file_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGETRACK_CACHE", str(tmp_path / "file"))
    assert cache_folder() is None


def test_affinity_is_respected_and_slow_cores_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert usable_cores(tmp_path) == 3
    for core, capacity in ((3, 400), (5, 1024), (7, 1024), (8, 1024)):
        (tmp_path / f"sys/devices/system/cpu/cpu{core}").mkdir(parents=True)
        (tmp_path / f"sys/devices/system/cpu/cpu{core}/cpu_capacity").write_text(f"{capacity}\n")
    assert usable_cores(tmp_path) == 2


def test_without_affinity_all_cores_count_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "900000 100000"}, 4),
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "300000 100000"}, 3),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
          "proc/self/cgroup": "4:cpu,cpuacct:/"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
          "proc/self/cgroup": "4:cpu,cpuacct:/"}, 4),
    ],
)  # fmt: skip
def test_the_cpu_quota_of_a_cgroup_limits_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert usable_cores(tmp_path) == cores
