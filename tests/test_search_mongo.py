"""The hyperparameter search across machines: the real engine over a real socket.

The server is MongoDB where there is a `mongod`, and else SecantusDB, which speaks MongoDB's protocol.
"""

import contextlib
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from conftest import ROOT, command_line
from pymongo.errors import ConfigurationError
from pymongo.uri_parser import parse_uri
from test_search import CHEAP, TINY, cheap, made, run_of, start, wait_until

from ferkit.errors import UserError
from ferkit.search import local, mongo, report
from ferkit.search.hyperopt_compat import OldDatabase
from ferkit.search.mongo import (
    DONE,
    NEW,
    RUNNING,
    Driver,
    Heartbeat,
    HeartbeatMonitor,
    Server,
    connect,
    finish,
    give_back,
    histories,
    kept,
    lead,
    reserve,
)
from ferkit.search.state import FORMAT, search_settings
from ferkit.search.trial import Outcome
from model import ARCHITECTURES
from optimize_hyperparams import TRIAL_COMMAND, main, show
from parameters import OPTIMIZER

USER, PASSWORD = "ada", "p@ss/w:rd"


REPLICAS = "machines"  # name of a replica set


def serve(
    folder: Path, authorization: bool, port: int = 0, certificate: Path | None = None
) -> contextlib.AbstractContextManager[int]:
    """A server on this machine, in the block; its port. With a certificate it is a replica set of one, behind TLS."""
    return (mongo_daemon if shutil.which("mongod") else secantus)(folder, authorization, port, certificate)


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """A server on this machine that wants the password of its one user."""
    folder = tmp_path_factory.mktemp("database")
    with serve(folder, False) as port, pymongo.MongoClient("127.0.0.1", port) as client:
        client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
    with serve(folder, True) as port:
        yield port


@contextlib.contextmanager
def secantus(folder: Path, authorization: bool, port: int, certificate: Path | None) -> Iterator[int]:
    from secantus import SecantusDBServer

    secured = {}
    if certificate is not None:
        secured = {"tls_cert_file": str(certificate), "tls_key_file": str(certificate), "replica_set_name": REPLICAS}
    with SecantusDBServer(port=port, storage_path=str(folder), require_auth=authorization, **secured) as server:
        yield server.port


@contextlib.contextmanager
def mongo_daemon(folder: Path, authorization: bool, port: int, certificate: Path | None) -> Iterator[int]:
    port = port or free_port()
    command = ["mongod", f"--dbpath={folder}", f"--port={port}", "--bind_ip=127.0.0.1"]
    options: dict[str, Any] = {"serverSelectionTimeoutMS": 30_000, "directConnection": True}
    if certificate is not None:
        command += [f"--replSet={REPLICAS}", "--tlsMode=requireTLS", f"--tlsCertificateKeyFile={certificate}"]
        options |= {"tls": True, "tlsCAFile": str(certificate)}
    process = subprocess.Popen(command + ["--auth"] * authorization, stdout=subprocess.DEVNULL)
    try:
        with pymongo.MongoClient("127.0.0.1", port, **options) as client:
            client.admin.command("ping")
            if certificate is not None:
                members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
                client.admin.command("replSetInitiate", {"_id": REPLICAS, "members": members})
        yield port
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def database(request) -> str:
    """A database of its own for each test."""
    return f"test_{abs(hash(request.node.name)) % 10**8}"


@pytest.fixture
def address(port, database, monkeypatch) -> str:
    """Its address; the password is in the environment."""
    monkeypatch.setenv("MONGO_USER", USER)
    monkeypatch.setenv("MONGO_PASSWORD", PASSWORD)
    return f"mongodb://127.0.0.1:{port}/{database}"


@pytest.fixture
def server(address) -> Server:
    return connect(address, {"MONGO_USER": USER, "MONGO_PASSWORD": PASSWORD})


@pytest.fixture
def settings(drawn_dataset) -> dict:
    return search_settings(run_of(drawn_dataset), OPTIMIZER)


@pytest.fixture
def cheap_trials(monkeypatch) -> None:
    monkeypatch.setattr(mongo, "run_trial", cheap)
    monkeypatch.setattr(mongo, "POLL", 0.05)


def few(count: int, **changes: object):
    return replace(OPTIMIZER, **{"max_evals": count, "heartbeat": 60.0, **changes})


def work(server: Server, name: str, folder: str) -> int:
    return mongo.work(server, name, folder, ARCHITECTURES, TRIAL_COMMAND)


@contextlib.contextmanager
def in_background(function: Callable, *arguments: object) -> Iterator[list]:
    """Runs it in a thread, which the block's end waits for; its result is in the list then, its error raised."""
    results = []

    def run() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield results
    thread.join(300)
    assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result


@contextlib.contextmanager
def driver(server: Server, name: str, settings: dict, optimizer) -> Iterator[list]:
    """A driver in a thread, with its search in the database."""
    with in_background(lead, server, name, settings, optimizer) as results:
        wait_until(lambda: results or server.jobs.find_one({"exp_key": name}))
        yield results


@pytest.fixture
def silences(monkeypatch) -> dict[object, float]:
    """For how long each was silent when a driver last looked."""
    heard = {}

    class Listening(HeartbeatMonitor):
        def silent(self, who: object, count: object) -> float:
            heard[who] = super().silent(who, count)
            return heard[who]

        def forget(self) -> None:
            heard.clear()
            super().forget()

    monkeypatch.setattr(mongo, "HeartbeatMonitor", Listening)
    return heard


# --- what hyperopt still needs ---------------------------------------------------------------------------------------


def engine(database):
    from hyperopt.mongoexp import MongoJobs, MongoTrials

    jobs = MongoJobs(database, database.jobs, None, database.client, None, "spec")
    return jobs, MongoTrials(jobs, exp_key="x", refresh=False)


def test_adapter_is_still_needed(server):
    """When this fails, hyperopt has learnt PyMongo 4: hyperopt_compat.py can go, or shrink."""
    plain = server.database.client[server.database.name]
    jobs, trials = engine(plain)
    for call in (lambda: jobs.reserve("me"), lambda: trials.new_trial_ids(1), lambda: trials._insert_trial_docs([{}])):
        with pytest.raises(TypeError, match="object is not callable"):
            call()


def test_name_that_the_dns_does_not_know_is_no_invalid_address(monkeypatch):
    def unknown(address: str) -> dict:
        if address.startswith("mongodb+srv://"):
            raise ConfigurationError("The DNS query name does not exist: _mongodb._tcp.none.example.")
        return parse_uri(address)

    monkeypatch.setattr(mongo, "parse_uri", unknown)
    with pytest.raises(UserError, match=r"behind mongodb\+srv:// in --mongo is not found by the DNS") as error:
        connect("mongodb+srv://user:secret@none.example/faces", {})
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="--mongo has no valid address"):
        connect("mongodb+srv://user:se/cret@none.example/faces", {})


def test_replica_set_behind_tls(tmp_path, monkeypatch):
    """A wrong name of the set, no TLS, and an unknown authority of the certificate are refused."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*request.split(), *names], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    with serve(tmp_path, False, certificate=certificate) as port:
        address = f"mongodb://127.0.0.1:{port}/faces?replicaSet="
        server = connect(f"{address}{REPLICAS}&tls=true&tlsCAFile={certificate}", {})
        server.jobs.insert_one({"tid": 1})
        assert server.jobs.find_one()["tid"] == 1
        monkeypatch.setattr(mongo, "REACHED_WITHIN", 0.5)
        for wrong in (REPLICAS, f"{REPLICAS}&tls=true", f"other&tls=true&tlsCAFile={certificate}"):
            with pytest.raises(UserError, match="no MongoDB answers for database faces on 127.0.0.1"):
                connect(f"{address}{wrong}", {})


@pytest.mark.skipif(shutil.which("mongod") is None, reason="no mongod on the PATH: SecantusDB stood in for it")
def test_server_of_these_tests_is_a_true_mongod(server):
    assert "openssl" in server.database.client.server_info()


def test_adapter_suffices(server):
    assert isinstance(server.database, OldDatabase)
    server.database.job_ids.insert_one({"a": 0, "last_id": 5})
    jobs, trials = engine(server.database)
    assert trials.new_trial_ids(2) == [5, 6] and trials.new_trial_ids(1) == [7]
    trials._insert_trial_docs([{"tid": 5, "state": NEW, "owner": None, "exp_key": "x"}])
    assert jobs.reserve("me", exp_key="other") is None
    job = jobs.reserve("me", exp_key="x")
    assert (job["tid"], job["owner"], job["state"]) == (5, "me", RUNNING)
    assert jobs.reserve("me", exp_key="x") is None


# --- a search --------------------------------------------------------------------------------------------------------


def test_two_workers_and_one_killed_in_mid_trial(address, server, drawn_dataset, tmp_path):
    """Three processes and real trainings, as on three machines."""
    script = command_line("optimize_hyperparams.py", f"--mongo={address}", f"--folder={drawn_dataset}", slim=True)

    def job_of(worker: subprocess.Popen, state: int):
        return server.jobs.find_one({"owner": {"$regex": f":{worker.pid}:"}, "state": state})

    with contextlib.ExitStack() as stack:
        leader = start(script, *TINY, "--max_evals=3", "--heartbeat=4", cwd=tmp_path)
        stack.callback(leader.kill)
        wait_until(lambda: leader.poll() is not None or server.jobs.find_one({"state": NEW}))
        victim = start(script, "--worker", cwd=tmp_path)
        stack.callback(victim.kill)
        wait_until(lambda: victim.poll() is not None or job_of(victim, RUNNING))  # before the other can do all of them
        other = start(script, "--worker", cwd=tmp_path)
        stack.callback(other.kill)
        wait_until(lambda: job_of(victim, DONE) and job_of(victim, RUNNING))
        number = job_of(victim, RUNNING)["misc"]["number"]
        victim.kill()
        output, errors = leader.communicate(timeout=300)
        assert leader.returncode == 0, errors
        assert other.wait(300) == 0
        logs = [output, errors, *victim.communicate(), *other.communicate()]
    assert f"Trial {number} goes back to the queue" in output and "Best: trial " in output
    _, trials = kept(server, "default")
    assert [trial.number for trial in trials] == [1, 2, 3]
    assert all(trial.status == "ok" and len(trial.accuracies) == 1 for trial in trials)
    again = server.jobs.find_one({"misc.number": number})
    assert again["attempts"] == 1 and f":{other.pid}:" in again["owner"]
    done = {trial.worker.split(":")[-1] for trial in trials}
    assert done == {str(victim.pid), str(other.pid)}, "both workers did some"
    assert (tmp_path / "search" / "default" / "best_hyperparams.json").is_file()
    assert not any(PASSWORD in log or "Traceback" in log for log in logs), logs


def test_queue_follows_the_number_of_workers(server, settings, drawn_dataset, monkeypatch):
    monkeypatch.setattr(mongo, "POLL", 0.05)
    gate, looks = threading.Event(), []
    fill_queue = Driver.fill_queue
    monkeypatch.setattr(Driver, "fill_queue", lambda *arguments: (fill_queue(*arguments), looks.append(1)))

    def slow(job, command, hopeless):
        assert gate.wait(300)
        return cheap(job, command, hopeless)

    monkeypatch.setattr(mongo, "run_trial", slow)
    with driver(server, "x", settings, few(9)), contextlib.ExitStack() as stack:
        for workers in (1, 2, 3):
            stack.enter_context(in_background(work, server, "x", str(drawn_dataset)))
            wait_until(lambda count=workers: server.jobs.count_documents({"state": RUNNING}) == count)
            wait_until(lambda: server.jobs.count_documents({"state": NEW}) == 1)
            before = len(looks)
            wait_until(lambda seen=before: len(looks) > seen + 3)
            assert server.jobs.count_documents({}) == workers + 1, "however often the driver looks"
        gate.set()
    assert server.database.workers.count_documents({}) == 0, "each says good-bye"


def test_two_searches_share_a_database(server, settings, drawn_dataset, cheap_trials):
    other = {**settings, "training": {**settings["training"], "seed": 1}}
    with driver(server, "one", settings, few(4)) as first, driver(server, "two", other, few(3)) as second:
        assert work(server, "two", str(drawn_dataset)) == 3
        assert work(server, "one", str(drawn_dataset)) == 4
    assert [trial.number for trial in first[0]] == [1, 2, 3, 4] and [t.number for t in second[0]] == [1, 2, 3]
    assert not {t.parameters["learning_rate"] for t in first[0]} & {t.parameters["learning_rate"] for t in second[0]}


def test_search_goes_on_and_its_result_is_shown(
    address, server, drawn_dataset, cheap_trials, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command = [*TINY, f"--folder={drawn_dataset}", f"--mongo={address}", "--heartbeat=60"]

    def worker() -> None:
        wait_until(lambda: (server.searches.find_one() or {}).get("finished") is False and server.jobs.find_one())
        work(server, "default", str(drawn_dataset))

    with in_background(worker):
        assert main([*command, "--max_evals=3"]) == 0
    with in_background(lambda: (wait_until(lambda: server.jobs.count_documents({}) > 3), worker())):
        assert main([*command, "--max_evals=5"]) == 0
    output = capsys.readouterr().out
    assert "Going on after 3 trials" in output and "is finished, 2 trials of it trained here" in output
    assert [trial.number for trial in kept(server, "default")[1]] == [1, 2, 3, 4, 5]
    for shown in ([*command[:-1], "--max_evals=5"], [f"--mongo={address}", "--report"]):  # without --heartbeat
        assert main(shown) == 0
        output = capsys.readouterr().out
        assert "5 trials\nBest: trial " in output and "Going on" not in output and "heartbeat" not in output
        assert re.search(rf":{os.getpid()} +5 +0 +\d+\.\d \d+\.\d% +1-5\n", output), "who trained what"
    assert main([*command, "--max_evals=5", "--seed=3"]) == 2
    assert "has seed=0, not 3: use that, search under another --name" in capsys.readouterr().err


def test_failed_trials_are_told_to_the_driver(server, settings, drawn_dataset, cheap_trials, monkeypatch, capsys):
    monkeypatch.setattr(mongo, "run_trial", lambda job, command, hopeless: Outcome("failed", [], 1.0, "bad luck"))
    with driver(server, "x", settings, few(2)) as results:
        work(server, "x", str(drawn_dataset))
    assert [(trial.status, trial.reason) for trial in results[0]] == [("failed", "bad luck")] * 2
    assert "failed: bad luck" in capsys.readouterr().out


def test_worker_on_a_broken_machine_does_not_use_up_the_search(
    server, settings, drawn_dataset, cheap_trials, monkeypatch
):
    with driver(server, "x", settings, few(7)) as results:
        with monkeypatch.context() as broken:
            broken.setattr(
                mongo, "run_trial", lambda job, command, hopeless: Outcome("failed", [], 0.1, "no TensorFlow")
            )
            with pytest.raises(UserError, match=r"4 trials in a row failed here \(no TensorFlow\)"):
                work(server, "x", str(drawn_dataset))
        work(server, "x", str(drawn_dataset))
    assert [trial.status for trial in results[0]] == ["failed"] * 4 + ["ok"] * 3


def test_nothing_in_the_database_is_code(server, settings, drawn_dataset, cheap_trials, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    with driver(server, "x", settings, few(2)):
        assert server.database["fs.files"].count_documents({}) == 0, "no pickled objective"
        change = {"misc.cmd": ("cpickled fn", pickle.dumps(Evil())), "misc.workdir": str(tmp_path / "made")}
        server.jobs.update_many({}, {"$set": change})
        work(server, "x", str(drawn_dataset))
    assert not list(tmp_path.iterdir())


def test_running_trials_count_for_successive_halving_and_their_accuracies_are_recorded(server, settings):
    for worker, accuracies in (("w:1", [0.5]), ("w:2", [0.6, 0.7]), ("w:3", "damaged"), ("w:4", ["damaged"])):
        server.jobs.insert_one({"exp_key": "x", "state": RUNNING, "owner": worker, "accuracies": accuracies})
    job = server.jobs.find_one({"owner": "w:1"})
    assert histories(server, "x", {**settings, "stop_early": "halving"}, job, [0.5, 0.8]) == [[0.6, 0.7]]
    assert server.jobs.find_one({"owner": "w:1"})["accuracies"] == [0.5, 0.8]
    assert histories(server, "x", {**settings, "stop_early": "median"}, job, [0.5, 0.8]) == []


# --- workers and drivers that go -------------------------------------------------------------------------------------


def test_trial_whose_workers_all_go_silent_has_failed(server, settings, cheap_trials):
    with driver(server, "x", settings, few(1, heartbeat=0.3)) as results:
        for attempt in range(1, 4):
            wait_until(lambda number=attempt: reserve(server, "x", f"machine:{number}:abc"))
    (trial,) = results[0]
    assert (trial.status, trial.reason, trial.worker) == ("failed", "3 workers went silent over it", "machine:3")


def test_result_of_a_trial_given_to_another_worker_is_dropped(
    server, settings, drawn_dataset, cheap_trials, monkeypatch, capsys
):
    def slow(job, command, hopeless):
        if server.jobs.find_one({"attempts": 1}) is None:
            server.jobs.update_one({}, {"$set": {"state": NEW, "owner": None, "attempts": 1}})  # as the driver would
            return Outcome("ok", [0.99], 0.1)
        return cheap(job, command, hopeless)

    monkeypatch.setattr(mongo, "run_trial", slow)
    with driver(server, "x", settings, few(1)) as results:
        work(server, "x", str(drawn_dataset))
    assert "was given to another worker meanwhile" in capsys.readouterr().out
    assert results[0][0].accuracy != 0.99


def test_result_is_recorded_once_though_the_answer_was_lost(server):
    server.jobs.insert_one({"_id": 1, "owner": "a:1:x", "state": RUNNING, "version": 0})
    job = server.jobs.find_one()
    assert finish(server, job, made(1, 0.5)) and finish(server, job, made(1, 0.5))
    assert server.jobs.find_one()["version"] == 1
    assert not finish(server, {**job, "owner": "b:2:y"}, made(1, 0.7))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_worker_that_is_told_to_end_gives_its_trial_back(kind, address, server, settings, drawn_dataset, tmp_path):
    (tmp_path / "cheap.py").write_text(CHEAP.format(root=str(ROOT)))
    command = [
        sys.executable,
        str(tmp_path / "cheap.py"),
        "--worker",
        f"--folder={drawn_dataset}",
        f"--mongo={address}",
    ]
    with driver(server, "default", settings, few(1)) as results:
        worker = start(command, cwd=tmp_path, SECONDS="600")
        wait_until(lambda: worker.poll() is not None or (tmp_path / "begun").exists())
        assert server.jobs.find_one()["state"] == RUNNING
        worker.send_signal(kind)
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 128 + kind and "Traceback" not in errors
        assert "\nTrial 1 goes back to the queue\n" in errors
        assert server.jobs.find_one()["state"] == NEW and server.database.workers.count_documents({}) == 0
        second = start(command, cwd=tmp_path)
        assert second.wait(300) == 0
    assert [trial.status for trial in results[0]] == ["ok"]


def test_one_driver_at_a_time_and_a_dead_one_is_replaced(server, settings, drawn_dataset, cheap_trials):
    with driver(server, "x", settings, few(1, heartbeat=5.0)):
        with pytest.raises(UserError, match="search x in database .* has a driver"):
            lead(server, "x", settings, few(1, heartbeat=5.0))
        work(server, "x", str(drawn_dataset))
    server.searches.update_one({}, {"$set": {"driver": "machine:1:dead", "heartbeat": 0.5}})
    with driver(server, "x", settings, few(2, heartbeat=0.5)) as results:
        wait_until(lambda: server.jobs.find_one({"state": NEW}))
        work(server, "x", str(drawn_dataset))
    assert len(results[0]) == 2


def test_restarted_driver_keeps_the_heartbeat_by_which_its_workers_live(
    server, settings, drawn_dataset, cheap_trials, silences, capsys
):
    with driver(server, "x", settings, few(1, heartbeat=30.0)):
        work(server, "x", str(drawn_dataset))
    output = capsys.readouterr().out
    assert "1 trial of it trained here" in output and "--worker --mongo=… --name=x on each machine" in output
    with driver(server, "x", settings, few(2, heartbeat=0.1)):
        wait_until(lambda: server.jobs.count_documents({}) == 2)
        job = reserve(server, "x", "machine:1:abc")
        wait_until(lambda: silences.get(str(job["_id"]), 0) > 0.3)
        assert server.jobs.find_one({"_id": job["_id"]})["state"] == RUNNING, "silent for less than its heartbeat"
        assert server.searches.find_one()["heartbeat"] == 30.0
        give_back(server, job)
        work(server, "x", str(drawn_dataset))
    assert "The heartbeat stays 30 s, with which the search was begun" in capsys.readouterr().out


class Clock:
    """Stands in for the module `time`, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_outage_longer_than_the_heartbeat_costs_no_trial(
    settings, drawn_dataset, silences, tmp_path, monkeypatch, capfd
):
    under_way, back, clock = threading.Event(), threading.Event(), Clock()

    def long(job, command, hopeless):
        under_way.set()
        assert back.wait(300)
        return cheap(job, command, hopeless)

    class LateHeartbeat(Heartbeat):
        """Beats again only when the driver has looked."""

        def __init__(self, beat: Callable[[], bool], interval: float) -> None:
            super().__init__(lambda: beat() if not under_way.is_set() or back.wait(300) else True, interval)

    monkeypatch.setattr(mongo, "time", clock)
    monkeypatch.setattr(mongo, "Heartbeat", LateHeartbeat)
    monkeypatch.setattr(mongo, "run_trial", long)
    monkeypatch.setattr(mongo, "REACHED_WITHIN", 0.5)
    monkeypatch.setattr(mongo, "POLL", 0.1)
    with contextlib.ExitStack() as stack:
        with serve(tmp_path, False) as port:
            server = connect(f"mongodb://127.0.0.1:{port}/faces", {})
            results = stack.enter_context(driver(server, "x", settings, few(1)))
            trained = stack.enter_context(in_background(work, server, "x", str(drawn_dataset)))
            assert under_way.wait(300)
            job = server.jobs.find_one()["_id"]
            wait_until(lambda: str(job) in silences)  # the driver sees it under way
        wait_until(lambda: not silences)  # the driver has noticed
        clock.ahead = 500.0
        stack.enter_context(serve(tmp_path, False, port))
        wait_until(lambda: str(job) in silences)
        back.set()
        wait_until(lambda: results and trained)
        assert "attempts" not in server.jobs.find_one(), "nobody was taken for dead"
    assert [trial.status for trial in results[0]] == ["ok"]
    output, errors = capfd.readouterr()
    assert "goes back to the queue" not in output
    assert errors.count("does not answer: trying again for 600 s") == errors.count("answers again") > 0


def test_server_that_stays_lost_is_given_up(server, monkeypatch, capsys):
    monkeypatch.setattr(mongo, "PATIENCE", 0.2)
    monkeypatch.setattr(mongo, "POLL", 0.05)

    def lost() -> None:
        raise pymongo.errors.AutoReconnect

    with pytest.raises(UserError, match="database test_.* has not answered for 0 s: see whether it runs"):
        mongo.patiently(server, lost)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_only_silence_that_was_listened_to_counts(monkeypatch):
    now = 0.0
    monkeypatch.setattr(mongo, "time", SimpleNamespace(monotonic=lambda: now))
    pulse = HeartbeatMonitor()
    assert pulse.silent("a", 1) == 0
    now = 1.0
    assert pulse.silent("a", 1) == 1.0
    now = 1000.0
    assert pulse.silent("a", 1) == 3.0, "of a long time without a look only a little"
    assert pulse.silent("a", 2) == 0
    now = 1001.0
    pulse.forget()
    assert pulse.silent("a", 2) == 0


# --- what cannot work ------------------------------------------------------------------------------------------------


def error_of(capsys, *flags: str) -> str:
    """The one line of a command that cannot work."""
    try:
        assert main(list(flags)) == 2
    except SystemExit as error:  # argparse's
        assert error.code == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors and PASSWORD not in errors and "s3cret" not in errors, errors
    return errors.splitlines()[-1]


def test_wrong_password_or_none(address, monkeypatch, capsys):
    monkeypatch.setenv("MONGO_PASSWORD", "s3cret")
    assert f"refuses user {USER} or the password" in error_of(capsys, "--report", f"--mongo={address}")
    given = address.replace("://", f"://{USER}:wr%40ng@")
    assert f"refuses user {USER} or the password" in error_of(capsys, "--report", f"--mongo={given}")
    monkeypatch.delenv("MONGO_PASSWORD")
    assert "needs user and password, or neither" in error_of(capsys, "--report", f"--mongo={address}")
    monkeypatch.delenv("MONGO_USER")
    error = error_of(capsys, "--report", f"--mongo={address}")
    assert "without MONGO_USER and MONGO_PASSWORD nobody may use database test_" in error
    given = address.replace("://", f"://{USER}:p%40ss%2Fw%3Ard@")
    assert "has no search default" in error_of(capsys, "--report", f"--mongo={given}"), "the password is right"


def test_server_that_does_not_answer(monkeypatch, capsys):
    monkeypatch.setattr(mongo, "REACHED_WITHIN", 0.5)
    port = free_port()
    error = error_of(capsys, "--worker", f"--mongo=mongodb://u:s3cret@127.0.0.1:{port}/faces")
    assert f"no MongoDB answers for database faces on 127.0.0.1:{port}" in error


def test_password_that_was_given_as_a_value_apart_is_not_shown(capsys):
    assert error_of(capsys, "--mongo_password", "s3cret", "--report").startswith(
        "error: unrecognized arguments: --mongo_password ("
    )


@pytest.mark.parametrize(
    ("mongo", "fragment"),
    [
        ("--mongo=mongodb://host:27017", "names no database on host:27017"),
        ("--mongo=mongodb://u:s3cret@host:27017/", "names no database on host:27017"),
        ("--mongo=mongodb://host/admin", "names admin, MongoDB's own database"),
        ("--mongo=mongodb://u:s3c/s3cret@host/faces", "no valid address"),
        ("--mongo=mongodb://u:x@s3cret@host/faces", "no valid address"),
        ("--mongo=mongodb://host:port/faces", "no valid address"),
        ("--mongo=mongodb://u:s3cret@host/faces?sl=1", "behind the '?', an option or its value is none"),
        ("--mongo=mongodb://u:pa?s3cret@host/faces", "letters such as @ : / ?"),
        ("--mongo=mongodb://host/faces.x", "names a database with a dot"),
        ("--mongo=mongodb://u:12345/s3cret@host", "no valid address"),
        ("--mongo=mongodb://u:s3c@s3cret/x@127.0.0.1:27117/faces", "no valid address"),
        ("--mango=mongodb://u:s3cret p\n@host/faces", "unrecognized arguments: --mango"),
        ("--mongo=localhost:27017/faces", "no valid address"),
        ("--mango=mongodb://u:s3cret@host/faces", "unrecognized arguments: --mango"),
        ("--mango=mongodb:/u:s3cret@host/faces", "unrecognized arguments: --mango"),
        ("--mongo_password=s3cret", "unrecognized arguments: --mongo_password"),
        ("mongodb:/u:s3cret@host/faces", "unrecognized arguments: a value without its flag"),
        ("--m=mongodb:/u:s3cret@host/faces", "unrecognized arguments: --m ("),
        ("--worker=mongodb:/u:s3cret@host/faces", "argument --worker: '…@host/faces' is neither yes nor no"),
        ("--max_evals=u':s3cret@host", "argument --max_evals: invalid int value"),
        ("--name=mongodb://u:s3cret@host/faces", "--name looks like an address: it must be of letters"),
        ("--name=s3cret@host", "--name looks like an address: it must be of letters"),
    ],
)
def test_addresses_that_are_none(mongo, fragment, capsys):
    assert fragment in error_of(capsys, mongo, "--report")


def test_search_that_the_database_does_not_have(address, server, settings, drawn_dataset, cheap_trials, capsys):
    error = error_of(capsys, "--worker", f"--mongo={address}", f"--folder={drawn_dataset}")
    assert "has no search default: start the driver first" in error and "it has none at all" in error
    with driver(server, "mine", settings, few(1)):
        error = error_of(capsys, "--worker", f"--mongo={address}", "--name=your", f"--folder={drawn_dataset}")
        assert "has no search your" in error and "it has mine" in error
        work(server, "mine", str(drawn_dataset))


def test_worker_with_another_dataset_is_refused(server, settings, drawn_dataset, cheap_trials, tmp_path):
    manifest = json.loads((drawn_dataset / "manifest.json").read_text())
    manifest["splits"]["Training"]["sha256"] = "other"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest))
    with driver(server, "x", settings, few(1)):
        with pytest.raises(UserError, match="other is another dataset than that of search x in database test_"):
            work(server, "x", str(tmp_path / "other"))
        with pytest.raises(UserError, match="no converted dataset in nowhere"):
            work(server, "x", "nowhere")
        work(server, "x", str(drawn_dataset))


def test_search_that_is_damaged_or_of_another_version_is_refused(
    address, server, settings, drawn_dataset, cheap_trials, capsys
):
    without = {name: value for name, value in settings.items() if name != "samples"}
    newer = {**settings, "augmentation": {**settings["augmentation"], "haze": 1.0}}
    whole = {"settings": json.dumps(settings), "format": FORMAT, "heartbeat": 2.0}
    with driver(server, "default", settings, few(1)):
        for change in (
            {"settings": "{"},
            {"settings": json.dumps(without)},
            {"settings": json.dumps(newer)},
            {"format": 2},
            {"heartbeat": "2"},
        ):
            server.searches.update_one({}, {"$set": {**whole, **change}})
            for flags in (["--worker", f"--folder={drawn_dataset}"], ["--report"]):
                error = error_of(capsys, f"--mongo={address}", *flags)
                assert "search default in database test_" in error and "is damaged or of another version" in error
        server.searches.update_one({}, {"$set": whole})
        work(server, "default", str(drawn_dataset))
    job = server.jobs.find_one()
    with pytest.raises(UserError, match="is damaged"):
        mongo.evaluate(server, "default", settings, str(drawn_dataset), {**job, "misc": {"vals": {}}}, 9.0, ())
    server.jobs.update_one({}, {"$set": {"result.accuracies": []}})
    assert "is damaged or of another version" in error_of(capsys, f"--mongo={address}", "--report")


HOSTILE: tuple[Any, ...] = ("x\x1b[2J\n", 1e308, {"a": {"b": 1}})
FIELDS_OF_A_JOB = (
    "result", "result.accuracies", "result.accuracies.0", "result.seconds", "result.outcome", "result.parameters",
    "result.parameters.learning_rate", "misc", "misc.number", "misc.vals", "misc.vals.learning_rate",
    "misc.vals.learning_rate.0", "result.parameters.unknown", "owner", "tid",
)  # fmt: skip
FIELDS_OF_A_SEARCH = ("heartbeat", "settings", "driver", "commit", "format")


def test_hostile_database_gets_one_line(
    address, server, settings, drawn_dataset, cheap_trials, tmp_path, monkeypatch, capsys
):
    """Whatever somebody writes into a search ends in one line on stderr, or is shown without control characters."""
    with driver(server, "default", settings, few(1)):
        work(server, "default", str(drawn_dataset))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw", lambda *_: [])  # slow
    job, search = server.jobs.find_one(), server.searches.find_one()
    refused, searches = 0, server.searches
    for collection, whole, fields in ((server.jobs, job, FIELDS_OF_A_JOB), (searches, search, FIELDS_OF_A_SEARCH)):
        for field, value in itertools.product(fields, HOSTILE):
            collection.replace_one({"_id": whole["_id"]}, whole)
            collection.update_one({}, {"$set": {field: value}})
            try:
                show(kept(server, "default")[1])
            except UserError as error:
                assert "search default in database test_" in str(error), (field, value)
                refused += 1
            assert "\x1b" not in capsys.readouterr().out, (field, value)
        collection.replace_one({"_id": whole["_id"]}, whole)
    assert refused > 40
    server.jobs.update_one({}, {"$set": {"result.reason": "\x1b]0;title\x07", "result.outcome": "failed"}})
    assert main([f"--mongo={address}", "--report"]) == 1
    assert "\x1b" not in capsys.readouterr().out
    for change in ({"misc.vals.learning_rate": ["1"]}, {"misc.number": "1"}):
        for state, act in (
            (DONE, lambda: mongo.lead(server, "default", settings, few(2))),
            (NEW, lambda: work(server, "default", str(drawn_dataset))),
        ):
            owner = job["owner"] if state == DONE else None
            server.jobs.replace_one({"_id": job["_id"]}, {**job, "state": state, "owner": owner})
            server.jobs.update_one({}, {"$set": change})
            server.searches.update_one({}, {"$set": {"finished": False}})
            with pytest.raises(UserError, match="search default in database test_.* is damaged"):
                act()
    assert "Traceback" not in capsys.readouterr().err


def test_folder_of_a_search_on_this_machine_is_refused(address, drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_trial", cheap)
    assert main([*TINY, f"--folder={drawn_dataset}", "--max_evals=1"]) == 0
    before = {path.name: path.read_bytes() for path in Path("search/default").iterdir()}
    capsys.readouterr()
    for flags in ([*TINY, f"--folder={drawn_dataset}"], ["--report"]):
        error = error_of(capsys, f"--mongo={address}", *flags)
        assert "search/default is of a search on this machine, not of search default in database test_" in error
    assert {path.name: path.read_bytes() for path in Path("search/default").iterdir()} == before


def test_user_without_rights_is_named(server):
    with pytest.raises(UserError, match=f"user {USER} has no right to database test_"), server.mended():
        raise pymongo.errors.OperationFailure("", 13)
