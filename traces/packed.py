"""Files that may be gzip: reading, hashing and writing them, always the same bytes for the same content."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"  # SOURCE: RFC 1952, section 2.3.1


def open_unpacked(path: Path) -> BinaryIO:
    """A binary stream of the uncompressed content; gzip is known by its first bytes, not by the name."""
    with path.open("rb") as probe:
        packed = probe.read(2) == GZIP_MAGIC
    # the extra buffer iterates lines in C, GzipFile alone does it in Python
    return io.BufferedReader(cast(Any, gzip.open(path)), 1 << 16) if packed else path.open("rb", 1 << 16)


def sha256_unpacked(path: Path) -> str:
    """SHA-256 (hex) of the uncompressed content. Raises OSError, EOFError or zlib.error for damaged files."""
    with open_unpacked(path) as stream:
        return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()


def gzip_writer(sink: BinaryIO) -> gzip.GzipFile:
    """A gzip stream into `sink` whose header holds neither time nor file name."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=9, mtime=0)


def gzip_bytes(content: bytes) -> bytes:
    """`content` compressed; the same bytes wherever and whenever one zlib version does it."""
    sink = io.BytesIO()
    with gzip_writer(sink) as stream:
        stream.write(content)
    return sink.getvalue()
