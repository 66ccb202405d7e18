"""The saved model's file: strict in loading, usable by other tools, refusing what it was not trained on."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from ferkit import saved_model
from ferkit.errors import UserError
from ferkit.transforms import views

FACES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)


@pytest.fixture
def path(small_model: Path, tmp_path: Path) -> Path:
    """A copy of a saved model, to be damaged."""
    copy = tmp_path / "saved_model.bin"
    copy.write_bytes(small_model.read_bytes())
    return copy


def test_file_is_a_litert_network_and_a_zip_archive_of_its_facts(path):
    network = Interpreter(model_path=str(path))
    assert {details["name"] for details in network.get_input_details()} == {"images", "features"}
    facts = json.loads(zipfile.ZipFile(path).read("facts.json"))
    assert facts["features"] == "landmarks" and facts["expressions"][3] == "Happy"


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_cut_off_file_is_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))] if isinstance(kept, float) else content[:kept])
    with pytest.raises(UserError, match=f"{path} is not a whole saved model"):
        saved_model.load(path)


def test_changed_weight_is_refused(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="its network is not the one that was saved"):
        saved_model.load(path)


@pytest.mark.parametrize(("place", "value"), [(8151, 80), (7822, 71), (5470, 84)])
def test_network_that_cannot_be_run_is_refused_while_it_is_loaded(path, place, value):
    """Damage with a right hash, which LiteRT finds only when it runs the network."""
    content = saved_model.shipped("ferplus").read_bytes()
    with zipfile.ZipFile(saved_model.shipped("ferplus")) as archive:
        facts = json.loads(archive.read("facts.json"))
        network = bytearray(content[: archive.getinfo("facts.json").header_offset])
    network[-place] = value
    saved_model.save(path, bytes(network), facts)
    with pytest.raises(UserError, match=f"{path} is not a whole saved model"):
        saved_model.load(path)


def test_facts_without_a_network_are_refused(path):
    saved_model.save(path, b"no network", {"expressions": ["Sad", "Happy"], "features": "none", "recipes": {}})
    with pytest.raises(UserError, match="not a whole saved model"):
        saved_model.load(path)


def test_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no trained model at .*python train.py --train=yes"):
        saved_model.load(tmp_path / "none.bin")


def test_short_name_is_found_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "fer2013").mkdir()
    monkeypatch.chdir(tmp_path)
    assert saved_model.find("fer2013") == saved_model.shipped("fer2013")
    assert saved_model.find("fer2013/model.bin") == Path("fer2013/model.bin")


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*: it is a folder, not a regular file"):
        saved_model.load(tmp_path)


def test_lack_of_memory_is_not_called_damage(path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(saved_model, "SharedInterpreter", fail)
    with pytest.raises(MemoryError):
        saved_model.load(path)


def test_batch_size_does_not_matter(small_model):
    model = saved_model.load(small_model)
    random = np.random.default_rng(0)
    faces = random.integers(0, 256, (saved_model.BATCH + 3, 48, 48), dtype=np.uint8)
    vectors = random.random((len(faces), 136), np.float32) * 48
    together = model.predict(faces, vectors)
    assert model.predict(faces[:0], vectors[:0]).shape == (0, 7)
    alone = np.concatenate([model.predict(faces[row : row + 1], vectors[row : row + 1]) for row in (0, 1, 66)])
    np.testing.assert_allclose(alone, together[[0, 1, 66]], atol=1e-5)


@pytest.mark.parametrize(
    ("faces", "size"), [(FACES, 0), (FACES, 208), (FACES[:, :40], 136), (FACES[:4], 136), (FACES.astype("f4"), 136)]
)
def test_inputs_of_another_kind_are_refused(small_model, faces, size):
    with pytest.raises(ValueError, match=r"faces must be|vectors must be \(\d, 136\)"):
        saved_model.load(small_model).predict(faces, np.zeros((5, size), np.float32))


def change_facts(path: Path, **changes: object) -> None:
    facts = saved_model.load(path).facts
    network = path.read_bytes()
    network = network[: zipfile.ZipFile(path).getinfo("facts.json").header_offset]
    saved_model.save(path, network, {**facts, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"expressions": ["Sad", "Happy"]},
        {"features": "none"},
        {"features": "smell"},
        *({"temperature": nonsense} for nonsense in (0, float("nan"), float("inf"), "hot")),
        {"temperature_augmented": -1},
        {"temperature": 1e-300},
        {"label_smoothing": 1},
        *({"expressions": names} for names in (None, [["Sad"]] * 7, ["Sad"] * 7, "SadSadS", {"Sad": 1})),
        *({"feature_provenance": value} for value in (None, [], {"landmarks": None})),
        *({"network": value} for value in (None, "B")),
        {"dataset": []},
        {"dataset": {"counts": {"Training": 400.0}}},
        {"training": "ferplus"},
        {"hyperparams": {"logit_adjustment": "1"}},
        {"frequencies": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1.5]},
        {"balance": [1, 1, 1, 1, 1, 1, "1"]},
    ],
    ids=str,
)
def test_facts_that_are_not_the_networks_are_refused(path, change):
    change_facts(path, **change)
    with pytest.raises(UserError, match="not a whole saved model") as error:
        saved_model.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
def test_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).normal(0, 3, (50, 7))
    powers, expected = np.exp(logits), np.exp(logits / temperature)
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    found = saved_model.at_temperature(probabilities, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))
    assert (found.max(axis=1) < probabilities.max(axis=1)).all() == (temperature > 1)
    np.testing.assert_array_equal(saved_model.at_temperature(probabilities, 1), probabilities)


def test_temperature_of_certainty_is_no_division_by_zero():
    certain = np.float32([[1, 0, 0], [0.5, 0.5, 0]])
    for temperature in (0.1, 10.0):
        found = saved_model.at_temperature(certain, temperature)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(found[:, 0] > found[:, 1], [True, False])


def test_smoothing_is_taken_out_again():
    labels = np.eye(7)[[0, 3]]
    sure = np.float32(0.9 * labels + 0.1 / 7)  # all that a network can say that learned labels smoothed by 0.1
    found = saved_model.without_smoothing(sure, 0.1)
    np.testing.assert_allclose(found, labels, atol=1e-3)
    assert found.min() > 0
    np.testing.assert_array_equal(saved_model.without_smoothing(sure, 0.0), sure)


def test_augmented_predictions_are_the_views_average_at_a_temperature_of_their_own(path):
    change_facts(path, temperature=1.0, temperature_augmented=2.0, label_smoothing=0.0)
    model = saved_model.load(path)
    vectors = np.random.default_rng(1).random((len(FACES), 136), np.float32) * 48
    average = np.mean([model.predict(*view) for view in views(FACES, vectors, "landmarks")], axis=0)
    expected = saved_model.at_temperature(average, 2.0)
    np.testing.assert_allclose(model.predict(FACES, vectors, augmented=True), expected, atol=1e-6)
    assert not np.allclose(expected, average, atol=1e-3)


def test_saved_temperature_is_that_of_the_predictions(path):
    vectors = np.random.default_rng(1).random((len(FACES), 136), np.float32) * 48
    answers = {}
    for temperature in (1.0, 2.0):
        change_facts(path, temperature=temperature)
        answers[temperature] = saved_model.load(path).predict(FACES, vectors)
    assert answers[1.0].max() > 0.5
    powers = np.sqrt(answers[1.0].astype(float))
    np.testing.assert_allclose(answers[2.0], powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_model_that_was_saved_without_a_temperature_has_temperature_1(path):
    facts = saved_model.load(path).facts
    network = path.read_bytes()[: zipfile.ZipFile(path).getinfo("facts.json").header_offset]
    del facts["temperature"]
    saved_model.save(path, network, facts)
    assert saved_model.load(path).temperature == 1
