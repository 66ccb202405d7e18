"""Pictures of every kind of file: which are sought in folders, and what is said of those that are not read."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from ferkit.errors import UserError
from ferkit.vision import pictures
from ferkit.vision.pictures import read_image


def test_folder_gives_every_picture_and_says_what_it_leaves_out(raw_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    face = Image.fromarray(np.full((48, 48), 90, np.uint8))
    kinds = (".jfif", ".jpe", ".avif", ".jp2", ".webp", ".tiff", ".ico")
    Path("album").mkdir()
    for kind in kinds:
        face.save(f"album/face{kind}")
    face.save("album/two.gif", save_all=True, append_images=[Image.new("L", (48, 48), 200)])
    Path("album/notes.txt").write_text("no picture")
    Path("album/film.mp4").write_bytes(b"")
    Path("album/.thumbnails").mkdir()
    face.save("album/.thumbnails/face.png")
    assert predict.main(["--image", "album", f"--model_path={raw_model}"]) == 0
    output = capsys.readouterr()
    assert output.out.count("Prediction: ") == len(kinds) + 1
    assert "note: 2 files in album are no pictures by name: .mp4, .txt" in output.err
    assert "note: only the first picture of album/two.gif is read" in output.err


def test_pattern_in_quotes_and_standard_input(raw_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "c.jpg"):
        Image.new("L", (48, 48), 90).save(name)
    assert predict.main(["--image", "*.png", f"--model_path={raw_model}"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("png:")] == ["a.png:", "b.png:"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("a.png").read_bytes())))
    assert predict.main(["--image", "-", f"--model_path={raw_model}"]) == 0
    assert capsys.readouterr().out.startswith("Prediction: ")


def test_standard_input_is_read_beside_many_pictures(raw_model, tmp_path, monkeypatch, capsys):
    """The workers of several processes have no standard input."""
    for number in range(8):
        Image.new("L", (48, 48), 90).save(tmp_path / f"{number}.png")
    flags = [f"--model_path={raw_model}", "--processes=2"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "1.png").read_bytes())))
    assert predict.main(["--image", str(tmp_path), "-", *flags]) == 0
    assert capsys.readouterr().out.count("Prediction: ") == 9


@pytest.mark.parametrize("flag", ["--image=", "--image=a\0b"])
def test_nothing_is_no_picture(flag, capsys):
    with pytest.raises(SystemExit):
        predict.main([flag])
    assert "is no path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ("12:30@party.jpg", "cannot read 12:30@party.jpg: no such file"),
        ("none*.png", "no file matches none*.png"),
        ("https://example.org/a.jpg", "cannot read https://example.org/a.jpg: download the picture first"),
    ],
)
def test_what_names_no_picture_is_one_line(raw_model, capsys, given, fragment):
    assert predict.main(["--image", given, f"--model_path={raw_model}"]) == 2
    assert fragment in capsys.readouterr().err


@pytest.mark.parametrize(("white", "level"), [(1.0, 0.5), (255.0, 127.5), (65535.0, 32767.5)])
def test_tiff_of_floats_has_its_brightness(tmp_path, white, level):
    values = np.full((48, 48), level, np.float32)
    values[0, 0] = white
    Image.fromarray(values).save(tmp_path / "float.tiff")
    assert abs(int(read_image(tmp_path / "float.tiff")[20, 20, 0]) - 128) <= 1


def test_very_large_jpeg_is_decoded_reduced(tmp_path):
    Image.new("L", (16320, 12240), 90).save(tmp_path / "telephone.jpg")
    image = read_image(tmp_path / "telephone.jpg")
    assert image.shape == (4500, 6000, 3) and abs(int(image[100, 100, 0]) - 90) <= 2


def test_heic_is_read_or_its_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "telephone.HEIC"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    monkeypatch.setattr(pictures, "_reads_heic", lambda: False)
    with pytest.raises(UserError, match="HEIC needs a package: 'pip install pillow-heif'"):
        read_image(path)
    monkeypatch.undo()
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(path)
    assert np.abs(read_image(path)[10, 10].astype(int) - [50, 100, 200]).max() < 8
