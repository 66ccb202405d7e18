"""Tracking of faces from frame to frame: each face keeps its number, and its probabilities are averaged over time.

tracker = Tracker(smoothing=0.5, lost_face=0.5)
for frame in frames:
    for number, face in tracker.update(frame, recognizer.recognize(frame.image, tracker.expected(frame))):
        print(number, face.expression)  # a ferkit.recognition.Face with smoothed probabilities
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ferkit.recognition import Face
from ferkit.video.source import Frame
from ferkit.vision.boxes import Box

_FARTHEST = 0.75  # how far a face may have moved since it was last seen, in sides of its box
_LARGEST = 2.0  # how many times larger or smaller it may have become
_THUMBNAIL = (32, 18)  # width and height in pixels: so small that movement within a scene changes few of them
_CUT = 0.5  # greatest difference between the thumbnails of one scene (about 1 minus their correlation)
_CUT_SECONDS = 0.11  # longest time between compared frames; over a longer time, movement changes as much as a cut
_FLAT = 5.0  # standard deviation, in grey levels, of a thumbnail with nothing but noise


class Tracked(NamedTuple):
    """A face with its identity. Numbers count up from 1 and are never used twice."""

    number: int
    face: Face


@dataclass
class _Track:
    """One identity: its last box, and the weighted average of its probabilities."""

    number: int
    box: Box
    seen: float  # time of its last frame, in seconds
    sums: np.ndarray  # (K,) weighted sum of the probabilities of its frames; older frames weigh less
    weight: float  # sum of the frames' weights

    def add(self, face: Face, seconds: float, smoothing: float) -> None:
        faded = math.exp(-(seconds - self.seen) / smoothing) if smoothing > 0 else 0.0
        self.sums = self.sums * faded + list(face.probabilities.values())
        self.weight = self.weight * faded + 1
        self.box, self.seen = face.box, seconds

    def smoothed(self, face: Face) -> Face:
        averages = (self.sums / self.weight).tolist()
        return Face.of(face.box, dict(zip(face.probabilities, averages, strict=True)), face.score, face.tilt)


class Tracker:
    """Gives the faces of successive frames their identities and smoothed probabilities.

    A face gets the identity of the nearest earlier face, if that one is near enough and of similar size. All
    identities end when the scene changes, because the next scene may show somebody else in the same place.

    smoothing: seconds. A frame of that age has 1/e (about a third) of the newest frame's weight in the average, at any
    frame rate. lost_face: seconds that an identity survives without being found. It always survives one missed frame.
    """

    def __init__(self, smoothing: float, lost_face: float):
        self.smoothing = smoothing
        self.lost_face = lost_face
        self.count = 0  # identities so far
        self._tracks: list[_Track] = []
        self._times = (-math.inf, -math.inf)  # time stamps of the last two recognized frames
        self._begun: Frame | None = None  # the last recognized frame
        self._number, self._seconds = -1, -math.inf  # number and time stamp of the last frame
        self._thumbnail: np.ndarray | None = None

    def expected(self, frame: Frame) -> list[Box]:
        """Where the faces of earlier frames were that `frame` may show again. There are none after a cut."""
        self._begin(frame)
        return [track.box for track in self._tracks]

    def update(self, frame: Frame, faces: Sequence[Face]) -> list[Tracked]:
        """The frame's faces in the same order, with identities and smoothed probabilities."""
        self._begin(frame)
        seconds = frame.seconds
        matches = self._match(faces)
        tracked = []
        for index, face in enumerate(faces):
            track = matches.get(index)
            if track is None:
                self.count += 1
                track = _Track(self.count, face.box, seconds, np.zeros(len(face.probabilities)), 0.0)
                self._tracks.append(track)
            track.add(face, seconds, self.smoothing)
            tracked.append(Tracked(track.number, track.smoothed(face)))
        return tracked

    def skip(self, frame: Frame) -> bool:
        """Looks only for a cut, in a frame that is not recognized. Returns whether the scene has changed."""
        changed = self._is_cut(frame)
        if changed:
            self._tracks = []
        self._number, self._seconds = frame.number, frame.seconds
        return changed

    def _begin(self, frame: Frame) -> None:
        """Ends the identities that `frame` cannot show. A second call with the same frame does nothing."""
        if frame is self._begun:
            return
        self._begun = frame
        self.skip(frame)
        earliest = min(self._times[0], frame.seconds - self.lost_face)
        self._times = (self._times[1], frame.seconds)
        self._tracks = [track for track in self._tracks if track.seen >= earliest]

    def _match(self, faces: Sequence[Face]) -> dict[int, _Track]:
        """The track of each matched face, by the face's index: most matches first, then the least total distance."""
        distances = np.array([[_distance(face.box, track.box) for track in self._tracks] for face in faces])
        if distances.size == 0:
            return {}
        near = distances <= _FARTHEST
        pairs = zip(*linear_sum_assignment(np.where(near, distances, distances.size)), strict=True)
        return {int(index): self._tracks[place] for index, place in pairs if near[index, place]}

    def _is_cut(self, frame: Frame) -> bool:
        """Whether a new scene begins: the thumbnails of this frame and the one before hardly correlate."""
        grey = cv2.cvtColor(cv2.resize(frame.image, _THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        new = grey - grey.mean(dtype=np.float32)
        old, self._thumbnail = self._thumbnail, new
        together = frame.number == self._number + 1 and frame.seconds - self._seconds < _CUT_SECONDS
        if old is None or not together:
            return False
        return float(np.square(new - old).sum() / (np.square(new) + np.square(old) + 2 * _FLAT**2).sum()) > _CUT


def _distance(one: Box, other: Box) -> float:
    """The distance of two boxes' centres, in units of their mean side; infinite if their sizes differ too much."""
    if max(one.width, other.width) > _LARGEST * min(one.width, other.width):
        return math.inf
    right = one.x + one.width / 2 - other.x - other.width / 2
    down = one.y + one.height / 2 - other.y - other.height / 2
    return math.hypot(right, down) / ((one.width + other.width) / 2)
