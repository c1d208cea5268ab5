"""A file is stored complete and checked, or not at all, whatever the mirrors do."""

import errno
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cyconv import datasets
from cyconv.datasets import download as download_module
from cyconv.datasets import mnist
from cyconv.datasets.download import download
from cyconv.errors import DownloadError
from cyconv.files import TEMPORARY
from tests.datasets.conftest import send

CONTENT = bytes(range(256)) * 1000
FILES = {name: hashlib.sha256(CONTENT).hexdigest() for name in ("one", "two")}


def fail(code):
    return lambda handler: handler.send_error(code)


def redirect(target):
    """Return a route that sends the client elsewhere."""

    def route(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return route


def hang(handler):
    """Accept the request and say nothing."""
    handler.server.closing.wait(20)


def stall(handler):
    """Send half of the file, then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", len(CONTENT))
    handler.end_headers()
    handler.wfile.write(CONTENT[: len(CONTENT) // 2])
    handler.server.closing.wait(20)


def chunks(handler):
    """Send half of the file in chunks, then what is no chunk."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = CONTENT[: len(CONTENT) // 2]
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(half), half) + b"no chunk\r\n")


FAULTS = {
    "cut": (send(CONTENT[:-1], promised=len(CONTENT)), "255999 bytes of SHA-256"),
    "fewer bytes than promised to be sent": (send(CONTENT, len(CONTENT) - 1), "255999 bytes of"),
    "a length that is none": (send(CONTENT[1:], promised="many"), "255999 bytes of"),
    "a broken chunk": (chunks, "IncompleteRead"),
    "a page that says sorry": (send(b"<html>sorry</html>"), "18 bytes of SHA-256"),
    "wrong bytes": (send(CONTENT[::-1]), "256000 bytes of SHA-256"),
    "too long": (send(CONTENT + b"0"), "256001 bytes of SHA-256"),
    "empty": (send(b""), "0 bytes of SHA-256"),
    "endless": (send(CONTENT * 100, promised=10**12), "16777216 bytes of SHA-256"),
    "404": (fail(404), "HTTP Error 404"),
    "500": (fail(500), "HTTP Error 500"),
    "hang": (hang, "no byte for 2 s, after 0 bytes"),
    "stall": (stall, "no byte for 1 s, after 128000 bytes"),
    "no http": (lambda handler: handler.wfile.write(b"hello\x1b[2J\r\n"), "hello [2J"),
    "closed": (lambda handler: None, "closed connection"),
    "redirect to http": (redirect("http://127.0.0.1:9/one"), "only https is accepted"),
    "redirect to a file": (redirect("file:///etc/hostname"), "is not allowed"),
    "redirect to itself": (redirect("one"), "infinite loop"),
    "redirect to nowhere": (redirect("https://127.0.0.1:9/one"), "refused"),
    "redirect to another file": (redirect("/good/other"), "404"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait two seconds at most, instead of 4 and 10."""
    monkeypatch.setattr(download_module, "CONTACT_SECONDS", 2.0)
    monkeypatch.setattr(download_module, "STALL_SECONDS", 1.0)


@pytest.fixture
def mirrors(server):
    """Return two mirrors, of which the second has the files."""
    server.routes.update({f"/good/{name}": send(CONTENT) for name in FILES})
    return [f"{server.url}/bad/", f"{server.url}/good/"]


def stored(directory):
    """Return what a directory holds, by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_passed_over_and_its_reply_is_kept(server, mirrors, tmp_path, fault):
    route, text = FAULTS[fault]
    server.routes.update({"/bad/one": route, "/good/two": fail(503)})
    with pytest.raises(DownloadError) as caught:
        download(mirrors, FILES, tmp_path)
    assert stored(tmp_path) == {"one": CONTENT}
    reply = str(caught.value).splitlines()[1]
    assert reply.startswith(f"  {mirrors[0]}one: ")
    assert text in reply


def test_if_all_fail_the_error_says_what_each_said_and_what_to_do(server, mirrors, tmp_path):
    server.routes["/good/one"] = fail(503)
    (tmp_path / "one").write_bytes(b"old")
    with pytest.raises(DownloadError) as caught:
        download(mirrors, FILES, tmp_path)
    first, *replies, last = str(caught.value).splitlines()
    assert first == "no mirror has sent one:"
    assert replies == [
        f"  {mirrors[0]}one: HTTP Error 404: Not Found",
        f"  {mirrors[1]}one: HTTP Error 503: Service Unavailable",
    ]
    assert last.startswith(f"Get one, two some other way and put them into {tmp_path};")
    assert "CYCONV_DATA" in last
    assert stored(tmp_path) == {"one": b"old"}


def test_the_directory_is_made(mirrors, tmp_path):
    download(mirrors, FILES, tmp_path / "new" / "cache")
    assert stored(tmp_path / "new" / "cache") == dict.fromkeys(FILES, CONTENT)


def test_a_redirect_within_https_is_followed(server, mirrors, tmp_path):
    server.routes["/bad/one"] = redirect(f"{mirrors[1]}one")
    download(mirrors[:1], {"one": FILES["one"]}, tmp_path)
    assert stored(tmp_path) == {"one": CONTENT}


def test_a_certificate_that_nobody_vouches_for_is_refused(mirrors, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
        download(mirrors, FILES, tmp_path)


@pytest.mark.parametrize(("fault", "asked"), [("closed", 1), ("404", 2)])
def test_a_mirror_out_of_reach_is_not_asked_twice(server, mirrors, tmp_path, fault, asked):
    server.routes.update(dict.fromkeys(["/bad/one", "/bad/two"], FAULTS[fault][0]))
    download(mirrors, FILES, tmp_path)
    assert sum(path.startswith("/bad/") for path in server.asked) == asked


def test_without_a_network_all_is_over_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "CONTACT_SECONDS", 0.2)
    forever = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: forever.wait(20))
    mirrors = [f"https://mirror-{i}.invalid/" for i in range(3)]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"(?s)mirror-0.*mirror-1.*mirror-2"):
        download(mirrors, FILES, tmp_path)
    seconds = time.monotonic() - start
    forever.set()
    assert seconds < 3 * 0.2 + 1


def test_the_published_limits_keep_the_promise_of_15_seconds(monkeypatch):
    monkeypatch.undo()
    assert len(mnist.MIRRORS) * download_module.CONTACT_SECONDS < 15
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in mnist.MIRRORS)


def test_a_slow_line_may_take_longer_than_the_limits(server, mirrors, tmp_path):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", len(CONTENT))
        handler.end_headers()
        for start in range(0, len(CONTENT), 32000):
            time.sleep(0.3)
            handler.wfile.write(CONTENT[start : start + 32000])

    server.routes["/bad/one"] = drip
    download(mirrors[:1], {"one": FILES["one"]}, tmp_path)
    assert stored(tmp_path) == {"one": CONTENT}


def test_many_may_download_at_once(mirrors, tmp_path):
    errors = []

    def fetch():
        try:
            download(mirrors, FILES, tmp_path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert stored(tmp_path) == dict.fromkeys(FILES, CONTENT)


CHILD = f"""
import sys
from pathlib import Path
from cyconv.datasets.download import download
print("ready", flush=True)
sys.stdin.readline()
download(sys.argv[1:2], {FILES!r}, Path(sys.argv[2]))
"""


@contextmanager
def downloading(mirror, directory, processes):
    """Start processes that download the files, all at the same moment."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CHILD, mirror, directory],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            for _ in range(processes)
        ]
        for child in children:
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            child.stdin.write(b"\n")
            child.stdin.flush()
        yield children


def test_many_processes_may_download_at_once_into_one_cache(
    server, mirrors, tmp_path, count, figure
):
    cache, processes = tmp_path / "cache", count(3, 8, 8)
    with downloading(mirrors[1], cache, processes) as children:
        for child in children:
            _, error = child.communicate(timeout=60)
            assert child.returncode == 0, error
    assert stored(cache) == dict.fromkeys(FILES, CONTENT)
    assert sorted(server.asked) == sorted(["/good/one", "/good/two"] * processes)
    figure("processes that downloaded into one cache at once", processes)


def test_a_download_that_is_killed_leaves_nothing_under_the_name(server, mirrors, tmp_path):
    begun = threading.Event()

    def half(handler):
        begun.set()
        stall(handler)

    server.routes["/bad/one"] = half
    with downloading(mirrors[0], tmp_path, 1) as (child,):
        assert begun.wait(20)
        child.kill()
    assert child.returncode != 0
    (left,) = tmp_path.iterdir()
    assert TEMPORARY.fullmatch(left.name)
    os.utime(left, (0, 0))  # as if that had been long ago
    download(mirrors[1:], FILES, tmp_path)
    assert stored(tmp_path) == dict.fromkeys(FILES, CONTENT)


def test_a_full_disk_leaves_nothing_and_is_explained(mirrors, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    folder = re.escape(str(tmp_path))
    with pytest.raises(DownloadError, match=f"{folder}: .*No space left.*CYCONV_CACHE"):
        download(mirrors, FILES, tmp_path)
    assert stored(tmp_path) == {}


def test_a_cache_that_cannot_be_written_is_told_before_the_download(server, mirrors, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = tmp_path / "file" / "cache"
    with pytest.raises(DownloadError, match=f"{re.escape(str(cache))}: .*CYCONV_CACHE"):
        download(mirrors, FILES, cache)
    assert server.asked == []


def test_importing_touches_no_network():
    code = (
        "import sys\n"
        "def audit(event, args):\n"
        "    if event.startswith(('socket.getaddrinfo', 'socket.connect')):\n"
        "        raise SystemExit(event)\n"
        "sys.addaudithook(audit)\n"
        "import cyconv.datasets\n"
    )
    path = os.pathsep.join([str(Path(datasets.__file__).parents[2]), *sys.path])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
