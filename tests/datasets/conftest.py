"""Files shaped like MNIST, and a mirror on this machine; no test here reaches the network."""

import gzip
import hashlib
import http.server
import shutil
import ssl
import struct
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cyconv.datasets import mnist


def idx_bytes(array):
    """Return a uint8 array in the IDX format: 2051 for images, 2049 for labels."""
    magic = {3: 2051, 1: 2049}[array.ndim]
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Point every place that load_mnist looks at into the test's own folder, or nowhere."""
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setenv("CYCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ("https://127.0.0.1:9/",))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def fake_mnist():
    """Return (contents, arrays): gzip files by name with the extents of MNIST, and their data."""
    arrays = []
    for count in (60000, 10000):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 3, 4] = np.arange(count) % 251
        arrays += [images, (np.arange(count) % 10).astype(np.uint8)]
    contents = {
        f"{file.name}.gz": gzip.compress(idx_bytes(array), 1)
        for file, array in zip(mnist.FILES, arrays, strict=True)
    }
    return contents, arrays


@pytest.fixture
def published(monkeypatch, fake_mnist):
    """Take the fake files for the published ones: their hashes are those that load_mnist wants."""
    contents, _ = fake_mnist
    files = [
        file._replace(sha256=hashlib.sha256(contents[f"{file.name}.gz"]).hexdigest())
        for file in mnist.FILES
    ]
    monkeypatch.setattr(mnist, "FILES", tuple(files))
    return contents


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return the paths of a self-signed certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate for the https server")
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", "certificate.pem", "-keyout", "key.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder / "certificate.pem", folder / "key.pem"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.routes.get(self.path, lambda handler: handler.send_error(404))(self)

    def log_message(self, format, *args):
        """Keep the test's output clean."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A client that gives up on a bad mirror is what the tests are about."""


@pytest.fixture
def server(monkeypatch, certificate):
    """Serve `routes`, path to function of the handler, over https; `asked` lists the requests."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with _Server(("127.0.0.1", 0), _Handler) as https:
        https.socket = context.wrap_socket(https.socket, server_side=True)
        https.routes, https.asked, https.closing = {}, [], threading.Event()
        threading.Thread(target=https.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"https://127.0.0.1:{https.server_address[1]}"
        yield SimpleNamespace(url=url, routes=https.routes, asked=https.asked)
        https.closing.set()
        https.shutdown()


def send(content, promised=None):
    """Return a route that sends content, after a promise to send as many bytes or others."""

    def route(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", len(content) if promised is None else promised)
        handler.end_headers()
        handler.wfile.write(content)

    return route
