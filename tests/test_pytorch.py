"""PyTorch's networks answer as TensorFlow's with the same weights, and a training can be stopped and continued."""

import dataclasses
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import full_disk

from experiments import record
from ferkit import saved_model
from ferkit.data.dataset import Dataset, Split
from ferkit.errors import UserError
from ferkit.files import lock
from ferkit.learning.run import CannotResume, Diverged, Run, State
from ferkit.learning.scaling import Scaling
from ferkit.saved_model import SavedModel
from ferkit.settings import Augmentation, Hyperparams, Network, Training
from model import ARCHITECTURES

torch = pytest.importorskip("torch", reason="PyTorch, which is optional, is not installed")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # several would wait for each other where other tests run


class Faces:
    """As much of a dataset as a training needs: two classes, bright and dark."""

    counts = {"Training": 96}  # noqa: RUF012
    expressions = ("Dark", "Bright")
    label_source = "fer2013"
    fingerprint = "none"

    def feature_provenance(self, feature: str) -> dict:
        return {}


def split(count: int, seed: int, size: int = 0) -> Split:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 90, (count, 48, 48)) + 120 * labels[:, None, None]
    return Split(images.astype(np.uint8), random.random((count, size), np.float32), labels)


def run_of(model: str = "slim", feature: str = "none", **hyperparams: object) -> Run:
    network = Network(model=model, features=feature, output_size=2, standardize=True)
    values = {"optimizer": "nesterov", "optimizer_param": 0.9, "learning_rate": 0.02, "batch_size": 32, **hyperparams}
    training = Training(epochs=2, seed=1)
    return Run(Faces(), ARCHITECTURES[model], network, Hyperparams(**values), training, Augmentation(flip=True))  # type: ignore[arg-type]


def taught(**hyperparams: object) -> Run:
    """The run of a student whose teachers are networks of PyTorch."""
    return dataclasses.replace(run_of(**hyperparams), own_teachers=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("model, feature", [("A", "landmarks"), ("D", "none")])
def test_a_network_answers_as_tensorflows_with_its_weights(model: str, feature: str) -> None:
    from ferkit import features
    from ferkit.learning import pytorch
    from ferkit.learning.graph import inference_flatbuffer

    faces = split(6, 0, features.size(feature))
    run, scaling = run_of(model, feature), Scaling.of(faces.images, faces.features)
    network = pytorch.TorchNetwork(run, scaling)
    for name, values in network.state_dict().items():  # so that none of them is without effect
        if values.ndim == 1:
            values.copy_(torch.rand(values.shape) / 2 + (0.5 if name.endswith(("running_var", "weight")) else 0))
    flatbuffer = inference_flatbuffer(pytorch.weights_of(network), run.network, run.architecture, scaling)
    facts = {"expressions": Faces.expressions, "features": feature, "feature_provenance": {}}
    ours = pytorch.probabilities(network, faces.images, faces.features)
    np.testing.assert_allclose(ours, SavedModel(flatbuffer, facts).predict(faces.images, faces.features), atol=1e-5)
    other = pytorch.TorchNetwork(run, scaling)
    pytorch.set_weights(other, pytorch.weights_of(network))
    assert (pytorch.probabilities(other, faces.images, faces.features) == ours).all()


def test_a_network_learns_and_its_best_epoch_is_kept(tmp_path: Path) -> None:
    from ferkit.learning import pytorch

    validation = split(40, 1)
    training = pytorch.TorchTraining(run_of(ema_decay=0.5), split(96, 0), validation, tmp_path / "state.pt")
    first, last = training.fit().history
    assert last["validation_accuracy"] > 0.9 and last["loss"] < first["loss"] and last["accuracy"] > first["accuracy"]
    best = max(first["validation_accuracy"], last["validation_accuracy"])
    assert pytorch.validated(training.best, validation)["validation_accuracy"] == best


def test_a_training_that_was_stopped_equals_one_that_was_not(tmp_path: Path) -> None:
    from ferkit.learning import pytorch

    learn, run = split(96, 0), run_of(ema_decay=0.5, mixup=0.2, keep_prob=0.9)
    whole = pytorch.TorchTraining(run, learn, None, tmp_path / "whole.pt")
    whole.fit()

    def stop(state: State) -> None:
        raise KeyboardInterrupt

    (tmp_path / "state.pt").write_bytes((tmp_path / "whole.pt").read_bytes())  # of an earlier training
    with pytest.raises(KeyboardInterrupt):
        pytorch.TorchTraining(run, learn, None, tmp_path / "state.pt").fit(stop)
    resumed = pytorch.TorchTraining(run, learn, None, tmp_path / "state.pt", resume=True)
    assert len(resumed.state.history) == 1, "the checkpoint of the first epoch replaces an earlier training's"
    assert [row["epoch"] for row in resumed.fit().history] == [1, 2]
    with pytest.raises(Diverged, match="try a lower --learning_rate"):
        pytorch.TorchTraining(run_of(learning_rate=1e9), learn, None, tmp_path / "diverged.pt").fit()
    for one, other in zip(whole.best.state_dict().values(), resumed.best.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    with full_disk(1000), pytest.raises(UserError, match=r"cannot write .*state\.pt: no space is left on its disk"):
        resumed._write()
    with pytest.raises(CannotResume, match=r"has keep_prob=0\.9, not 0\.5"):
        pytorch.TorchTraining(run_of(keep_prob=0.5, ema_decay=0.5, mixup=0.2), learn, None, tmp_path / "state.pt", True)
    (tmp_path / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CannotResume, match="is damaged"):
        pytorch.TorchTraining(run, learn, None, tmp_path / "state.pt", resume=True)


def test_the_mean_of_the_teachers_is_learned(tmp_path: Path) -> None:
    from ferkit.learning import pytorch

    learn = split(96, 0)
    teacher = pytorch.TorchTraining(run_of(), learn, None, tmp_path / "teacher.pt")
    teacher.fit()
    wrong, run = dataclasses.replace(learn, labels=1 - learn.labels), taught(teacher_share=1.0)
    student = pytorch.TorchTraining(run, wrong, None, tmp_path / "student.pt", teachers=[teacher.best] * 2)
    student.fit()  # of labels that do not count
    assert pytorch.validated(student.best, split(40, 1))["validation_accuracy"] > 0.9


def test_smoothing_that_the_teachers_learned_is_taken_out_of_their_answers(tmp_path: Path, monkeypatch) -> None:
    from ferkit.learning import pytorch

    learn, learned, loss = split(8, 0), [], pytorch.functional.cross_entropy
    teacher = pytorch.TorchNetwork(taught(label_smoothing=0.2, teacher_share=0.5), None)
    student = pytorch.TorchTraining(taught(teacher_share=1.0), learn, None, tmp_path / "state.pt", teachers=[teacher])
    monkeypatch.setattr(
        pytorch.functional, "cross_entropy", lambda logits, targets: learned.append(targets) or loss(logits, targets)
    )
    labels = torch.eye(2)[learn.labels]
    faces = torch.from_numpy(learn.images), torch.from_numpy(learn.features)
    student._step(0, *faces, labels, labels, *faces)
    said = pytorch.probabilities(teacher, learn.images, learn.features)
    np.testing.assert_allclose(learned[0], saved_model.without_smoothing(said, 0.1), atol=0.01)  # bf16
    answers = np.float32([[0.92, 0.08], [0.05, 0.95], [0.5, 0.5]])
    expected = saved_model.without_smoothing(answers, 0.1)
    np.testing.assert_allclose(pytorch.without_smoothing(torch.from_numpy(answers), 0.1), expected, atol=1e-6)


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    from ferkit.learning import pytorch

    def kill(state: State) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        time.sleep(10)  # until PyTorch notices

    with pytest.raises(UserError, match="a process that changes faces was ended.*: use a smaller --batch_size"):
        pytorch.TorchTraining(run_of(), split(96, 0), None, tmp_path / "state.pt").fit(kill)
    for text, reason in (
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", "there is too little memory: use a smaller --batch_size"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to", "there is too little memory"),
        ("unable to write to file </torch_12_34>: No space left on device (28)", "docker run --shm-size"),
    ):
        with pytest.raises(UserError, match=reason), pytorch.failures_told():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes"), pytorch.failures_told():
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0: shapes cannot be multiplied")


def test_rates_are_those_of_tensorflow() -> None:
    from ferkit.learning import pytorch
    from ferkit.learning.graph import learning_rate
    from ferkit.learning.tflearn_compat import tf

    for schedule in ("cosine", "exponential"):
        hyperparams = Hyperparams(schedule=schedule, warmup_steps=10, decay_step=7)
        with tf.Graph().as_default(), tf.Session() as session:
            step = tf.placeholder(tf.int64, ())
            theirs = learning_rate(hyperparams, step, 60)
            for number in (0, 5, 10, 33, 59):
                ours = pytorch.rate(hyperparams, number, 60)
                assert ours == pytest.approx(float(session.run(theirs, {step: number})), rel=1e-5)


def test_train_py_saves_what_pytorch_trained(drawn_dataset: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import train
    from ferkit.learning import pytorch

    monkeypatch.chdir(tmp_path)
    flags = ["--train=yes", "--engine=pytorch", "--model=slim", f"--folder={drawn_dataset}", "--features=landmarks"]
    assert train.main([*flags, "--epochs=2"]) == 0
    saved = saved_model.load(tmp_path / "best_model" / "saved_model.bin")
    assert saved.facts["training"]["engine"] == "pytorch" and "torch" in saved.facts["versions"]
    assert train.main([*flags, "--epochs=2", "--resume=yes"]) == 0
    assert train.main([*flags, "--epochs=3", "--resume=yes"]) == 0
    assert "Resuming after epoch 2, 1 left to train" in capsys.readouterr().out
    epoch_of = pytorch.TorchTraining._epoch

    def epoch_or_failure(self: pytorch.TorchTraining, epoch: int, *given: object) -> dict[str, float]:
        if epoch == 2:
            raise RuntimeError("CUDA out of memory")
        return epoch_of(self, epoch, *given)

    monkeypatch.setattr(pytorch.TorchTraining, "_epoch", epoch_or_failure)
    assert train.main([*flags, "--epochs=2", "--model_path=kept.bin"]) == 2
    errors = capsys.readouterr().err
    assert "keeping the best of the 1 finished epochs" in errors and "error: the training stopped, there is" in errors
    assert saved_model.load(tmp_path / "kept.bin").facts["epochs_finished"] == 1


def test_a_saved_model_can_be_the_teacher(drawn_dataset: Path, raw_model: Path, tmp_path: Path, monkeypatch) -> None:
    import train

    monkeypatch.chdir(tmp_path)
    flags = ["--train=yes", "--engine=pytorch", "--model=slim", f"--folder={drawn_dataset}", "--features=none"]
    taught = [f"--teacher={raw_model}", "--teacher_share=0.5", "--label_smoothing=0.1", "--epochs=1"]
    assert train.main([*flags, *taught]) == 0
    facts = saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts
    assert facts["teacher"]["teacher_sha256"] == saved_model.load(raw_model).facts["network_sha256"]
    assert facts["label_smoothing"] == pytest.approx(0.05), "the teacher's half has none"


def test_without_pytorch_one_line_says_how_to_get_it(drawn_dataset: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert train.main(["--train=yes", "--engine=pytorch", "--model=slim", f"--folder={drawn_dataset}"]) == 2
    assert capsys.readouterr().err == (
        "error: engine=pytorch needs PyTorch: pip install torch, or use --engine=tensorflow\n"
    )


def test_the_record_trains_teachers_and_a_student_and_saves_it(
    drawn_dataset: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    *teachers, planned = plan = small_plan()
    names = planned.teachers
    monkeypatch.setitem(record.PLANS, "fer2013", plan)
    assert record.main([f"--folder={drawn_dataset}"]) == 0
    model = saved_model.load(tmp_path / "record_work" / "fer2013" / "saved_model.bin")
    assert [teacher["name"] for teacher in model.facts["teachers"]] == list(names)
    assert model.facts["student"]["seed"] == 0 and (tmp_path / "record_work/fer2013/learning_curve.png").is_file()
    rows = (tmp_path / "results" / "record.csv").read_text().splitlines()
    assert rows[0].startswith("name,labels,model,seed,teachers,") and len(rows) == 4
    assert record.main([f"--folder={drawn_dataset}", "--evaluate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    student = next(line for line in lines if line.startswith("| student |"))
    assert f"{model.facts['validation_accuracy']:.1%}" in student and "| the teachers, averaged |" in "\n".join(lines)
    assert record.main(["--list=yes"]) == 0
    assert capsys.readouterr().out.count("done") == 3

    work, again = tmp_path / "record_work" / "fer2013", [f"--folder={drawn_dataset}"]
    (work / "saved_model.bin").unlink()
    with monkeypatch.context() as elsewhere:  # where TensorFlow is, PyTorch need not be
        elsewhere.setitem(sys.modules, "torch", None)
        assert record.main(again) == 0
    assert saved_model.load(work / "saved_model.bin").facts["bfloat16"] == model.facts["bfloat16"]

    def refused(*fragments: str) -> None:
        capsys.readouterr()
        assert record.main(again) != 0
        (line,) = capsys.readouterr().err.splitlines()
        assert all(fragment in line for fragment in (*fragments, "delete it or name another --work")), line

    with monkeypatch.context() as changed:
        changed.setattr(Dataset, "fingerprint", "of other faces")
        refused("teacher-1.npz is of another dataset")
    with monkeypatch.context() as changed:
        other = dataclasses.replace(teachers[0], settings={**teachers[0].settings, "learning_rate": 0.003})
        changed.setitem(record.PLANS, "fer2013", (other, *plan[1:]))
        refused("teacher-1.npz has learning_rate=0.002, not 0.003")
    with np.load(work / "teacher-1.npz") as arrays:
        np.savez(work / "teacher-1.npz", **{**arrays, "network/logits/b": arrays["network/logits/b"] + 1})
    refused("student.npz has learned from other teachers")
    (work / "student.npz").unlink()
    checkpoint = work / f"student-{record.digest_of_teachers(planned, work)[:8]}.pt"
    checkpoint.write_bytes(b"no checkpoint")
    refused(f"{checkpoint.name} is damaged")


def test_the_record_trains_nothing_before_all_can_be_trained(
    drawn_dataset: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    *teachers, student = small_plan()
    monkeypatch.setitem(record.PLANS, "fer2013", (*teachers, student))
    monkeypatch.setattr(record, "train", lambda *_: pytest.fail("nothing may be trained"))

    def refused(fragment: str) -> None:
        assert record.main([f"--folder={drawn_dataset}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert fragment in line

    for settings, fragment in (
        ({"output_size": 5}, "7 expressions"),
        ({"warmup_steps": 99}, "warmup_steps is 99, but the training has only 42 steps"),
    ):
        changed = dataclasses.replace(student, settings={**student.settings, **settings})
        monkeypatch.setitem(record.PLANS, "fer2013", (*teachers, changed))
        refused(fragment)
    monkeypatch.setitem(record.PLANS, "fer2013", (*teachers, student))
    work, table = tmp_path / "record_work" / "fer2013", tmp_path / "results" / "record.csv"
    work.mkdir(parents=True)
    with lock(work / "record"):
        refused("another process trains in record_work/fer2013: name another --work")
    table.parent.mkdir()
    for content in ("name,labels\n", f"{','.join(record.COLUMNS)}\nteacher-1,fer2013\n"):
        table.write_text(content)
        refused("results/record.csv has other columns than name, labels, model,")


def small_plan() -> tuple[record.Planned, ...]:
    """Two teachers and a student that are trained in no time."""
    small = {"batch_size": 32, "learning_rate": 0.002, "warmup_steps": 2, "ema_decay": 0.5, "features": "none"}
    teachers = tuple(record.Planned(f"teacher-{seed}", "slim", seed, 1, settings=small) for seed in (1, 2))
    names = tuple(teacher.name for teacher in teachers)
    return (*teachers, record.Planned("student", "slim", 0, 2, names, {**small, "teacher_share": 0.8}))
