"""A camera on the network: Motion JPEG over HTTP, as most of them serve it."""

from __future__ import annotations

import base64
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

SIZE = (160, 96)
STEP = 6
"""A frame's pixels are its number times this."""


class NetworkCamera:
    """Serves `frames` numbered frames on each connection and then cuts it; the numbers go on with the next.

    A context manager; `cut` ends the server, `restore` starts it again on its port. With `user`, NAME:PASSWORD, it lets
    nobody else in. With `body`, it serves that instead, whatever is asked for.
    """

    def __init__(self, frames: int, *, user: str | None = None, body: bytes | None = None) -> None:
        self.frames, self.user, self.body = frames, user, body
        self.sent = self.connections = 0
        self.port = 0
        self._server: socketserver.BaseServer | None = None

    @property
    def address(self) -> str:
        return f"http://{self.user + '@' if self.user else ''}127.0.0.1:{self.port}/video"

    def restore(self) -> None:
        camera = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                wanted = None if camera.user is None else "Basic " + base64.b64encode(camera.user.encode()).decode()
                if self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                if camera.body is not None:
                    if camera.body.startswith(b"#EXTM3U"):
                        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                    self.send_header("Content-Length", str(len(camera.body)))
                    self.end_headers()
                    self.wfile.write(camera.body)
                    return
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for _ in range(camera.frames):
                    picture = np.full((SIZE[1], SIZE[0], 3), camera.sent * STEP % 256, np.uint8)
                    data = cv2.imencode(".jpg", picture)[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
                    camera.sent += 1

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Answer)
        self.port = server.server_port
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def cut(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> NetworkCamera:
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()


def numbers(frames: list[np.ndarray]) -> list[int]:
    """The numbers of the frames that it has sent."""
    return [round(float(frame.mean()) / STEP) for frame in frames]
