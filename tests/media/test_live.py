"""Live sources: what is opened by what, how a camera is set, and how a stream that is cut comes back."""

from __future__ import annotations

import subprocess
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgetrack.errors import BackendMissingError, SourceError, SourceInterruptedError
from edgetrack.media import ReadOptions, open_source
from edgetrack.media.live import LiveSource, parse_address
from edgetrack.presentation.sanitize import hide_passwords
from edgetrack.system.clock import ManualClock
from edgetrack.system.opencv import OpenCvBuild
from tests.media.streams import SIZE, NetworkCamera, numbers

END = "videoconvert ! video/x-raw,format=BGR ! appsink sync=false max-buffers=2 drop=false"


# What is opened by what


@pytest.mark.parametrize(
    ("spec", "what", "reader"),
    [
        ("7", 7, "V4L2"),
        ("camera:7", 7, "V4L2"),
        ("camera:7?size=1280x720&fps=30&fourcc=MJPG", 7, "V4L2"),
        ("/dev/video2", "/dev/video2", "V4L2"),
        ("/dev/video2?fps=15", "/dev/video2", "V4L2"),
        ("/dev/v4l/by-id/usb-046d_HD_Pro-video-index0", "/dev/v4l/by-id/usb-046d_HD_Pro-video-index0", "V4L2"),
        ("rtsp://me:secret@10.0.0.5:554/ch1", "rtsp://me:secret@10.0.0.5:554/ch1", "FFMPEG"),
        ("RTSPS://h/x", "RTSPS://h/x", "FFMPEG"),
        ("http://h:8080/video", "http://h:8080/video", "FFMPEG"),
        ("https://h/a.m3u8?token=secret", "https://h/a.m3u8?token=secret", "FFMPEG"),
        ("udp://@:5000", "udp://@:5000", "FFMPEG"),
        ("gst:videotestsrc", f"videotestsrc ! {END}", "GSTREAMER"),
        ("gst:videotestsrc ! appsink name=a", "videotestsrc ! appsink name=a", "GSTREAMER"),
        (
            "csi:1?size=1920x1080&fps=60&flip=2",
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=60/1 "
            f"! nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! {END}",
            "GSTREAMER",
        ),
        ("libcamera:0", f"libcamerasrc ! video/x-raw,width=1280,height=720 ! {END}", "GSTREAMER"),
        (
            "libcamera:/base/soc/i2c0mux/i2c@1/imx219@10?size=640x480&fps=30",
            'libcamerasrc camera-name="/base/soc/i2c0mux/i2c@1/imx219@10" ! '
            f"video/x-raw,width=640,height=480,framerate=30/1 ! {END}",
            "GSTREAMER",
        ),
    ],
)
def test_a_source_is_opened_by_its_kind(monkeypatch, spec: str, what: object, reader: str) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    found = parse_address(spec)
    assert found is not None
    assert (found.what, found.reader) == (what, reader)
    assert "secret" not in found.name + found.advice + found.instead


def test_elsewhere_the_systems_own_reads_cameras(monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    found = parse_address("camera:1")
    assert found is not None
    assert found.reader is None


@pytest.mark.parametrize("spec", ["clip.mp4", "frames/*.jpg", "./0", "synthetic:drift", "ftp://h/x", "camera:x", "0 "])
def test_other_sources_are_none(spec: str) -> None:
    assert parse_address(spec) is None


@pytest.mark.parametrize(
    "spec",
    [
        "camera:0?size=1280",
        "camera:0?fps=0",
        "camera:0?fps=30&fps=15",
        "camera:0?fourcc=MJPEG",
        "camera:0?zoom=2",
        "camera:256",
        "/dev/video0?size=0x0",
        "csi:front",
        "csi:0?flip=9",
        'csi:0 ! filesink location="x"',
        "libcamera:1",
        'libcamera:a" ! filesink location="x',
        "libcamera:0?size=99999x99999",
        "gst: ",
    ],
)
def test_what_is_badly_written_is_told_how(spec: str) -> None:
    with pytest.raises(SourceError, match=r"expected|at most"):
        parse_address(spec)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:p@ss/w:rd@host:554/x", "rtsp://me:***@host:554/x"),
        ("rtsp://host:554/x", "rtsp://host:554/x"),
        ("rtsp://me@host/x", "rtsp://me@host/x"),
        ("rtsp://h/user=admin&password=abc&channel=1", "rtsp://h/user=admin&password=***&channel=1"),
        ("http://h/a?channel=1&Token=a/b,c", "http://h/a?channel=1&Token=***"),
        ('rtspsrc location=x user-id=me user-pw="a b" ! y', "rtspsrc location=x user-id=me user-pw=*** ! y"),
        ("rtspsrc location='rtsp://me:pw@h/x' ! y", "rtspsrc location='rtsp://me:***@h/x' ! y"),
        ("a ratio of 3:4 @ noon", "a ratio of 3:4 @ noon"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown


# Machines that have what this one has not


class Device:
    """What OpenCV would find behind one address: the properties that it takes, and the frames of each opening."""

    def __init__(self, name: str, *openings: list[Any] | None, takes: dict[int, list[float]] | None = None) -> None:
        self.name, self.openings, self.takes = name, list(openings), takes or {}
        self.opened: list[tuple[object, int, list[int]]] = []
        self.set: list[tuple[int, float]] = []
        self.open_now = 0


def capture_of(device: Device) -> type:
    class Capture:
        def __init__(self, what: object, api: int, parameters: list[int]) -> None:
            device.opened.append((what, api, parameters))
            frames = device.openings.pop(0) if device.openings else None
            self.frames = iter(frames or ())
            self.is_open = frames is not None
            device.open_now += self.is_open
            self.values = {prop: values[0] for prop, values in device.takes.items()}

        def isOpened(self) -> bool:  # noqa: N802
            return self.is_open

        def getBackendName(self) -> str:  # noqa: N802
            return device.name

        def get(self, prop: int) -> float:
            return self.values.get(prop, -1.0)

        def set(self, prop: int, value: float) -> bool:
            device.set.append((prop, value))
            taken = value in device.takes.get(prop, [])
            self.values[prop] = value if taken else self.values.get(prop, -1.0)
            return taken

        def read(self) -> tuple[bool, Any]:
            frame = next(self.frames, None)
            return frame is not None, frame

        def release(self) -> None:
            device.open_now -= self.is_open
            self.is_open = False

    return Capture


def picture(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


@pytest.fixture
def connect(monkeypatch):
    """connect(device) puts it behind every address, on a machine whose OpenCV reads everything."""

    def put(device: Device) -> Device:
        monkeypatch.setattr(cv2, "VideoCapture", capture_of(device))
        build = OpenCvBuild(packages={}, version="9", ffmpeg=True, gstreamer=True, v4l2=True)
        monkeypatch.setattr("edgetrack.media.live.find_opencv", lambda: build)
        monkeypatch.setattr("sys.platform", "linux")
        return device

    return put


MJPG = cv2.VideoWriter.fourcc(*"MJPG")
CAMERA = {
    cv2.CAP_PROP_FOURCC: [cv2.VideoWriter.fourcc(*"YUYV"), MJPG],
    cv2.CAP_PROP_FRAME_WIDTH: [640.0, 1280.0],
    cv2.CAP_PROP_FRAME_HEIGHT: [480.0, 720.0],
    cv2.CAP_PROP_FPS: [15.0, 30.0],
}


def test_a_camera_is_set_and_says_so_itself(connect) -> None:
    device = connect(Device("V4L2", [picture(1)], takes=CAMERA))
    with open_source("camera:0?fps=30&size=1280x720&fourcc=MJPG", live=True) as source:
        assert (source.name, source.live, source.length) == ("camera:0", True, None)
        assert (source.size, source.fps) == ((1280, 720), 30.0)
        assert (next(iter(source)) == 1).all()
    assert device.opened == [(0, cv2.CAP_V4L2, [])]
    # The format first: it decides which sizes there are.
    assert [prop for prop, _ in device.set] == list(CAMERA)
    assert device.open_now == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("size=1920x1080", "gives width 640 where 1920 was asked for"),
        ("size=1280x1024", "gives height 480 where 1024 was asked for"),
        ("fps=60", "gives fps 15 where 60 was asked for"),
        ("fourcc=H264", "gives fourcc YUYV where H264 was asked for"),
    ],
)
def test_a_camera_that_cannot_do_it_is_refused_and_closed(connect, query: str, said: str) -> None:
    device = connect(Device("V4L2", [picture(1)], takes=CAMERA))
    with pytest.raises(SourceError, match=said):
        open_source(f"camera:0?{query}", live=True)
    assert device.open_now == 0


def test_one_that_states_frames_that_would_fill_the_memory_is_refused_and_closed_after_a_break_too(connect) -> None:
    huge = {cv2.CAP_PROP_FRAME_WIDTH: [60000.0], cv2.CAP_PROP_FRAME_HEIGHT: [60000.0]}
    device = connect(Device("V4L2", [picture(1)], takes=huge))
    with pytest.raises(SourceError, match="camera:0 states 60000x60000 pixels"):
        open_source("camera:0", live=True)
    assert device.open_now == 0
    device = connect(Device("V4L2", [picture(1)], [picture(2)]))
    with live("camera:0", Waits(), reconnect_s=1) as source:
        frames = iter(source)
        next(frames)
        device.takes = huge
        with pytest.raises(SourceInterruptedError, match="could not be opened again"):
            next(frames)
    assert device.open_now == 0


def test_what_opened_it_is_asserted(connect) -> None:
    device = connect(Device("CV_IMAGES", [picture(1)]))
    with pytest.raises(SourceError, match="was opened by CV_IMAGES, not by GStreamer"):
        open_source("gst:videotestsrc", live=True)
    assert device.open_now == 0


@pytest.mark.parametrize(
    ("version", "spec", "timed"),
    [
        ("4.6.0", "gst:videotestsrc", False),
        ("4.7.0", "gst:videotestsrc", True),
        ("4.6.0-dev", "rtsp://h/x", True),
        ("5.0.0", "rtsp://h/x", True),
        ("5.0.0", "camera:0", False),
    ],
)
def test_time_outs_are_set_where_opencv_takes_them(connect, monkeypatch, version, spec, timed) -> None:
    monkeypatch.setattr(cv2, "__version__", version)
    device = connect(Device({"g": "GSTREAMER", "r": "FFMPEG", "c": "V4L2"}[spec[0]], [picture(1)]))
    open_source(spec, ReadOptions(timeout_s=2.5), live=True).close()
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 2500, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 2500]
    assert device.opened[0][2] == (limits if timed else [])


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (12, 8, 1)])
def test_frames_that_are_no_colours_are_refused_with_the_pipelines_end(connect, shape) -> None:
    connect(Device("GSTREAMER", [np.zeros(shape, np.uint8)]))
    with (
        open_source("gst:a ! appsink", live=True) as source,
        pytest.raises(SourceError, match="let the pipeline end in"),
    ):
        next(iter(source))


@pytest.mark.parametrize(("spec", "reader"), [("gst:a", "GStreamer"), ("csi:0", "GStreamer"), ("rtsp://h/x", "FFmpeg")])
def test_an_opencv_without_it_is_one_clear_line(monkeypatch, spec: str, reader: str) -> None:
    build = OpenCvBuild(packages={"opencv-python": "5.0.0"}, version="5.0.0", v4l2=True)
    monkeypatch.setattr("edgetrack.media.live.find_opencv", lambda: build)
    with pytest.raises(BackendMissingError) as caught:
        open_source(spec, live=True)
    said = str(caught.value)
    assert f"{spec} is read by {reader}, which this OpenCV has not: 5.0.0 (opencv-python 5.0.0)" in said
    assert "apt-get install python3-opencv" in said
    assert ("gst:uridecodebin" in said) == (reader == "FFmpeg")


def test_a_pipeline_that_never_starts_is_given_up_and_closed_when_it_does(connect, monkeypatch) -> None:
    """OpenCV before 4.7 waits for ever for one that lacks an element."""
    monkeypatch.setattr(cv2, "__version__", "4.6.0")
    device = connect(Device("GSTREAMER", [picture(1)]))
    started, opened = threading.Event(), cv2.VideoCapture

    def hang(*arguments: Any) -> Any:
        started.wait()
        return opened(*arguments)

    monkeypatch.setattr(cv2, "VideoCapture", hang)
    with pytest.raises(SourceError, match=r"gst-launch-1.0 'nosuch ! fakesink' \(it did not start within 0.01 s\)"):
        open_source("gst:nosuch", ReadOptions(timeout_s=0.01), live=True)
    (thread,) = (one for one in threading.enumerate() if one.name == "edgetrack-open")
    started.set()
    thread.join()
    assert (len(device.opened), device.open_now) == (1, 0)


# Breaks


class Waits:
    """A clock, and waits that move it on; what happens in them is the test's to say."""

    def __init__(self, *events: Any) -> None:
        self.clock, self.waited, self.events = ManualClock(), list[float](), list(events)

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.clock.advance(round(seconds * 1e9))
        if self.events and (event := self.events.pop(0)) is not None:
            event()


def live(spec: str, waits: Waits, **options: float) -> LiveSource:
    address = parse_address(spec)
    assert address is not None
    return LiveSource(address, ReadOptions(**options), clock=waits.clock, wait=waits)


def test_a_camera_that_is_unplugged_and_back_goes_on(connect) -> None:
    device = connect(Device("V4L2", [picture(1), picture(2)], None, None, [], [picture(3)], takes=CAMERA))
    waits, events = Waits(), list[str]()
    with live("camera:0?fps=30", waits) as source:
        source.on_event = events.append
        assert [int(frame[0, 0, 0]) for frame in islice(source, 3)] == [1, 2, 3]
        assert source.breaks_s == [3.5]
        assert source.notes == ["camera:0 broke 1 time: 3.5 s in all, at most 3.5 s"]
    assert waits.waited == [0.0, 0.5, 1.0, 2.0]
    assert events == ["camera:0 broke after 2 frames; it is tried again for 30 s", "camera:0 is back after 3.5 s"]
    # It is set again, too, and none is left open.
    assert [value for prop, value in device.set if prop == cv2.CAP_PROP_FPS] == [30.0] * 3
    assert device.open_now == 0


@pytest.mark.parametrize(("limit", "waited"), [(0, []), (1, [0.0, 0.5]), (10, [0.0, 0.5, 1.0, 2.0, 4.0])])
def test_trying_again_has_an_end(connect, limit: float, waited: list[float]) -> None:
    connect(Device("V4L2", [picture(1)]))
    waits = Waits()
    with live("camera:0", waits, reconnect_s=limit) as source:
        frames = iter(source)
        next(frames)
        again = f" and could not be opened again in {len(waited)} attempts" if limit else ""
        with pytest.raises(SourceInterruptedError, match=f"^camera:0 gave no frame after 1{again}; check that it is"):
            next(frames)
    assert waits.waited == waited


def test_who_is_interrupted_tries_no_more(connect) -> None:
    connect(Device("V4L2", [picture(1)]))
    waits = Waits()
    source = live("camera:0", waits, reconnect_s=1e9)
    waits.events = [None, None, source.interrupt]
    frames = iter(source)
    next(frames)
    with pytest.raises(SourceInterruptedError):
        next(frames)
    assert waits.waited == [0.0, 0.5, 1.0]


def test_a_stream_on_the_network_that_is_cut_and_restored_goes_on() -> None:
    """A real server and OpenCV's own FFmpeg; the server is away for three attempts."""
    with NetworkCamera(12) as camera:
        waits = Waits(camera.cut, None, None, camera.restore)
        with live(camera.address, waits) as source:
            assert (source.live, source.length, source.size) == (True, None, SIZE)
            frames = list(islice(source, 30))
            # The connections end after 12 frames each; the server was away after the first one.
            assert numbers(frames) == list(range(30))
            assert len(source.breaks_s) == 2
            assert source.breaks_s[0] == 3.5
    assert camera.connections == 3


RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=96,framerate=30/1 ! jpegenc "
                   "! rtpjpegpay name=pay0 )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@pytest.mark.full
def test_a_real_rtsp_stream_that_is_cut_and_restored_goes_on() -> None:
    """GStreamer's RTSP server (Debian: gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good)."""
    servers: list[subprocess.Popen[str]] = []

    def serve(port: str = "0") -> str:
        command = ["/usr/bin/python3", "-c", RTSP_SERVER, port]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return (servers[-1].stdout.readline() if servers[-1].stdout else "").strip()

    def cut() -> None:
        servers[-1].kill()
        servers[-1].wait()

    try:
        port = serve() if Path("/usr/bin/python3").exists() else ""
        if not port:
            pytest.skip("GSTREAMER'S RTSP SERVER ABSENT: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi")
        waits = Waits(None, None, lambda: serve(port))
        with live(f"rtsp://127.0.0.1:{port}/live", waits, timeout_s=5.0) as source:
            frames = iter(source)
            assert source.live
            assert len(list(islice(frames, 10))) == 10
            cut()
            assert [frame.shape for frame in islice(frames, 40)] == [(SIZE[1], SIZE[0], 3)] * 40
            assert len(source.breaks_s) == 1
        assert waits.waited[:3] == [0.0, 0.5, 1.0]
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def test_a_server_that_wants_a_password_gets_it_and_nobody_else_does() -> None:
    with NetworkCamera(5, user="me:secret") as camera, open_source(camera.address, live=True) as source:
        assert len(list(islice(source, 5))) == 5
        assert source.name == camera.address.replace("secret", "***")
        camera.user = "me:other"
        with pytest.raises(SourceError, match=r"cannot be opened.*ffprobe") as caught:
            open_source(source._address.what, live=True)
        assert "secret" not in str(caught.value)


def put_clip(path: Path, codec: str) -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, SIZE)
    for value in range(20):
        writer.write(np.full((SIZE[1], SIZE[0], 3), value, np.uint8))
    writer.release()
    return path.read_bytes()


def test_a_server_may_name_a_file_of_its_own_and_none_of_this_machine(tmp_path: Path) -> None:
    """HLS: a playlist that names a segment; FFmpeg opens what is on the network, and refuses `file:`."""
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
    clip = tmp_path / "mine.ts"
    with NetworkCamera(0, body=put_clip(clip, "MPG2")) as segments:
        body = playlist.format(f"{segments.address}/0.ts").encode()
        with NetworkCamera(0, body=body) as camera, open_source(f"{camera.address}.m3u8", live=True) as source:
            assert len(list(islice(source, 20))) == 20
        with NetworkCamera(0, body=playlist.format(clip.as_uri()).encode()) as camera, pytest.raises(SourceError):
            open_source(f"{camera.address}.m3u8", live=True)


def test_a_recording_on_a_server_ends_and_is_not_live(tmp_path: Path) -> None:
    whole = put_clip(tmp_path / "a.avi", "MJPG")
    with NetworkCamera(0, body=whole) as camera, open_source(camera.address, live=True) as source:
        assert (source.live, source.length) == (False, 20)
        assert len(list(source)) == 20
    with NetworkCamera(0, body=whole[: len(whole) // 2]) as camera, open_source(camera.address, live=True) as source:
        frames = iter(source)
        with pytest.raises(
            SourceInterruptedError, match=r"ended early: frame 1?[0-9] cannot be read although it states"
        ):
            list(frames)
