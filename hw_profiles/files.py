"""Files that are either complete or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hw_profiles.errors import InputError


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write `data` (text as UTF-8) so that a reader sees the old file or the whole new one, never a part.

    Writes to a temporary name in the same folder (created if missing), then renames. A failure leaves the old
    file and no temporary one; it is an InputError when the place cannot be written.
    """
    with open_atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """The same for what is written piece by piece: the file appears when the block ends, unless that raises."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash can leave the new name on an empty file
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", where=path) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
