"""Who may ask the gallery's server, for what, and how much."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request

import anyio
import httpx
import pytest
from starlette import formparsers
from support.browsing import served
from support.gallery import client_of, gallery_db, jpeg

from handloom.errors import ConfigError, StoreError
from handloom.web.access import MOST_BYTES, hosts_of, is_loopback
from handloom.web.answers import THREADS, blocking
from handloom.web.app import STATIC, make_app
from handloom.web.gallery import Gallery
from handloom.web.serving import serve

FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
FORM = FILE + jpeg((8, 8), 1) + b"\r\n--x--\r\n"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return gallery_db(tmp_path_factory.mktemp("gallery") / "db", range(2))


@pytest.fixture(scope="module")
def client(db):
    with client_of(db) as found:
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8770", "localhost:1", "[::1]:8770", "LOCALHOST."])
def test_own_names_are_served(client, host):
    assert client.get("/api/about", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8770", "", "[::2]", "a@localhost"]
)
def test_other_names_are_not(client, host):
    """A page elsewhere whose name was turned to this address sends its own name."""
    answer = client.get("/api/about", headers={"Host": host})
    assert answer.status_code == 421
    assert "num_clips" not in answer.text


def test_every_answer_has_the_headers(client):
    for address in ("/api/about", "/api/nothing", "/api/clip", "/static/vendor/handloom-vendor.js", "/"):
        headers = client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/nowhere", BROWSER, "text/html"),
        ("/dataset/more", BROWSER, "text/html"),
        ("/apis", BROWSER, "text/html"),
        ("/nowhere", "*/*", "application/json"),
        ("/api/nothing", BROWSER, "application/json"),
        ("/static/nothing.js", BROWSER, "application/json"),
        ("/reports/7/x.html", BROWSER, "application/json"),
    ],
)
def test_a_mistyped_address_is_a_page_for_browsers(client, path, accept, kind):
    answer = client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (404, kind)
    assert client.post(path, json={}, headers={"Accept": BROWSER}).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Content-Length": "300000000"}, 413),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 400),  # served: the form has no file
    ],
)
def test_forms_of_other_pages_are_refused(client, headers, status):
    body = b"--x\r\n\r\n--x--\r\n"
    own = {"Content-Type": "multipart/form-data; boundary=x", **headers}
    answer = client.post("/api/upload", content=body, headers=own)
    assert (answer.status_code, "error" in answer.json()) == (status, True)


@pytest.mark.parametrize("body", [b"--x\r\nfoo\r\n\r\n\r\n", FILE.replace(b"a.jpg", b"a" * 5000) + b"x\r\n--x--\r\n"])
def test_a_body_that_is_no_form_is_told(client, body):
    answer = client.post("/api/upload", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, "no form" in answer.text) == (400, True)


def test_long_bodies_are_refused_whatever_they_say(client):
    def body():
        for _ in range(12):
            yield b"x" * (MOST_BYTES // 8)

    answer = client.post("/api/about", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code in (405, 413)  # nothing there reads it
    assert client.post("/api/about", json={}).status_code == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_images_of_other_pages_make_no_work(client, site):
    """A page elsewhere may name any address in an image or a script; links are followed."""
    asked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    for address in ("/media/thumb?id=test%3Av0%3A0-1000", "/api/about", "/"):
        assert client.get(address, headers=asked).status_code == 403
        assert client.get(address, headers={**asked, "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_gets_the_answer(db, chunked):
    """Not a connection that is reset while the rest is sent."""
    with served(db, judging=True) as address:
        asked = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        body = bytes(24 << 20)
        pieces = (body[at : at + (1 << 16)] for at in range(0, len(body), 1 << 16))
        head = {"Content-Type": "application/json", "Connection": "close"}
        asked.request("POST", "/api/judge", pieces if chunked else body, head)
        answer = asked.getresponse()
        assert (answer.status, b"at most" in answer.read()) == (413, True)
        asked.close()


def test_a_store_that_does_not_answer_stops_no_other_request(db):
    """Requests that wait for it take all their threads; pages and what takes any time have others."""
    gallery, go_on = Gallery(db), threading.Event()

    async def asked() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(2 * THREADS):
                tasks.start_soon(blocking, go_on.wait)
            await anyio.sleep(0.01)
            with anyio.fail_after(30):
                assert await blocking(str, "video", limit_s=None) == "video"
                transport = httpx.ASGITransport(make_app(gallery))
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                    for page in ("/", "/static/vendor/handloom-vendor.js"):
                        assert (await client.get(page)).status_code == 200
            go_on.set()

    anyio.run(asked)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # starlette leaves its draft to Python
def test_who_goes_away_in_the_middle_of_a_file_leaves_no_error(client):
    """The rest of an upload that never comes."""
    head = {"host": "127.0.0.1", "content-type": "multipart/form-data; boundary=x", "content-length": "900"}
    scope = {
        **{"type": "http", "method": "POST", "path": "/api/upload", "raw_path": b"/api/upload", "query_string": b""},
        **{"headers": [(name.encode(), value.encode()) for name, value in head.items()], "http_version": "1.1"},
    }
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc'
    messages = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    anyio.run(client.app, scope, receive, send)  # raises nothing
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    "body", [FORM[: len(FORM) // 2], FORM.replace(b"--x--", b"--y--"), FORM[:-9] + b"\0" * 9, b"--x"]
)
def test_files_of_forms_that_are_cut_are_closed(client, body, monkeypatch):
    opened = []

    def opening(**how):
        opened.append(tempfile.SpooledTemporaryFile(**how))  # noqa: SIM115 - whether it is closed is the question
        return opened[-1]

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", opening)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/api/upload", content=body, headers=kind).status_code == 400
    assert all(file.closed for file in opened)


def test_files_outside_of_the_static_folder_are_not_served(client):
    assert (STATIC.parent / "app.py").exists()
    for path in (
        "../app.py",
        "%2e%2e/app.py",
        "..%2fapp.py",
        "vendor/../../app.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "x\0",
    ):
        answer = client.get(f"/static/{path.replace(chr(0), '%00')}")
        assert answer.status_code in (400, 404), path
        assert "import" not in answer.text
    assert client.get("/static/vendor/handloom-vendor.js").status_code == 200


def test_a_token_is_asked_for_once(db):
    client = client_of(db, token="secret-of-the-test", hosts=hosts_of("0.0.0.0"))
    for address in (
        "/api/about",
        "/",
        "/api/about?token=wrong",
        "/api/about?token=",
        "/static/vendor/handloom-vendor.js",
    ):
        assert client.get(address).status_code == 401
    assert client.post("/api/upload?token=secret-of-the-test", files={"file": ("a", b"x")}).status_code == 401
    entered = client.get("/api/about?x=a%26b&token=secret-of-the-test", headers={"Host": "any.example"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/api/about?x=a%26b")
    cookie = entered.headers["set-cookie"]
    assert re.search(r"HttpOnly.*SameSite=Lax", cookie)
    value = cookie.partition(";")[0]
    client.cookies.clear()
    assert client.get("/api/about", headers={"Cookie": value}).status_code == 200
    assert client.get("/api/about", headers={"Cookie": value[:-1]}).status_code == 401
    elsewhere = client.get("//evil.example/?token=secret-of-the-test")
    assert not elsewhere.headers.get("location", "/").startswith("//")


def test_which_addresses_are_this_machines_alone():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.168.0.1", "127.0.0.1.example")))
    assert hosts_of("10.0.0.1") > {"10.0.0.1", "localhost"}
    assert not hosts_of("0.0.0.0")


def test_a_port_that_is_taken_is_said(db):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="is taken"):
        serve(db, port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on"):
        serve(db, "192.0.2.1", 0)


def test_judging_in_a_database_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    """Not when somebody has written a note."""
    db = gallery_db(tmp_path / "db", range(1))
    data = tmp_path / "db" / "clips.lance" / "data"
    data.rename(tmp_path / "data")
    data.symlink_to("/proc/sys")  # a folder in which nobody can make a file, not even root
    with pytest.raises(StoreError, match="cannot be written") as raised:
        serve(db, port=0, judging=True)
    assert "without --judge" in raised.value.hint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(db, tmp_path, number):
    run = "from handloom.cli import main; main()"
    command = [sys.executable, "-c", run, "serve", "--db", db.uri, "--port", "0"]
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urllib.request.urlopen(f"{address}api/about", timeout=60) as answer:
            assert b'"num_clips":2' in answer.read()
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        asked = urllib.request.Request(f"{address}api/upload", FORM, kind)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{address}api/dataset", timeout=60):  # loads the stages, and pycolmap with them
            pass
        assert list(tmp_path.glob("handloom-gallery-*"))
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert not re.search(r"Traceback|\*\*\*|@ +0x", said), said
    assert not list(tmp_path.glob("handloom-gallery-*")), "files of people stay where the server was ended"
