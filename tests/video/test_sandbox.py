"""The rights of a decoding process, tried from inside (one file, one socket), and replies of a hostile one."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.decoded import chunks_of
from support.numbered_video import numbers_of, write_numbered

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.decode import sandbox
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.decode.process import BOOT, Launcher, ProcessDied
from handloom.video.fetch.video_source import VideoSource

NUM, HZ = 30, 30
FOUND = sandbox.support()

ATTEMPTS = """
import ctypes, json, os, socket, sys
from handloom.video.decode import sandbox
video, other, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
inet = socket.socket()
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(video, os.O_RDONLY)
layers = sandbox.lock(fd, sandbox.support())
attempts = {
    "read the video": lambda: open(video, "rb").read(1),
    "read another file": lambda: open(other, "rb").read(1),
    "read the environment": lambda: open("/proc/self/environ", "rb").read(1),
    "list a folder": lambda: os.listdir("/"),
    "write the video": lambda: open(video, "r+b"),
    "make a file": lambda: open(other + ".new", "wb"),
    "remove a file": lambda: os.unlink(other),
    "make a socket": socket.socket,
    "connect": lambda: inet.connect(("127.0.0.1", port)),
    "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "fork": os.fork,
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "trace the parent": lambda: libc.ptrace(16, os.getppid(), 0, 0) and (_ for _ in ()).throw(OSError()),
}
def tried(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True
worked = [name for name, attempt in attempts.items() if tried(attempt)]
os.write(1, json.dumps({"layers": layers, "worked": worked}).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    return write_numbered(tmp_path_factory.mktemp("video") / "v.mp4", np.arange(NUM) / HZ, width=128, height=96)


@pytest.fixture
def make_decoder(tmp_path):
    made: list[Decoder] = []

    def make(program: str = BOOT, **limits) -> Decoder:
        source, launch = VideoSource(str(tmp_path / "cache")), partial(Launcher, program=program)
        made.append(Decoder(HZ, 96, DecodeLimits(**limits), source, launch))
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def clip(path: str, end_s: float | None = 1.0) -> Clip:
    return Clip("d:v:0-1000", "d", "v", path, 0.0, end_s)


def outcome(decoder: Decoder, wanted: Clip) -> list[int] | ClipError:
    (item,) = (i if isinstance(i, ClipError) else [n for c in chunks_of(i) for n in numbers_of(c)]
               for i in decoder.stream([wanted]))  # fmt: skip
    return item


def inside(path: Path, video: str, *, as_nobody: bool = False) -> dict[str, list[str]]:
    """`layers`: the active layers of the sandbox; `worked`: the ATTEMPTS that succeeded."""
    other = path / "other.txt"
    other.write_text("secret")
    code = (
        ATTEMPTS.replace("fd = os.open", "os.setgid(65534); os.setuid(65534)\nfd = os.open") if as_nobody else ATTEMPTS
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", code, video, str(other), str(server.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert other.read_text() == "secret"
    return json.loads(done.stdout)


@pytest.mark.skipif(not FOUND.layers, reason="this kernel or container gives neither Landlock nor seccomp")
def test_only_the_video_can_be_read(tmp_path, video):
    found = inside(tmp_path, video)
    assert tuple(found["layers"]) == FOUND.layers
    if set(found["layers"]) == sandbox.LAYERS.keys():
        assert found["worked"] == ["read the video"]
    elif sandbox.FILES in found["layers"]:
        assert not {"read another file", "write the video", "make a file", "list a folder"} & set(found["worked"])
    else:
        assert not {"make a socket", "connect", "run a program", "fork", "write the video"} & set(found["worked"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(len(FOUND.layers) < 2, reason="this kernel or container gives not all layers")
def test_it_needs_no_root(tmp_path, video):
    for folder in (tmp_path, *tmp_path.parents, *Path(video).parents):
        if any(part.startswith("pytest-") for part in folder.parts):  # pytest's own, however deep `-n 2` puts them
            folder.chmod(0o755)
    assert inside(tmp_path, video, as_nobody=True) == {"layers": list(FOUND.layers), "worked": ["read the video"]}


def test_environment_and_import_path_of_the_caller_do_not_reach_the_process(tmp_path, video, make_decoder, monkeypatch):
    """No keys; no module of the working directory, of PYTHONPATH or beside the package."""
    for name in ("random", "socket", "logging", "types", "signal", "select", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\nraise SystemExit"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "random.py"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    decoder = make_decoder()
    assert outcome(decoder, clip(os.path.relpath(video))) == list(range(NUM))
    assert not (tmp_path / "imported").exists()
    for pid in (decoder._process.pid, decoder._launcher._process.pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"secret" not in environment
        assert str(tmp_path).encode() not in environment
    status = Path(f"/proc/{decoder._process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert decoder._process.layers == FOUND.layers
    assert len(os.listdir(f"/proc/{decoder._process.pid}/fd")) <= 6  # 0 to 2, its socket, the video twice


def test_a_process_for_each_file(tmp_path, video, make_decoder):
    """Clips of one video share a process; another file under the same name does not."""
    decoder = make_decoder()
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(Path(video).read_bytes())
    pids = []
    for path in (video, video, str(copy), str(copy)):
        assert outcome(decoder, clip(path)) == list(range(NUM))
        pids.append(decoder._process.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    copy.rename(tmp_path / "old.mp4")
    write_numbered(copy, np.arange(10) / HZ, width=128, height=96)
    assert outcome(decoder, clip(str(copy), None)) == list(range(10))
    assert decoder._process.pid != pids[3]


def test_the_sandbox_can_be_required_or_switched_off(video, make_decoder):
    assert outcome(make_decoder(sandbox="off"), clip(video)) == list(range(NUM))
    if set(FOUND.layers) == sandbox.LAYERS.keys():
        assert outcome(make_decoder(sandbox="required"), clip(video)) == list(range(NUM))
    none = "from handloom.video.decode import sandbox\nsandbox.support = lambda: sandbox.Support(0, False)\n"
    blind = BOOT.replace("main(config", none + "main(config")
    assert outcome(make_decoder(blind), clip(video)) == list(range(NUM))
    with pytest.raises(ConfigError, match=r"cannot give: read access to the video alone \(Landlock\), no network"):
        outcome(make_decoder(blind, sandbox="required"), clip(video))


def test_the_error_of_a_process_that_cannot_start_is_shown(video, make_decoder):
    """It concerns all clips: the run ends, with what the interpreter wrote."""
    with pytest.raises(ConfigError, match="cannot import name 'no_such_name'") as caught:
        outcome(make_decoder(BOOT.replace("import main", "import no_such_name")), clip(video))
    assert "handloom doctor" in caught.value.hint


def test_the_error_of_a_launcher_that_ended_before_it_was_asked_is_shown(video):
    """On a busy machine it has failed and exited before the first video is opened."""
    launcher = Launcher(1536, 60.0, "auto", program="raise SystemExit('no decoders here')")
    try:
        launcher._process.wait()
        with open(video, "rb") as file, pytest.raises(ProcessDied, match="exit code 1; it wrote: no decoders here"):
            launcher.start(file.fileno())
    finally:
        launcher.close()


def test_the_error_of_a_launcher_that_cannot_fork_is_shown(video, make_decoder):
    """It takes a while to write why, as on a busy machine: nobody ends it before."""
    slow = "import time\nsys.excepthook = lambda *error: (time.sleep(0.3), sys.__excepthook__(*error))\n"
    fails = "import os\ndef fork():\n    raise OSError('no more processes')\nos.fork = fork\n"
    with pytest.raises(ConfigError, match="exit code 1; it wrote: OSError: no more processes"):
        outcome(make_decoder(BOOT.replace("main(config", slow + fails + "main(config")), clip(video))


def framed(message: object, payload: bytes = b"", size: int | None = None, payload_bytes: int | None = None) -> bytes:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return (
        struct.pack("<IQ", size or len(text), len(payload) if payload_bytes is None else payload_bytes) + text + payload
    )


INFO = asdict(VideoInfo(128, 96, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30))
HEADER = {"kind": "header", "info": INFO, "decoder": "decord", "size": [128, 96], "num_frames": 2}
TIMES = struct.pack("<dd", 0.0, 0.5)
GOOD = framed(HEADER, TIMES)
FRAME = bytes(96 * 128 * 3)


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


LIES = {
    "noise": (bytes(range(256)) * 9, "bytes of JSON"),
    "endless JSON": (framed({}, size=1 << 31), "announced 2147483648 bytes of JSON"),
    "no JSON": (framed(b"\xff{"), "sent no JSON"),
    "nested JSON": (framed(b"[" * 60_000), "sent no JSON"),
    "a huge integer": (framed(b'{"kind": ' + b"9" * 5000 + b"}"), "sent no JSON"),
    "a list": (framed([1]), "sent list"),
    "another kind": (framed({"kind": "exec"}), "'exec', which does not belong there"),
    "an answer to another question": (framed({"kind": "info", "info": INFO}), "'info', which does not belong there"),
    "frames before their header": (framed({"kind": "chunk"}, FRAME), "behind a message 'chunk'"),
    "more frames than memory": (framed(HEADER | {"num_frames": 1 << 40}, payload_bytes=1 << 43), "announced 109951162"),
    "an endless payload": (framed(HEADER, payload_bytes=1 << 60), "16 were expected"),
    "times that fall": (framed(HEADER, struct.pack("<dd", 1, 0)), "do not rise"),
    "times that are none": (framed(HEADER, struct.pack("<dd", 0, float("nan"))), "do not rise"),
    "a huge image": (framed(HEADER | {"size": [30000, 30000]}, TIMES), "frames of (30000, 30000) pixels"),
    "text for a number": (framed(HEADER | {"info": INFO | {"width": "128"}}, TIMES), "'128' where int"),
    "true for a number": (framed(HEADER | {"info": INFO | {"width": True}}, TIMES), "'True' where int"),
    "no info": (framed(HEADER | {"info": None}, TIMES), "'None' where VideoInfo"),
    "more frames than the clip has": (framed(HEADER | {"num_frames": 32}, bytes(256)), "at most 31 are allowed"),
    "another shape": (GOOD + framed({"kind": "chunk", "shape": [1, 97, 128, 3]}, FRAME), "frames of shape"),
    "a negative shape": (GOOD + framed({"kind": "chunk", "shape": [-1, 96, 128, -3]}, FRAME), "frames of shape"),
    "frames after the last": (GOOD + framed({"kind": "chunk", "shape": [3, 96, 128, 3]}, FRAME * 3), "frames of shape"),
    "a short chunk": (GOOD + framed({"kind": "chunk", "shape": [1, 96, 128, 3]}, FRAME[1:]), "36864 were expected"),
    "an early end": (GOOD + framed({"kind": "end"}), "ended after 0 of 2 frames"),
    "header after header": (GOOD * 3, "behind a message 'header'"),
    "a reason of its own": (framed({"kind": "error", "reason": "x", "problem": "", "hint": ""}), "which is none"),
    "a long text": (framed({"kind": "error", "reason": "damaged", "problem": "x" * 9999, "hint": ""}), "where str"),
    "a bug": (framed({"kind": "bug", "text": "Traceback\n\x1b[2JKeyError: 7\n"}), "error of its own: [2JKeyError: 7"),
}  # fmt: skip

LIAR = """
import json, pathlib, time
from handloom.video.decode import child
LIES = {name: bytes.fromhex(lie) for name, lie in json.loads(pathlib.Path(FILE).read_text()).items()}
class Liar:
    def __init__(self, end):
        self.line = end._line
    def serve(self):
        while True:
            lie = LIES[self.line.receive()[0]["clip"]["clip_id"]]
            for at in range(0, len(lie), STEP):
                self.line._socket.sendall(lie[at : at + STEP])
                time.sleep(PAUSE_S)
child.Server = Liar
main(config"""


def liar(folder: Path, lies: dict[str, bytes], step: int = 1 << 30, pause_s: float = 0.0) -> str:
    """A launcher's program whose processes reply with `lies[clip_id]`, `step` bytes at a time."""
    file = folder / "lies.json"
    file.write_text(json.dumps({name: text.hex() for name, text in lies.items()}))
    code = BOOT.replace("main(config", LIAR)
    for name, value in {"FILE": str(file), "STEP": step, "PAUSE_S": pause_s}.items():
        code = code.replace(name, repr(value))
    return code


def test_replies_of_a_hostile_process_become_rejects(tmp_path, video, make_decoder):
    """Each lie by processes of its own; none is executed, uses up memory or ends the run."""
    lies = {**LIES, "a pickle": (pickle.dumps(Payload(tmp_path / "executed")), "bytes of JSON")}
    lies["a framed pickle"] = (framed(pickle.dumps(Payload(tmp_path / "executed"))), "sent no JSON")
    program = liar(tmp_path, {name: lie for name, (lie, _) in lies.items()})
    clips = [replace(clip(video), clip_id=name) for name in lies]
    for wanted, item in zip(clips, make_decoder(program).stream(clips), strict=True):
        name = wanted.clip_id
        if not isinstance(item, ClipError):
            with pytest.raises(ClipError) as caught:  # after the headers that it sent
                chunks_of(item)
            item = caught.value
        assert item.reason == "decoder_died", name
        assert lies[name][1] in item.problem, name
        assert "\x1b" not in item.problem
    assert not (tmp_path / "executed").exists()


def test_a_reply_that_trickles_in_is_given_up(tmp_path, video, make_decoder):
    """Each byte arrives within the time limit, the whole message does not: it would be a frame."""
    program = liar(tmp_path, {clip(video).clip_id: GOOD}, step=1, pause_s=0.2)
    error = outcome(make_decoder(program, timeout_s=1.0), clip(video))
    assert error.reason == "decode_timeout"
