"""Fetches FER2013 from Kaggle, and FER+'s votes, and checks that they are whole.

    path = fetch_faces()                    # the competition's csv, which needs a token and accepted rules
    path = fetch_faces("msambare/fer2013")  # a public dataset: a folder of pictures
    fetch_votes("fer2013new.csv")

Kaggle's package kagglehub keeps what it fetched in its own cache, and continues what was interrupted.
"""

import collections
import contextlib
import csv
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ferkit.constants import EMOTIONS
from ferkit.data import ferplus
from ferkit.data.archives import open_texts
from ferkit.data.folders import expressions_of, find_pictures
from ferkit.errors import UserError, in_short, one_line
from ferkit.files import lock, not_written, open_file, place_for

COMPETITION = "challenges-in-representation-learning-facial-expression-recognition-challenge"
FILE = "icml_face_data.csv"
PUBLIC = "msambare/fer2013"  # the same faces as pictures, of which test has PublicTest and PrivateTest
# The official number of faces of each expression, in the order of EMOTIONS.
OFFICIAL = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}
_WITHOUT = f"or take --download={PUBLIC}, which needs no account"
_SECONDS = 30  # without an answer, after which the network counts as down
_BLOCK = 1 << 16  # bytes


# --- FER2013 ---------------------------------------------------------------------------------------------------------


def fetch_faces(name: str = COMPETITION) -> Path:
    """FER2013 in kagglehub's cache, fetched unless it is there: the competition's csv, or the folder of a dataset.

    name: the competition, or OWNER/DATASET. Raises UserError when it cannot be fetched, or is not FER2013.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise UserError("kagglehub is missing: run 'pip install kagglehub'") from error
    logging.getLogger("kagglehub").setLevel(logging.WARNING)  # its progress bar says enough
    try:
        if "/" in name:
            path = Path(kagglehub.dataset_download(name))
        else:
            path = Path(kagglehub.competition_download(name, FILE))
    except Exception as error:  # it may raise almost any error
        raise _refusal(name, error) from error
    check_faces(path)
    return path


def _refusal(name: str, error: Exception) -> UserError:
    """The error for what kagglehub raised, with the cure."""
    import requests
    from kagglehub import exceptions

    competition = "/" not in name
    page = f"https://www.kaggle.com/{'c' if competition else 'datasets'}/{name}"
    if isinstance(error, exceptions.UnauthenticatedError):
        return UserError(
            "Kaggle's token is missing: make one at https://www.kaggle.com/settings, and set KAGGLE_API_TOKEN to it or "
            f"put its kaggle.json into ~/.kaggle, {_WITHOUT}"
        )
    if isinstance(error, exceptions.DataCorruptionError):
        return UserError(f"what came from {page} has another checksum than Kaggle says: run the same command again")
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _answered(error.response.status_code, str(error.__cause__ or error), page, competition)
    if isinstance(error, requests.RequestException):
        return _network_down("Kaggle")
    if isinstance(error, OSError):
        return not_written(error.filename or "kagglehub's cache", error)
    if isinstance(error, ValueError) and "credentials" in str(error):
        return UserError("Kaggle's token in kaggle.json is damaged: make a new one at https://www.kaggle.com/settings")
    return UserError(f"{page} could not be fetched ({one_line(in_short(error))}): run the same command again")


def _answered(status: int, message: str, page: str, competition: bool) -> UserError:
    """The error for Kaggle's answer with this HTTP status."""
    said = one_line(message[:200])
    if status == 401:
        return UserError(
            f"Kaggle does not accept the token: make a new one at https://www.kaggle.com/settings; {_WITHOUT}"
        )
    if competition and status == 403 and "rule" in message.lower():
        return UserError(f"the rules are not accepted: log in, accept them at {page}/rules, and try again; {_WITHOUT}")
    if competition and status in (403, 404, 410):
        return UserError(f"the competition is closed to this account ({said}): see {page}, {_WITHOUT}")
    if status in (403, 404, 410):
        return UserError(f"there is no dataset for everybody at {page} ({said}): name another one with --download")
    return UserError(f"Kaggle answers {status} ({said}): try again later")


def _network_down(server: str) -> UserError:
    return UserError(
        f"{server} is not reached, or the connection was lost: check the network; the same command goes on where it "
        "stopped"
    )


def check_faces(path: Path) -> None:
    """Raises UserError unless a csv or a folder of pictures has the official number of faces of each expression.

    A folder may have PublicTest and PrivateTest as one split.
    """
    found = dict(_counts_of_folder(path) if path.is_dir() else _counts_of_csv(path))
    wanted: dict[str, tuple[int, ...]] = {**OFFICIAL}
    if path.is_dir() and "PublicTest" not in found:
        public = wanted.pop("PublicTest")
        wanted["PrivateTest"] = tuple(map(sum, zip(public, wanted["PrivateTest"], strict=True)))
    for split in sorted({*wanted, *found}, key=[*OFFICIAL, *found].index):
        here, there = found.get(split, ()), wanted.get(split, ())
        if here != there:
            raise UserError(
                f"{path} is not the whole FER2013: it has {sum(here):,} faces of {split} ({_listed(here)}), not "
                f"{sum(there):,} ({_listed(there)}): delete it and download it again"
            )


def _listed(counts: tuple[int, ...]) -> str:
    return ", ".join(map(str, counts)) or "none"


def _counts_of_csv(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    try:
        with open_file(path) as raw:
            for text in open_texts(path, raw):
                rows = csv.reader(text)
                names = [name.strip().lower() for name in next(rows, [])]
                if {"emotion", "usage"} <= {*names}:
                    emotion, usage = names.index("emotion"), names.index("usage")
                    counts.update((row[usage].strip(), row[emotion].strip()) for row in rows if row)
    except (csv.Error, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and download it again") from error
    for split in dict.fromkeys(split for split, _ in counts):
        yield one_line(split[:20]), tuple(counts[split, str(label)] for label in range(len(EMOTIONS)))


def _counts_of_folder(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    pictures = find_pictures(path)[0]
    names, label_of = expressions_of(pictures, None)
    counts = collections.Counter((picture.split, label_of.get(picture.name.lower(), -1)) for picture in pictures)
    for split in dict.fromkeys(picture.split for picture in pictures):
        yield split or "no split", tuple(counts[split, label] for label in range(len(names)))


# --- FER+ ------------------------------------------------------------------------------------------------------------


def fetch_votes(path: str) -> None:
    """Fetches FER+'s votes unless there is a file at `path`. Raises UserError when that fails.

    An interrupted download is continued.
    """
    place = place_for(path)
    if place.exists():
        return
    part = place.with_name(f".{place.name}.download")
    with lock(part) as alone:
        if not alone:
            raise UserError(f"another process fetches {path}: wait for it")
        try:
            _fetch(ferplus.ADDRESS, part)
            counts = collections.Counter(ferplus.read_votes(part).usages)
            if counts != {split: sum(faces) for split, faces in OFFICIAL.items()}:
                raise UserError(f"it has {_listed(tuple(counts.values()))} rows of {', '.join(counts)}")
            os.replace(part, place)
        except UserError as error:
            part.unlink(missing_ok=True)
            raise UserError(
                f"what came from {ferplus.ADDRESS} is not FER+ ({str(error).partition(':')[0]}): try again"
            ) from error
        except urllib.error.HTTPError as error:
            raise UserError(f"{ferplus.ADDRESS} answers {error.code}: try again later") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise _network_down(ferplus.ADDRESS) from error
        except OSError as error:
            raise not_written(path, error) from error


def _fetch(address: str, part: Path) -> None:
    """Fetches a file, or what is missing of it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with contextlib.ExitStack() as opened:
        try:
            answer: Any = opened.enter_context(urllib.request.urlopen(request, timeout=_SECONDS))
        except urllib.error.HTTPError as error:
            if have and error.code == 416:  # nothing is missing
                return
            raise
        if answer.status != 206:
            have = 0  # the server sends the whole file
        total = have + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        file = opened.enter_context(part.open("ab" if have else "wb"))
        bar = opened.enter_context(tqdm(desc="FER+", total=total, initial=have, unit="B", unit_scale=True))
        while block := answer.read(_BLOCK):
            file.write(block)
            bar.update(len(block))
        if total is not None and file.tell() < total:
            raise ConnectionError("the connection was lost")
