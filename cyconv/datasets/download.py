"""Fetch files over https from a list of mirrors, each checked by its SHA-256."""

import hashlib
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cyconv.errors import DownloadError
from cyconv.files import make_folder, replacement

CONTACT_SECONDS = 4.0  # to the first byte: without a network, three mirrors take 12 s to say so
STALL_SECONDS = 10.0  # without any byte, once bytes flow
MAX_BYTES = 2**24  # what sends more than this is not a file of digits

logger = logging.getLogger("cyconv")


def download(mirrors: Sequence[str], files: Mapping[str, str], directory: Path) -> None:
    """Fetch files into a directory, each from the first mirror that has the right bytes.

    A file appears under its name complete and checked, or not at all; several processes may
    fetch the same files at once. A mirror that cannot be reached is not asked again. What is
    being fetched is told to the logger "cyconv", as a warning: the network is in use.

    Parameters
    ----------
    mirrors : sequence of str
        https addresses that end in "/", best first.
    files : mapping of str to str
        Name of each file to the SHA-256 of its content, in hexadecimal.
    directory : Path
        Where the files go; it is made if it is missing.

    Raises
    ------
    DownloadError
        If a file came from no mirror, with what each of them said, or cannot be written.
    """
    reachable = list(mirrors)
    replies: list[str] = []
    for name, sha256 in files.items():
        with _cached(directory / name) as file:
            content = _first_match(reachable, name, sha256, replies)
            if content is None:
                raise DownloadError(
                    "\n  ".join([f"no mirror has sent {name}:", *replies])
                    + f"\nGet {', '.join(files)} some other way and put them into {directory}; or "
                    "name a folder that has the whole set, with --data or the environment "
                    "variable CYCONV_DATA."
                )
            file.write(content)


def _first_match(reachable: list[str], name: str, sha256: str, replies: list[str]) -> bytes | None:
    """Return the file from the first mirror that has it; note in both lists which have not."""
    for mirror in tuple(reachable):
        url = mirror + name
        logger.warning("downloading %s", url)
        try:
            content = _get(url)
        except Exception as error:
            reply = "".join(char if char.isprintable() else " " for char in str(error))
            replies.append(f"{url}: {reply}")
            if not isinstance(error, HTTPError):
                reachable.remove(mirror)
            continue
        found = hashlib.sha256(content).hexdigest()
        if found == sha256:
            return content
        replies.append(f"{url}: {len(content)} bytes of SHA-256 {found}, required {sha256}")
    return None


def _get(url: str) -> bytes:
    """Return what an address holds, without ever waiting longer than the two limits above."""
    pieces: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    threading.Thread(target=_transfer, args=(url, pieces), daemon=True).start()
    content = bytearray()
    limit = CONTACT_SECONDS
    while True:
        try:
            piece = pieces.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no byte for {limit:g} s, after {len(content)} bytes") from None
        if isinstance(piece, Exception):
            raise piece
        if not piece:
            return bytes(content)
        content += piece
        limit = STALL_SECONDS


def _transfer(url: str, pieces: queue.SimpleQueue[bytes | Exception]) -> None:
    """Put the bytes of an address into a queue, then an empty piece or the error that ended it.

    On a thread of its own, because no timeout of the standard library covers the resolver. When
    nobody waits any more, it ends by itself: with the file, or after a longer silence.
    """
    silence = CONTACT_SECONDS + STALL_SECONDS
    try:
        with build_opener(_HttpsOnly).open(url, timeout=silence) as response:
            left = MAX_BYTES
            while left and (piece := response.read1(left)):
                pieces.put(piece)
                left -= len(piece)
        pieces.put(b"")
    except HTTPError as error:
        error.close()
        pieces.put(error)
    except Exception as error:
        pieces.put(error)


class _HttpsOnly(HTTPRedirectHandler):
    """Follow a redirect only if it keeps to https."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not newurl.startswith("https://"):
            fp.close()
            raise URLError(f"it redirects to {newurl}, and only https is accepted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _cached(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside path that takes its place at the end, or vanishes on an error."""
    try:
        make_folder(path.parent)
        with replacement(path) as file:
            yield file
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{path.name} cannot be stored in the cache {path.parent}: {error}; make room there, "
            "or name another folder with the environment variable CYCONV_CACHE"
        ) from error
