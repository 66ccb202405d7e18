"""Explanations: maps that add up to what the network says, and point at what decides."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ROOT

import predict
from ferkit import explanation, saved_model
from ferkit.explanation import ActivationMaps, Explainer, sheet, split_at_pooling
from ferkit.recognition import Face, Recognizer
from ferkit.vision.boxes import Box
from ferkit.vision.pictures import read_image

PORTRAIT = ROOT / "docs" / "portrait.jpg"
EXPRESSIONS = ("Angry", "Happy", "Sad")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.fixture(scope="module")
def shipped() -> Recognizer:
    return Recognizer("ferplus")


@pytest.mark.parametrize("name", ["ferplus", "fer2013", "fer2013_large"])
def test_activation_map_adds_up_to_the_networks_own_probabilities(name):
    model = saved_model.load(name)
    explainer = Explainer(model, lambda crops: np.zeros((len(crops), 0), np.float32))
    (_, crop), *_ = zip(*Recognizer(name).cut(read_image(PORTRAIT)), strict=True)
    for image in (crop, crop[:, ::-1], 255 - crop, crop // 2):
        cells, bias = ActivationMaps(model).logits(np.ascontiguousarray(image))
        assert cells.shape == ((6, 6, 7) if name == "fer2013_large" else (3, 3, 7))
        whole = softmax(cells.sum(axis=(0, 1)) + bias)
        own = model._run_all(image[None], np.zeros((1, 0), np.float32))[0]  # before calibration
        np.testing.assert_allclose(whole, own, atol=0.02)  # the network rounds activations to 8 bits
        for index, expression in enumerate(model.expressions):
            evidence = explainer.activation_map(np.ascontiguousarray(image), expression)
            expected = np.log(whole[index]) - np.log(whole).mean() - bias[index] + bias.mean()
            assert evidence.sum() == pytest.approx(expected, abs=1e-4)


def test_network_without_pooling_has_no_activation_map(small_model, raw_model):
    for path in (small_model, raw_model):
        recognizer = Recognizer(path)
        assert split_at_pooling(recognizer.model.flatbuffer) is None
        assert (
            Explainer(recognizer.model, recognizer.features_of).activation_map(np.zeros((48, 48), np.uint8), "Sad")
            is None
        )


def test_occlusion_finds_what_decides(monkeypatch):
    """A made-up model is happy as far as the lower left corner is bright, and sad as far as the upper right one is."""
    monkeypatch.setattr(explanation, "split_at_pooling", lambda network: None)

    def predict(crops: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        assert vectors.shape == (len(crops), 2)
        happy, sad = crops[:, 36:, :12].mean(axis=(1, 2)) / 255, crops[:, :12, 36:].mean(axis=(1, 2)) / 255
        powers = np.stack([np.ones(len(crops)), np.exp(happy), np.exp(sad)], axis=1)
        return powers / powers.sum(axis=1, keepdims=True)

    model = SimpleNamespace(flatbuffer=b"", expressions=EXPRESSIONS, features="landmarks", predict=predict)
    explainer = Explainer(model, lambda crops: np.zeros((len(crops), 2), np.float32))
    crop = np.zeros((48, 48), np.uint8)
    crop[36:, :12] = crop[:12, 36:] = 255
    for expression, speaks_for, speaks_against in (
        ("Happy", np.s_[36:, :12], np.s_[:12, 36:]),
        ("Sad", np.s_[:12, 36:], np.s_[36:, :12]),
    ):
        evidence = explainer.occlusion_map(crop, expression)
        assert evidence.shape == (48, 48)
        assert evidence[speaks_for].min() > 0 > evidence[speaks_against].max()
        assert evidence[22:26, 22:26] == pytest.approx(0)
    assert crop[47, 0] == 255, "the crop itself stays uncovered"


def test_sheet_is_red_where_the_map_speaks_for_the_expression(monkeypatch):
    evidence = np.zeros((3, 3))
    evidence[0, 0], evidence[2, 2] = 2.0, -2.0
    asked = []

    def activation_map(crop: np.ndarray, expression: str) -> np.ndarray:
        asked.append(expression)
        return evidence

    explainer = SimpleNamespace(
        model=SimpleNamespace(expressions=("Wütend", "Happy as the model says", "Traurig")),
        activation_map=activation_map,
        occlusion_map=lambda *_: np.zeros((48, 48)),
    )
    face = Face.of(Box(0, 0, 48, 48), {"Angry": 0.2, "Happy": 0.7, "Sad": 0.1})
    crop = np.full((48, 48), 128, np.uint8)
    drawn = sheet(explainer, face, crop).astype(int)
    side, gap, text = explanation._SIDE, explanation._GAP, explanation._TEXT
    panels = [
        drawn[gap + text : gap + text + side, left : left + side] for left in range(gap, drawn.shape[1], side + gap)
    ]
    assert len(panels) == 4 and asked == ["Happy as the model says"], "the settings may have renamed it"
    assert (panels[0] == 128).all() and (panels[2] == 128).all()
    blue, green, red = panels[1][side // 8, side // 8]
    assert red > 150 > 110 > green and red > blue
    blue, green, red = panels[1][-side // 8, -side // 8]
    assert blue > 150 > 110 > red
    assert (panels[1][side // 2, side // 2] == 128).all()
    assert cv2.inRange(panels[3].astype(np.uint8), (40, 40, 220), (40, 40, 220)).any(), "the bar of the expression"


def test_explanations_of_a_folder(small_model, tmp_path, capsys):
    """Two faces and a landscape: the crops give the same answers when they are recognized themselves."""
    from ferkit.data.drawn_faces import draw_photo

    album, folder = tmp_path / "album", tmp_path / "explained"
    (album / "deep").mkdir(parents=True)
    cv2.imwrite(str(album / "deep" / "two.png"), draw_photo((3, 5), np.random.default_rng(3))[0])
    cv2.imwrite(str(album / "sky.png"), np.full((200, 300, 3), 180, np.uint8))
    flags = [f"--model_path={small_model}", "--json"]
    assert predict.main([f"--image={album}", f"--explain={folder}", *flags]) == 0
    faces = json.loads(capsys.readouterr().out.splitlines()[0])["faces"]
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert written == [f"deep/two.png_{end}" for end in ("1.png", "1_crop.png", "2.png", "2_crop.png")]
    for number, face in enumerate(faces, 1):
        path = folder / "deep" / f"two.png_{number}_crop.png"
        assert read_image(path).shape == (48, 48, 3)
        assert predict.main([f"--image={path}", *flags]) == 0
        (alone,) = json.loads(capsys.readouterr().out)["faces"]
        assert alone["probabilities"] == face["probabilities"]
    sheets = [read_image(folder / "deep" / f"two.png_{number}.png") for number in (1, 2)]
    assert sheets[0].shape == sheets[1].shape and (sheets[0] != sheets[1]).any()
    assert sheets[0].shape[1] == 3 * (explanation._SIDE + explanation._GAP) + explanation._GAP, "no activation map"


def test_explanations_stay_out_of_the_folder_that_is_read(small_model, tmp_path, capsys):
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "portrait.jpg").write_bytes(PORTRAIT.read_bytes())
    assert predict.main([f"--image={folder}", f"--explain={folder}", f"--model_path={small_model}"]) == 2
    assert "name another folder" in capsys.readouterr().err
    assert [path.name for path in Path(folder).iterdir()] == ["portrait.jpg"]
