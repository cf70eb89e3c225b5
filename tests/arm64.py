"""`make arm64`: bundles run by an emulated Arm processor (qemu-user, Debian's packages), boxes beside x86's.

    python tests/arm64.py BUNDLE... [--folder out/arm64] [--frames 5] [--usual-resize]

Needs `qemu-aarch64-static` and `mmdebstrap` (apt-get install qemu-user-static mmdebstrap). The userland is unpacked,
not booted: nothing of it is emulated but the Python that runs the bundles; this machine's pip installs the packages.
Slow. On an Arm machine the suite itself says more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUITE, PYTHON = "bookworm", "3.11"
"""Debian 12: glibc 2.36, which OpenVINO's wheel (2.35 and later) can live with."""
PACKAGES = ("numpy", "typer", "rich", "msgspec", "psutil", "filelock", "onnxruntime", "openvino",
            "opencv-python-headless")  # fmt: skip
SCENE = "synthetic:drift?frames={}&size=640x480"
# qemu shows this machine's own, on which ONNX Runtime's and OpenVINO's detection of Arm cores ends or complains.
CORE = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
MIDR = "0x00000000414fd0b1"
SAME_PX = 0.1
"""For crops of equal bytes, in FP32; INT8 rounds otherwise by other instructions, which `verify` judges. OpenCV's usual
resize differs by up to two grey levels on Arm, and boxes then drift apart from frame to frame: that is what is shown
with --usual-resize, and nothing that could be held to a bound."""


def prepare(folder: Path) -> None:
    """Unpack the userland and its packages, once."""
    root, site = folder / "root", folder / "site"
    if not (root / "usr/bin" / f"python{PYTHON}").exists():
        shutil.rmtree(root, ignore_errors=True)
        include = "python3,python3-minimal,libstdc++6,libgomp1"
        command = ["mmdebstrap", "--architectures=arm64", "--variant=extract", f"--include={include}", SUITE, str(root)]
        subprocess.run(command, check=True)
    (root / "proc").mkdir(exist_ok=True)
    cores = os.cpu_count() or 1
    (root / "proc/cpuinfo").write_text("\n".join(CORE.format(core) for core in range(cores)) + "\n")
    for core in range(cores):
        place = root / f"sys/devices/system/cpu/cpu{core}/regs/identification"
        place.mkdir(parents=True, exist_ok=True)
        (place / "midr_el1").write_text(f"{MIDR}\n")
    if not (site / "openvino").exists():
        platforms = [f"manylinux_2_{minor}_aarch64" for minor in (36, 35, 34, 31, 28, 27, 17)]
        tags = [f"--platform={name}" for name in (*platforms, "manylinux2014_aarch64", "any")]
        abis = ["--abi=cp311", "--abi=abi3", "--abi=none", "--implementation=cp", f"--python-version={PYTHON}"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", f"--target={site}"]
        subprocess.run([*pip, *abis, *tags, *PACKAGES], check=True)


def mebibytes(path: Path) -> float:
    """Of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if not file.is_dir()) / 2**20


def boxes_of(bundle: str, frames: int, *, exact: bool) -> list[list[float]]:
    """The boxes of a short track; run in either world, with crops of equal bytes in both where `exact`."""
    import cv2

    from edgetrack.media.sources import open_source
    from edgetrack.runtime.session import load

    if exact:
        usual = cv2.resize

        def resize(image: Any, size: Any, **how: Any) -> Any:
            return usual(image, size, **{**how, "interpolation": cv2.INTER_LINEAR_EXACT})

        cv2.resize = resize
    with load(bundle, threads=1) as tracker, open_source(SCENE.format(frames + 1)) as source:
        images, truth = list(source), source.ground_truth
        if truth is None or truth[0] is None:
            raise RuntimeError("the scene has no box for its first frame")
        tracker.init(images[0], truth[0])
        return [list(tracker.update(image).box) for image in images[1:]]


def in_world(command: list[str], environment: dict[str, str], *arguments: object) -> Any:
    """What this file prints as JSON when it is run by `command`; a text where it fails."""
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["no output"])[-1][:300]


def main() -> int:
    """Prepare, run, compare; 1 where a bundle fails on Arm, or its boxes in FP32 are more than `SAME_PX` away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "arm64")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--usual-resize", action="store_true")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "PYTHON"))}
    here = {**plain, "PYTHONPATH": str(ROOT), "EDGETRACK_CACHE": "off"}
    there = {**here, "PYTHONPATH": f"{folder / 'site'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    qemu = ["nice", "-n", "10", "qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(folder / "root")]
    arm = [*qemu, str(folder / "root/usr/bin" / f"python{PYTHON}")]
    failed = 0
    for given in options.bundles:
        bundle = Path(given).absolute()
        began = time.monotonic()
        verified = in_world([*arm, "-m", "edgetrack", "verify"], there, bundle, "--threads", 1, "--json")
        judged = verified if isinstance(verified, str) else "sound" if verified["ok"] else "NOT sound"
        checks = [] if isinstance(verified, str) else verified["checks"]
        worst = max((check["max_abs"] for check in checks if not check["name"].endswith("px")), default=0.0)
        track = (__file__, "--track", bundle, options.frames, "usual" if options.usual_resize else "exact")
        ours, theirs = in_world([sys.executable], here, *track), in_world(arm, there, *track)
        if isinstance(ours, str) or isinstance(theirs, str):
            said, bad = f"boxes: {theirs if isinstance(theirs, str) else ours}", True
        else:
            away = max(
                abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
            )
            said = f"{len(ours)} boxes, at most {away:.2g} px from this machine's"
            fp32 = json.loads((bundle / "manifest.json").read_bytes())["precision"] == "fp32"
            bad = fp32 and away > SAME_PX and not options.usual_resize
        failed += bad or judged != "sound"
        print(
            f"{bundle.name}, {mebibytes(bundle):.1f} MiB: verify {judged} (largest difference {worst:.2g}); {said}; "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
        if not isinstance(verified, str) and verified["note"]:
            print(f"  {verified['note'].rpartition(': ')[2]}", flush=True)
    print(f"userland and packages: {mebibytes(folder):.0f} MiB in {folder}")
    return min(failed, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--track"]:
        print(json.dumps(boxes_of(sys.argv[2], int(sys.argv[3]), exact=sys.argv[4] == "exact")))
    else:
        sys.exit(main())
