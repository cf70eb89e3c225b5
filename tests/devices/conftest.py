"""A device that stands next to the tests: a real sshd on the loopback interface, with keys and a port of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgetrack.bundle import BundleWriter
from edgetrack.devices.profiles import DeviceChoice, Host, find_profile
from tests.builders import scripted_manifest


def constant_graph(path, inputs, outputs):
    """An ONNX file that returns 0.5 everywhere, whatever goes in."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    image = inputs[0].name
    nodes = [
        helper.make_node("Cast", [image], ["image"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Mul", ["most", "zero"], ["none"]),
    ]
    for one in outputs:
        value = helper.make_tensor(f"{one.name}_half", TensorProto.FLOAT, one.shape, [0.5] * int(prod(one.shape)))
        nodes.append(helper.make_node("Constant", [], [f"{one.name}_constant"], value=value))
        nodes.append(helper.make_node("Add", [f"{one.name}_constant", "none"], [one.name]))
    infos = [
        [helper.make_tensor_value_info(one.name, kinds[one.dtype], one.shape) for one in some]
        for some in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "constant", *infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def prod(shape):
    result = 1
    for size in shape:
        result *= size
    return result


@pytest.fixture(scope="session")
def make_onnx_bundle():
    """make_onnx_bundle(path) writes a bundle that ONNX Runtime runs and that can be verified."""

    def make(path, name="tiny-onnx"):
        manifest = scripted_manifest(name, target="onnx", suffix=".onnx", flops=10)
        with BundleWriter(path) as writer:
            for graph in manifest.graphs:
                constant_graph(writer.folder / graph.file, graph.inputs, graph.outputs)
            sides = [(f"0/{graph.name}", graph) for graph in manifest.graphs]
            golden = {f"{key}/in/{one.name}": np.zeros(one.shape, one.dtype) for key, g in sides for one in g.inputs}
            golden |= {
                f"{key}/out/{one.name}": np.full(one.shape, 0.5, np.float32) for key, g in sides for one in g.outputs
            }
            np.savez(writer.folder / "golden.npz", **golden)
            (writer.folder / "parity.json").write_text('{"comparisons": [{"atol": 0, "rtol": 0}]}')
            return writer.commit(manifest)

    return make


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class Device:
    """The sshd, and what a user would write of it."""

    folder: Path
    port: int

    @property
    def cache(self):
        return self.folder / "cache"

    @property
    def key(self):
        return self.folder / "client"

    @property
    def known_hosts(self):
        return self.folder / "known_hosts"

    def choice(self, *, port=None, known_hosts=None, python=sys.executable):
        host = Host(
            host="127.0.0.1",
            user=getpass.getuser(),
            port=port or self.port,
            python=python,
            key=str(self.key),
            known_hosts=str(known_hosts or self.known_hosts),
        )
        return DeviceChoice(profile=find_profile("x86"), host=host)

    def users_file(self, home, *names, port=None, known_hosts=None):
        """Write what a user would write of it, under `home`, for devices of these names."""
        host = self.choice(port=port, known_hosts=known_hosts).host
        path = home / "edgetrack" / "devices.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(
                f'[{name}]\nhost = "{host.host}"\nuser = "{host.user}"\nport = {host.port}\npython = "{host.python}"\n'
                f'key = "{host.key}"\nknown_hosts = "{host.known_hosts}"\n'
                for name in names
            )
        )

    def know(self, port, public=None):
        """A file of known hosts for another port, with the device's key or another one."""
        path = self.folder / f"known_hosts_{port}"
        path.write_text(f"[127.0.0.1]:{port} {public or (self.folder / 'host.pub').read_text()}")
        return path


ROOT = Path(__file__).resolve().parents[2]
"""The edgetrack that is tested, which need not be the installed one."""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp {sftp}
SetEnv EDGETRACK_CACHE={folder}/cache PYTHONPATH={root}
"""


@pytest.fixture(scope="session")
def start_sshd(tmp_path_factory):
    """start_sshd(sftp=...) starts another one; all end with the session."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("SSHD ABSENT: install openssh-server for the tests of devices over SSH")
    asyncssh = pytest.importorskip("asyncssh", reason="ASYNCSSH ABSENT: pip install 'edgetrack[devices]'")
    started = []

    def start(sftp="internal-sftp"):
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        folder = tmp_path_factory.mktemp("device")
        port = free_port()
        device = Device(folder, port)
        for name in ("host", "client"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(folder / name)
            (folder / name).chmod(0o600)
            key.write_public_key(folder / f"{name}.pub")
        device.known_hosts.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        (folder / "config").write_text(CONFIG.format(port=port, folder=folder, sftp=sftp, root=ROOT))
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        started.append(process)
        words = []
        for line in iter(process.stderr.readline, b""):
            words.append(line.decode())
            if b"Server listening" in line:
                break
        else:
            pytest.fail(f"sshd does not start: {''.join(words)}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return device

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
        process.stderr.close()


@pytest.fixture(scope="session")
def device(start_sshd):
    return start_sshd()


class Proxy:
    """A TCP connection that can be cut."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                thread = threading.Thread(target=self._copy, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _copy(source, sink):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)

    def cut(self):
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        for one in self._sockets:
            one.close()


@pytest.fixture
def proxy(device):
    made = Proxy(device.port)
    yield made
    made.cut()
