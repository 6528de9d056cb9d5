"""Downloading a catalog trace into the user's cache: verified, then put in place in one step."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import secrets
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import urlsplit

from hw_profiles.errors import InputError
from traces.catalog import cache_dir, entry_of, locate
from traces.packed import GZIP_MAGIC, gzip_writer, sha256_unpacked

CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30.0  # without a byte from the server

Progress = Callable[[int, int | None], None]  # (bytes received, bytes announced or None)


def fetch(
    name: str, *, url: str | None = None, dest: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """Downloads trace `name` and returns its file; a file already there with the right content is kept.

    `url`: instead of the catalog's (http or https, plain or gzip). `dest`: file to write (compressed if it
    ends in .gz), by default the place in the cache where `locate` looks. The SHA-256 of the uncompressed
    content must be the catalog's; until it is, nothing appears under the final name. Raises InputError.
    """
    entry = entry_of(name)
    if entry.ships:
        return locate(name)
    address = url or entry.url
    if address is None:
        ways = f"set KVSIM_TRACES to a folder with {entry.relative}, or give --url"
        raise InputError(f"no public address known; {ways}", where=f"trace {name}")
    _check_scheme(address)
    target = Path(dest) if dest is not None else cache_dir() / entry.relative
    with contextlib.suppress(OSError, EOFError, zlib.error):
        if sha256_unpacked(target) == entry.sha256:
            return target
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as sink:
            found = _store(_download(address, progress), sink, packed=target.name.endswith(".gz"))
        if found != entry.sha256:
            text = f"sha256 of the content is {found[:12]}..., expected {entry.sha256[:12]}...; not kept"
            raise InputError(text, where=address)
        temporary.replace(target)
    except zlib.error as error:
        raise InputError(f"the compressed content is damaged ({error}); not kept", where=address) from error
    except OSError as error:
        raise InputError(f"cannot write it ({error.strerror or error})", where=target) from error
    finally:
        with contextlib.suppress(OSError):  # also where the folder is none: the error above says so
            temporary.unlink(missing_ok=True)
    return target


def _store(chunks: Iterator[bytes], sink: BinaryIO, *, packed: bool) -> str:
    """Writes the content of `chunks` (unpacked if gzip), compressed if `packed`; its SHA-256."""
    digest = hashlib.sha256()
    unpack = None
    with contextlib.ExitStack() as stack:
        out = cast(BinaryIO, stack.enter_context(gzip_writer(sink))) if packed else sink
        for i, chunk in enumerate(chunks):
            if i == 0 and chunk.startswith(GZIP_MAGIC):
                unpack = zlib.decompressobj(wbits=31)  # 31: expect a gzip header
            content = unpack.decompress(chunk) if unpack else chunk
            digest.update(content)
            out.write(content)
    return digest.hexdigest()


def _download(url: str, progress: Progress | None) -> Iterator[bytes]:
    """The bytes behind `url`; every failure of the network is an InputError naming it."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "kvsim"})
        opener = urllib.request.build_opener(_HttpOnly())
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            announced = answer.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdecimal() else None
            done = 0
            while chunk := answer.read(CHUNK_BYTES):
                done += len(chunk)
                if progress:
                    progress(done, total)
                yield chunk
            if total is not None and done < total:
                raise InputError(f"connection closed after {done} of {total} bytes", where=url)
    except urllib.error.HTTPError as error:
        raise InputError(f"the server answers {error.code} {error.reason}", where=url) from error
    except urllib.error.URLError as error:
        raise InputError(f"cannot reach it ({error.reason})", where=url) from error
    except (http.client.HTTPException, OSError) as error:
        raise InputError(f"the download broke off ({error})", where=url) from error


def _check_scheme(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and url.isascii()
    except ValueError:  # "http://[": an address of its own kind
        good = False
    if not good:
        raise InputError("", where="url", found=url, allowed="an address in http:// or https://")


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, cast(http.client.HTTPMessage, headers), newurl)
