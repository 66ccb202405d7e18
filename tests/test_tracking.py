"""Identities and smoothed expressions, with faces that are made up."""

import numpy as np
import pytest

from ferkit.recognition import Face
from ferkit.video.source import Frame
from ferkit.video.tracking import Tracked, Tracker
from ferkit.vision.boxes import Box

SCENE = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
HAPPY, SAD = {"Happy": 0.9, "Sad": 0.1}, {"Happy": 0.2, "Sad": 0.8}


def face(x: float, probabilities: dict[str, float] = HAPPY, y: float = 100, side: int = 100) -> Face:
    return Face.of(Box(round(x), round(y), side, side), probabilities)


def update(tracker: Tracker, seconds: float, *faces: Face, image: np.ndarray = SCENE, passed: int = 1) -> list[Tracked]:
    """The frame at that time, `passed` frames after the one before."""
    return tracker.update(Frame(tracker._number + passed, seconds, image, 0.0), faces)


def numbers(tracker: Tracker, seconds: float, *faces: Face, **frame: object) -> list[int]:
    return [number for number, _ in update(tracker, seconds, *faces, **frame)]


def test_two_faces_keep_their_numbers_and_expressions_while_they_move():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    for step in range(100):
        happy, sad = face(50 + 3 * step, HAPPY, y=100), face(350 - 3 * step, SAD, y=210)
        faces = [happy, sad] if happy.box < sad.box else [sad, happy]  # as they come, left to right
        tracked = update(tracker, step / 30, *faces)
        assert {number: found.expression for number, found in tracked} == {1: "Happy", 2: "Sad"}
        for (_, found), given in zip(tracked, faces, strict=True):
            assert found.box == given.box and found.probabilities == pytest.approx(given.probabilities)
    assert tracker.count == 2


def test_faces_are_expected_where_they_were_until_a_cut():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert tracker.expected(Frame(0, 0.0, SCENE, 0.0)) == []
    update(tracker, 0.0, face(100), face(300))
    frame = Frame(tracker._number + 1, 0.03, SCENE, 0.0)
    assert tracker.expected(frame) == [face(100).box, face(300).box]
    assert [number for number, _ in tracker.update(frame, [face(103)])] == [1]
    assert tracker.expected(Frame(tracker._number + 1, 0.06, 255 - SCENE, 0.0)) == []


def test_neighbours_do_not_swap_when_both_move_by_nearly_half_their_distance():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100), face(200)) == [1, 2]
    assert numbers(tracker, 0.1, face(145), face(245)) == [1, 2]
    assert numbers(tracker, 0.2, face(200), face(290)) == [1, 2]


@pytest.mark.parametrize(("missing", "number"), [(0.4, 1), (0.6, 2)])
def test_a_lost_face_keeps_its_number_for_a_while(missing, number):
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100)) == [1]
    for step in range(1, 10):
        assert numbers(tracker, missing * step / 10) == []
    assert numbers(tracker, missing, face(110)) == [number]


def test_a_neighbour_does_not_inherit_what_a_lost_face_showed():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    update(tracker, 0.0, face(100, HAPPY), face(220, SAD))
    ((number, found),) = update(tracker, 0.1, face(215, SAD))
    assert (number, found.expression) == (2, "Sad") and found.probabilities == pytest.approx(SAD)


def test_one_missed_frame_is_survived_at_any_frame_rate():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100)) == [1]
    assert numbers(tracker, 2.0, face(110)) == [1], "a slow machine has no other frames"
    assert numbers(tracker, 4.0) == []
    assert numbers(tracker, 6.0, face(110)) == [1]
    assert numbers(tracker, 8.0) == numbers(tracker, 10.0) == []
    assert numbers(tracker, 12.0, face(110)) == [2]


@pytest.mark.parametrize("other", [face(180), face(60, side=220, y=40)])
def test_who_is_far_or_of_another_size_is_somebody_else(other):
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100)) == [1]
    assert numbers(tracker, 0.1, other) == [2]


def test_nobody_lives_on_in_another_scene():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100)) == [1]
    assert numbers(tracker, 0.1, face(100), image=SCENE[::-1]) == [2]
    brighter = np.clip(SCENE[::-1] * 0.7 + 60, 0, 255).astype(np.uint8)
    assert numbers(tracker, 0.2, face(100), image=brighter) == [2], "the light was switched on, nothing else"


def test_who_moves_much_between_two_frames_of_a_slow_machine_is_no_other_scene():
    tracker = Tracker(smoothing=0.5, lost_face=0.5)
    assert numbers(tracker, 0.0, face(100)) == [1]
    assert numbers(tracker, 0.3, face(100), image=SCENE[::-1]) == [1]
    assert numbers(tracker, 0.35, face(100), image=SCENE, passed=9) == [1], "a stream's buffer was emptied at once"
    assert numbers(tracker, 0.40, face(100), image=SCENE[::-1]) == [2]


def test_noise_on_a_bare_wall_is_no_other_scene():
    tracker, random = Tracker(smoothing=0.5, lost_face=0.5), np.random.default_rng(0)
    for step in range(5):
        wall = np.clip(128 + random.normal(0, 8, (480, 640, 3)), 0, 255).astype(np.uint8)
        assert numbers(tracker, step / 10, face(100), image=wall) == [1]


@pytest.mark.parametrize("rate", [5, 30, 120])
def test_an_expression_changes_as_fast_at_every_frame_rate(rate):
    """After `smoothing` seconds of another expression, 1 - 1/e of the average is the new one's."""
    tracker = Tracker(smoothing=0.6, lost_face=0.5)
    times = np.arange(0, 10.6, 1 / rate)
    for seconds in times:
        shown = HAPPY if seconds < 10 - 1e-6 else SAD
        ((_, found),) = update(tracker, float(seconds), face(100, shown))
    share = (HAPPY["Happy"] - found.probabilities["Happy"]) / (HAPPY["Happy"] - SAD["Happy"])
    assert share == pytest.approx(1 - 1 / np.e, abs=0.06)
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_first_frames_are_averaged_evenly():
    tracker = Tracker(smoothing=1000, lost_face=0.5)
    for step, shown in enumerate((HAPPY, SAD, SAD)):
        ((_, found),) = update(tracker, step / 30, face(100, shown))
    assert found.probabilities["Sad"] == pytest.approx((0.1 + 0.8 + 0.8) / 3, abs=1e-3)


def test_without_smoothing_only_the_newest_frame_counts():
    tracker = Tracker(smoothing=0, lost_face=0.5)
    update(tracker, 0.0, face(100, HAPPY))
    ((_, found),) = update(tracker, 0.0, face(100, SAD))
    assert found.probabilities == SAD
