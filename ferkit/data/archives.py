"""Text files that may be compressed, or lie in an archive."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def open_texts(path: Path, raw: BinaryIO) -> Iterator[io.TextIOBase]:
    """The file decompressed, as its suffixes say; of an archive, each csv in it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    last = suffixes[-1] if suffixes else ""
    if last == ".zip":
        with zipfile.ZipFile(raw) as archive:
            for name in filter(_is_csv, archive.namelist()):
                yield _text(archive.open(name))
    elif last in (".tar", ".tgz", ".tbz2", ".txz") or (suffixes[:1] == [".tar"] and last in OPENERS):
        with tarfile.open(fileobj=raw, mode="r:*") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and _is_csv(member.name) else None
                if content is not None:
                    yield _text(content)
    else:
        yield _text(OPENERS[last](raw) if last in OPENERS else raw)


def _is_csv(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base.endswith(".csv") and not base.startswith(".")  # macOS puts ._fer2013.csv beside fer2013.csv


def _text(stream: IO[bytes]) -> io.TextIOBase:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
