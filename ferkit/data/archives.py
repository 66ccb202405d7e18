"""Text files that may be compressed, or lie in an archive."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BEGINNINGS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz"}  # of compressed files
# What reading a file raises that is cut off, damaged or locked: zipfile raises RuntimeError for a password.
DAMAGE = (EOFError, OSError, RuntimeError, lzma.LZMAError, tarfile.TarError, zlib.error, zipfile.BadZipFile)
_TAR = slice(257, 262)  # where a tar says "ustar"


def open_texts(path: Path, raw: io.BufferedReader) -> Iterator[io.TextIOBase]:
    """The file decompressed, as its content says; of an archive, each csv in it."""
    beginning = raw.read(6)
    raw.seek(0)
    suffix = path.suffix.lower()
    if beginning.startswith(b"PK\x03\x04") or suffix == ".zip":
        with zipfile.ZipFile(raw) as archive:
            for name in filter(_is_csv, archive.namelist()):
                yield _text(archive.open(name))
        return
    known = (kind for mark, kind in _BEGINNINGS.items() if beginning.startswith(mark))
    kind = next(known, suffix)  # a wrong suffix of a compressed file is reported by its opener
    stream = io.BufferedReader(OPENERS[kind](raw)) if kind in OPENERS else raw
    if stream.peek(512)[_TAR] == b"ustar":
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and _is_csv(member.name) else None
                if content is not None:
                    yield _text(content)
    else:
        yield _text(stream)


def _is_csv(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base.endswith(".csv") and not base.startswith(".")  # macOS puts ._fer2013.csv beside fer2013.csv


def _text(stream: IO[bytes]) -> io.TextIOBase:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
