"""A hyperparameter search across machines with hyperopt's MongoDB engine: one driver, any number of workers.

server = connect("mongodb://host:27017/faces", os.environ)
trials = lead(server, "default", settings, optimizer)  # the driver
work(server, "default", "fer2013_features", ARCHITECTURES, TRIAL_COMMAND)  # a worker

The database has hyperopt's collections: `jobs` contains the trials, `drivers` one document per search, and `job_ids` a
counter. This module adds `workers`. hyperopt's own driver stores the objective as a pickle in the database, and its
worker runs any pickle that it finds there. Here the database contains no code: the driver queues the suggestions of
TPE. A worker reserves a job and trains with its settings, which are JSON, and its values, which are numbers.

A process counts as alive while its counter in the database increases. Time stamps are not used, because the clocks of
different machines differ.
"""

import contextlib
import dataclasses
import functools
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymongo
from pymongo.errors import ConfigurationError, ConnectionFailure, InvalidName, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri
from tqdm import tqdm

from ferkit.errors import UserError, one_line
from ferkit.learning.architecture import Architecture
from ferkit.provenance import commit
from ferkit.search import report
from ferkit.search.hyperopt_compat import OldDatabase
from ferkit.search.space import history, propose, searched_hyperparams, values_of
from ferkit.search.state import FORMAT, check_kept, current, difference, understood, understood_trial
from ferkit.search.trial import check_same, run_of, run_trial
from ferkit.search.trials import FAILURES, Trial, best, is_hopeless, is_number, machine_failure
from ferkit.settings import DAY, Optimizer

USER, PASSWORD = "MONGO_USER", "MONGO_PASSWORD"
REACHED_WITHIN = 5.0  # seconds to wait for a connection
ANSWERED_WITHIN = 20.0  # seconds to wait for an answer; less than the default heartbeat, so that a beat is not missed
PATIENCE = 600.0  # seconds for which a lost server is tried again
EXAMPLE = "mongodb://host/faces"
POLL = 0.5  # seconds between two checks of the database
ATTEMPTS = 3  # a trial has failed after this many workers have gone silent
LONGEST_LOOK = 4  # in polls: a longer time between two checks counts as silence only up to this
NEW, RUNNING, DONE = 0, 1, 2  # hyperopt's states of a job

Result = TypeVar("Result")


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A connected database, its name without user and password, and the name of the user."""

    database: OldDatabase
    place: str
    user: str | None

    @property
    def jobs(self) -> pymongo.collection.Collection:
        return self.database.jobs

    @property
    def searches(self) -> pymongo.collection.Collection:
        return self.database.drivers

    def mended(self) -> contextlib.AbstractContextManager[None]:
        """Turns PyMongo's errors into a one-line UserError without the address."""
        return _mended(self.place, self.user)


def connect(address: str, environment: Mapping[str, str]) -> Server:
    """Opens the database at `address`. User and password may be in the environment instead of the address.

    The user is looked up in the database `admin`, unless the address has an authSource. Raises UserError when the
    address is invalid or no server answers; its text never contains the password.
    """
    parts = _parts(address)
    hosts = ", ".join(f"{host}:{port}" if port else host for host, port in parts["nodelist"])
    name = parts["database"]
    if not name:
        raise UserError(f"--mongo names no database on {hosts}: write it behind the host, as in {EXAMPLE}")
    if name in ("admin", "local", "config"):
        raise UserError(f"--mongo names {name}, MongoDB's own database: take another, as in {EXAMPLE}")
    if parts["collection"]:
        raise UserError(f"--mongo names a database with a dot, on {hosts}: take a name without, as in {EXAMPLE}")
    user = parts["username"] or environment.get(USER)
    password = parts["password"] or environment.get(PASSWORD)
    if bool(user) != bool(password):
        raise UserError(f"{hosts} needs user and password, or neither: set both {USER} and {PASSWORD}")
    login: dict[str, Any] = {"username": user, "password": password, "authSource": "admin"} if user else {}
    if "authsource" in {option.lower() for option in parts["options"]}:
        login.pop("authSource", None)
    place = f"database {name} on {hosts}"
    with _mended(place, user):
        milliseconds = int(1000 * REACHED_WITHIN)
        client = pymongo.MongoClient(
            address,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=int(1000 * ANSWERED_WITHIN),
            w=1,
            **login,
        )
        server = Server(OldDatabase(client, name), place, user)
        server.searches.find_one()  # also checks the right to read it
    return server


def _parts(address: str) -> dict[str, Any]:
    """The address as parsed by PyMongo. Raises UserError without any text of the address, which may have a password."""
    try:
        if "@" in address.partition("://")[2].partition("?")[0].partition("/")[2]:
            raise ValueError("a password with a '/', of which PyMongo would take the beginning for host and port")
        return parse_uri(address)
    except Exception as error:
        if address.lower().startswith("mongodb+srv://") and _is_valid("mongodb" + address[len("mongodb+srv") :]):
            raise UserError(
                "the name behind mongodb+srv:// in --mongo is not found by the DNS: check the name and the network, or "
                "write mongodb://host:27017/database"
            ) from error
        letters = f"@ : / ? must be written as %40 %3A %2F %3F, or given in {USER} and {PASSWORD}"
        complaint = f"it must look like mongodb://host:27017/database; in user and password, letters such as {letters}"
        if "?" in address and _is_valid(address.partition("?")[0]):
            complaint = "behind the '?', an option or its value is none that MongoDB has: check it, or leave it out"
        raise UserError(f"--mongo has no valid address: {complaint}") from error


def _is_valid(address: str) -> bool:
    try:
        return "database" in parse_uri(address)
    except Exception:  # PyMongo raises many types
        return False


@contextlib.contextmanager
def _mended(place: str, user: str | None) -> Iterator[None]:
    try:
        yield
    except ConnectionFailure as error:
        raise UserError(
            f"no MongoDB answers for {place} within {REACHED_WITHIN:.0f} s: is it running, and its port open?"
        ) from error
    except OperationFailure as error:
        if error.code == 18:
            raise UserError(
                f"{place} refuses user {user} or the password: check {USER} and {PASSWORD}, or ?authSource="
            ) from error
        if error.code == 13:
            who = f"user {user} has no right to" if user else f"without {USER} and {PASSWORD} nobody may use"
            raise UserError(f"{who} {place}") from error
        raise UserError(f"{place} refuses a command with code {error.code}: see the server's log") from error
    except (ConfigurationError, InvalidName) as error:
        raise UserError(f"--mongo cannot be used for {place} ({type(error).__name__}): check the address") from error
    except PyMongoError as error:
        raise UserError(f"{place} failed with {type(error).__name__}: see the server's log") from error


def patiently(server: Server, action: Callable[[], Result], when_lost: Callable[[], None] = lambda: None) -> Result:
    """Runs `action` and returns its result; repeats it while the server is lost. Each failure calls `when_lost`.

    Raises UserError when the server stays lost for longer than PATIENCE.
    """
    lost = None  # since this time
    while True:
        try:
            result = action()
        except ConnectionFailure as error:
            when_lost()
            if lost is None:
                lost = time.monotonic()
                tqdm.write(f"{server.place} does not answer: trying again for {PATIENCE:.0f} s", file=sys.stderr)
            elif time.monotonic() - lost > PATIENCE:
                raise UserError(f"{server.place} has not answered for {PATIENCE:.0f} s: see whether it runs") from error
            time.sleep(POLL)
        else:
            if lost is not None:
                tqdm.write(f"{server.place} answers again", file=sys.stderr)
            return result


class Heartbeat(threading.Thread):
    """Runs `beat` every `interval` seconds until closed. `lost` becomes true when `beat` returns false."""

    def __init__(self, beat: Callable[[], bool], interval: float) -> None:
        super().__init__(daemon=True)
        self.beat, self.interval, self.lost, self._end = beat, interval, False, threading.Event()

    def run(self) -> None:
        while not self._end.wait(self.interval):
            with contextlib.suppress(PyMongoError):  # the next beat may succeed
                self.lost = self.lost or not self.beat()

    def __enter__(self) -> "Heartbeat":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join(timeout=REACHED_WITHIN)


@dataclass
class HeartbeatMonitor:
    """Checks with counters who is alive: `silent(who, count)` gives the seconds for which `count` has not changed.

    Only time during which this process could reach the server counts, because otherwise no process could have changed
    its counter.
    """

    seen: dict[Any, tuple[Any, float, float]] = field(default_factory=dict)  # count, seconds of silence, last check

    def forget(self) -> None:
        self.seen.clear()

    def silent(self, who: Any, count: Any) -> float:
        now = time.monotonic()
        before, silence, looked = self.seen.get(who, (None, 0.0, now))
        silence = silence + min(now - looked, LONGEST_LOOK * POLL) if before == count else 0.0
        self.seen[who] = (count, silence, now)
        return silence


def name_of_process() -> str:
    """A name that is unique even for processes with the same number on machines with the same name."""
    return f"{platform.node() or 'machine'}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


def short_name(name: str) -> str:
    """The machine and the process number in a name."""
    return ":".join(name.split(":")[:2])


# --- contents of the database ----------------------------------------------------------------------------------------


def find_search(server: Server, name: str) -> dict[str, Any]:
    """The document of the search. Raises UserError when there is none; the message lists the existing searches."""
    document = server.searches.find_one({"exp_key": name})
    if document is None:
        others = ", ".join(sorted(map(str, server.searches.distinct("exp_key"))))
        raise UserError(
            f"{server.place} has no search {name}: start the driver first, or check --name and the database "
            f"({f'it has {others}' if others else 'it has none at all'})"
        )
    texts = document.get("settings"), document.get("driver") or "", document.get("commit") or ""
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"search {name} in {server.place} is not of this toolkit: take another --name")
    return document


def settings_in(server: Server, document: dict[str, Any]) -> dict[str, Any]:
    """The settings in a search's document. Raises UserError when it is damaged or from another version."""
    with understood(f"search {document['exp_key']} in {server.place}"):
        settings = current(json.loads(document["settings"]))
        check_kept(document["format"], settings)
        heartbeat = document["heartbeat"]
        if type(heartbeat) not in (int, float) or not 0 < heartbeat <= DAY:
            raise ValueError(f"heartbeat {heartbeat!r}")
        _ = document["driver"], document["beat"], document["finished"], document["commit"]
    return settings


def kept(server: Server, name: str) -> tuple[dict[str, Any], list[Trial]]:
    """Settings and finished trials of a search in the database. Raises UserError when there is none."""
    with server.mended():
        settings = settings_in(server, find_search(server, name))
        return settings, finished_trials(server, name, settings)


def finished_trials(server: Server, name: str, settings: dict[str, Any]) -> list[Trial]:
    jobs = list(server.jobs.find({"exp_key": name, "state": DONE}))
    with understood(f"search {name} in {server.place}"):
        return sorted((trial_of(job, settings) for job in jobs), key=lambda trial: trial.number)


def histories(
    server: Server, name: str, settings: dict[str, Any], job: dict[str, Any], accuracies: list[float]
) -> list[list[float]]:
    """The accuracies of the other trials of a search; records those of the trial of `job`, which is running.

    With the rule halving, trials that are running count too, as they came as far.
    """
    server.jobs.update_one({"_id": job["_id"], "owner": job["owner"]}, {"$set": {"accuracies": accuracies}})
    finished = [trial.accuracies for trial in finished_trials(server, name, settings)]
    if settings["stop_early"] != "halving":
        return finished
    running = server.jobs.find({"exp_key": name, "state": RUNNING, "_id": {"$ne": job["_id"]}})
    known = [other["accuracies"] for other in running if isinstance(other.get("accuracies"), list)]
    return finished + [values for values in known if all(map(is_number, values))]


def trial_of(job: dict[str, Any], settings: dict[str, Any]) -> Trial:
    """The trial of a finished job. Raises an exception of any type if the job's contents are not valid."""
    result = job["result"]
    facts = {name: result[name] for name in ("parameters", "accuracies", "seconds", "reason")}
    ordered = {"number": job["misc"]["number"], "values": values_of(job), "worker": short_name(job["owner"])}
    return understood_trial(settings, {**facts, **ordered, "status": result["outcome"]})


def order_of(job: dict[str, Any], settings: dict[str, Any]) -> tuple[int, dict[str, float], dict[str, Any]]:
    """The number, hyperopt's values, and the hyperparameters of a job. Raises an exception of any type."""
    number, values = job["misc"]["number"], values_of(job)
    if type(number) is not int:
        raise TypeError(f"number {number!r}")
    return number, values, searched_hyperparams(settings, values)


def finish(server: Server, job: dict[str, Any], trial: Trial) -> bool:
    """Records the trial. Returns False if the job has been given to another worker in the meantime."""
    result = {
        **trial.result,
        "outcome": trial.status,
        "accuracies": trial.accuracies,
        "seconds": trial.seconds,
        "reason": trial.reason,
        "parameters": trial.parameters,
    }
    mine = {"_id": job["_id"], "owner": job["owner"]}
    done = {"$set": {"state": DONE, "result": result}, "$currentDate": {"refresh_time": True}, "$inc": {"version": 1}}
    if server.jobs.update_one({**mine, "state": RUNNING}, done).matched_count:
        return True
    return server.jobs.find_one({**mine, "state": DONE}) is not None  # recorded before, but the answer was lost


def give_back(server: Server, job: dict[str, Any], failed_attempts: int = 0) -> bool:
    """Puts a job back into the queue. Returns False if it has been finished or given back in the meantime."""
    mine = {"_id": job["_id"], "owner": job["owner"], "state": RUNNING}
    change = {"$set": {"state": NEW, "owner": None}, "$inc": {"version": 1, "attempts": failed_attempts}}
    return server.jobs.update_one(mine, change).matched_count > 0


# --- the driver ------------------------------------------------------------------------------------------------------


def lead(server: Server, name: str, settings: dict[str, Any], optimizer: Optimizer, asked: bool = True) -> list[Trial]:
    """Queues trials for the workers until `max_evals` are finished; returns them.

    asked: whether the user chose the optimizer's heartbeat; a message then appears if the search keeps another one.
    Raises UserError when the search with this name has other settings, or another driver that is alive.
    """
    with server.mended():
        heartbeat = begin(server, name, settings, optimizer.heartbeat)
        if asked and heartbeat != optimizer.heartbeat:
            print(f"The heartbeat stays {heartbeat:g} s, with which the search was begun")
        with leading(server, name, heartbeat) as heart:
            driver = Driver(server, name, settings, optimizer.max_evals, heartbeat, heart)
            try:
                return driver.run()
            except KeyboardInterrupt:
                print(f"\nStopped: the trials are kept in {server.place}, the same command goes on", file=sys.stderr)
                raise


def begin(server: Server, name: str, settings: dict[str, Any], heartbeat: float) -> float:
    """Makes the search if there is none; returns its heartbeat, which never changes because its workers use it."""
    facts = {"format": FORMAT, "settings": json.dumps(settings), "heartbeat": heartbeat, "commit": commit()}
    new = {**facts, "driver": None, "beat": 0, "finished": False}
    server.searches.create_index("exp_key", unique=True)
    server.searches.update_one({"exp_key": name}, {"$setOnInsert": new}, upsert=True)
    document = find_search(server, name)
    differs = difference(settings_in(server, document), settings)
    if differs:
        raise UserError(
            f"search {name} in {server.place} has {differs}: use that, search under another --name, or --report=yes"
        )
    return document["heartbeat"]


@contextlib.contextmanager
def leading(server: Server, name: str, heartbeat: float) -> Iterator[Heartbeat]:
    """Makes this process the only driver of the search."""
    me, searches = name_of_process(), server.searches
    taken = {"$set": {"driver": me, "finished": False}}
    pulse, waited = HeartbeatMonitor(), False
    while not searches.update_one({"exp_key": name, "driver": None}, taken).matched_count:
        document = find_search(server, name)
        holder = {"driver": document.get("driver"), "beat": document.get("beat")}
        silent = pulse.silent(name, tuple(holder.values()))
        if waited and silent == 0 and holder["driver"] is not None:
            raise UserError(
                f"search {name} in {server.place} has a driver, {short_name(holder['driver'])}: "
                "end it, or search under another --name"
            )
        if silent >= heartbeat:
            searches.update_one({"exp_key": name, **holder}, {"$set": {"driver": None}})
        elif not waited:
            print(f"Waiting up to {heartbeat:.0f} s to see whether the search's last driver lives")
            waited = True
        time.sleep(POLL)

    def beat() -> bool:
        return searches.update_one({"exp_key": name, "driver": me}, {"$inc": {"beat": 1}}).matched_count > 0

    try:
        with Heartbeat(beat, heartbeat / 5) as heart:
            yield heart
    finally:
        with contextlib.suppress(ConnectionFailure):
            searches.update_one({"exp_key": name, "driver": me}, {"$set": {"driver": None}})


class Driver:
    """Keeps the queue filled, puts jobs of dead workers back into the queue, and reports finished trials."""

    def __init__(
        self, server: Server, name: str, settings: dict[str, Any], max_evals: int, heartbeat: float, heart: Heartbeat
    ) -> None:
        import gridfs
        from hyperopt.mongoexp import MongoJobs, MongoTrials

        self.server, self.name, self.settings = server, name, settings
        self.max_evals, self.heartbeat, self.heart = max_evals, heartbeat, heart
        database = server.database
        files = gridfs.GridFS(database)  # required by hyperopt; it stays empty
        jobs = MongoJobs(database, database.jobs, files, database.client, tunnel=None, config_name="spec")
        database.job_ids.update_one({"a": 0}, {"$setOnInsert": {"last_id": 0}}, upsert=True)  # hyperopt needs one
        self.queue = MongoTrials(jobs, exp_key=name, refresh=False)
        self.pulse = HeartbeatMonitor()
        self.told: set[int] = set()

    def run(self) -> list[Trial]:
        trials = finished_trials(self.server, self.name, self.settings)
        self.told = {trial.number for trial in trials}
        total = self.max_evals
        if not trials:
            print(f"Search {self.name} in {self.server.place}", flush=True)
        elif len(trials) < total:
            counted = report.counted(len(trials))
            print(f"Going on after {counted} of search {self.name} in {self.server.place}", flush=True)
        with tqdm(total=total, initial=min(len(trials), total), desc="Trials", unit="trial", disable=None) as bar:
            alone = False
            while len(trials) < total:
                workers = self.patiently(self.live_workers)
                if not workers and not alone:
                    flags = f"--worker --mongo=… --name={self.name}"
                    bar.write(f"No worker at work: python optimize_hyperparams.py {flags} on each machine")
                    sys.stdout.flush()
                alone = not workers
                self.patiently(self.bring_back)
                self.patiently(functools.partial(self.fill_queue, workers))
                time.sleep(POLL)
                if self.heart.lost:
                    raise UserError(f"search {self.name} in {self.server.place} was taken over by another driver")
                if self.patiently(self.count_finished) > len(trials):
                    trials = self.patiently(lambda: finished_trials(self.server, self.name, self.settings))
                    self.tell(trials, bar)
                bar.set_postfix(workers=workers)
        finished = {"$set": {"finished": True}}
        self.patiently(lambda: self.server.searches.update_one({"exp_key": self.name}, finished))
        return trials

    def patiently(self, action: Callable[[], Result]) -> Result:
        """Like `patiently` above; time without the server does not count as silence of workers."""
        return patiently(self.server, action, when_lost=self.pulse.forget)

    def count_finished(self) -> int:
        return self.server.jobs.count_documents({"exp_key": self.name, "state": DONE})

    def live_workers(self) -> int:
        """The number of workers whose counters still increase; deletes the others."""
        alive = 0
        for worker in list(self.server.database.workers.find({"exp_key": self.name})):
            if self.pulse.silent(str(worker["_id"]), worker.get("beat")) < self.heartbeat:
                alive += 1
            else:
                self.server.database.workers.delete_one({"_id": worker["_id"], "beat": worker.get("beat")})
        return alive

    def bring_back(self) -> None:
        """Puts the jobs of silent workers back into the queue. A job has failed after ATTEMPTS silent workers."""
        for job in list(self.server.jobs.find({"exp_key": self.name, "state": RUNNING})):
            if self.pulse.silent(str(job["_id"]), (job.get("owner"), job.get("beat"))) < self.heartbeat:
                continue
            with understood(f"search {self.name} in {self.server.place}"):
                number, values, chosen = order_of(job, self.settings)
                worker, attempts = one_line(short_name(job["owner"])), int(job.get("attempts", 0))
            if attempts + 1 < ATTEMPTS:
                if give_back(self.server, job, failed_attempts=1):
                    tqdm.write(f"Trial {number} goes back to the queue: {worker} has gone silent")
            else:
                reason = f"{ATTEMPTS} workers went silent over it"
                lost = Trial(number, values, chosen, "failed", [], 0.0, reason)
                finish(self.server, job, lost)

    def fill_queue(self, workers: int) -> None:
        """Fills the queue to one job for every live worker and one more.

        A longer queue would be worse: jobs that are suggested earlier are based on fewer results. This corresponds to
        hyperopt's max_queue_len, adapted to the number of workers.
        """
        jobs = self.server.jobs
        total = jobs.count_documents({"exp_key": self.name})
        unfinished = jobs.count_documents({"exp_key": self.name, "state": {"$ne": DONE}})
        while total < self.max_evals and unfinished < workers + 1:
            (tid,) = self.queue.new_trial_ids(1)
            document = propose(self.settings, history(self.settings, self.tried(), self.name), total + 1, tid)
            document["misc"]["number"] = total + 1
            self.queue.insert_trial_docs([document])
            total, unfinished = total + 1, unfinished + 1

    def tried(self) -> list[tuple[int, dict[str, float], dict[str, Any]]]:
        """What hyperopt has to know of each job: not the job itself, which the database may have changed."""
        jobs = list(self.server.jobs.find({"exp_key": self.name}).sort("tid"))
        with understood(f"search {self.name} in {self.server.place}"):
            return [
                (
                    int(job["tid"]),
                    order_of(job, self.settings)[1],
                    trial_of(job, self.settings).result if job["state"] == DONE else {},
                )
                for job in jobs
            ]

    def tell(self, trials: list[Trial], bar: tqdm) -> None:
        for trial in trials:
            if trial.number not in self.told:
                self.told.add(trial.number)
                line = report.line(trial, self.max_evals, best(trials))
                bar.write(f"{line}, {trial.worker}" if trial.worker else line)
                sys.stdout.flush()
                bar.update()


# --- a worker --------------------------------------------------------------------------------------------------------


def work(
    server: Server, name: str, folder: str, architectures: Mapping[str, Architecture], trial_command: Sequence[str]
) -> int:
    """Trains trials of the search until it is finished; returns their number.

    folder: folder of the dataset. trial_command: see trial.run_trial. Raises UserError when the dataset is not the one
    of the search. Also raises it when several trials in a row fail for the same reason on this machine, for example
    without TensorFlow, so that the other trials are not wasted.
    """
    with server.mended():
        search = find_search(server, name)
        settings = settings_in(server, search)
        check_worker(settings, folder, architectures, f"search {name} in {server.place}")
        if search["commit"] != commit():
            begun = one_line(search["commit"] or "unknown")
            print(f"warning: the search was started at commit {begun}, this is {commit()}", file=sys.stderr)
        me, trained = name_of_process(), []
        with present(server, name, me, search["heartbeat"]):
            print(f"Working for search {name} in {server.place}", flush=True)
            while True:
                job = patiently(server, lambda: reserve(server, name, me))
                if job is not None:
                    trial = evaluate(server, name, settings, folder, job, search["heartbeat"], trial_command)
                    if trial is not None:
                        trained.append(trial)
                    reason = machine_failure(trained)
                    if reason is not None:
                        raise UserError(f"{FAILURES} trials in a row failed here ({reason}): mend it, and start again")
                elif patiently(server, lambda: find_search(server, name)).get("finished"):
                    print(f"Search {name} is finished, {report.counted(len(trained))} of it trained here")
                    return len(trained)
                else:
                    time.sleep(POLL)


def check_worker(settings: dict[str, Any], folder: str, architectures: Mapping[str, Architecture], search: str) -> None:
    """Raises UserError if the trials of the search cannot be trained with this dataset."""
    job = {"settings": settings, "parameters": {}, "folder": folder, "place": ""}
    check_same(run_of(job, architectures), settings, search)


@contextlib.contextmanager
def present(server: Server, name: str, me: str, heartbeat: float) -> Iterator[None]:
    """Registers this process as a worker of the search while the block runs."""
    workers = server.database.workers

    def beat() -> bool:
        workers.update_one({"_id": me}, {"$inc": {"beat": 1}, "$set": {"exp_key": name}}, upsert=True)
        return True

    patiently(server, beat)
    try:
        with Heartbeat(beat, heartbeat / 5):
            yield
    finally:
        with contextlib.suppress(ConnectionFailure):
            workers.delete_one({"_id": me})


def reserve(server: Server, name: str, me: str) -> dict[str, Any] | None:
    """Reserves a job for this worker with hyperopt's own method; None if there is no job."""
    from hyperopt.mongoexp import MongoJobs

    database = server.database
    jobs = MongoJobs(database, database.jobs, gfs=None, conn=database.client, tunnel=None, config_name="spec")
    return jobs.reserve(f"{me}:{uuid.uuid4().hex[:6]}", exp_key=name)  # unique for each reservation


def evaluate(
    server: Server,
    name: str,
    settings: dict[str, Any],
    folder: str,
    job: dict[str, Any],
    heartbeat: float,
    trial_command: Sequence[str],
) -> Trial | None:
    """Trains a reserved job and records the result; None if the job was given to another worker in the meantime.

    If this process is interrupted or told to end, the job goes back into the queue.
    """
    mine = {"_id": job["_id"], "owner": job["owner"], "state": RUNNING}

    def beat() -> bool:
        change = {"$inc": {"beat": 1}, "$currentDate": {"refresh_time": True}}
        return server.jobs.update_one(mine, change).matched_count > 0

    def hopeless(accuracies: list[float]) -> bool:
        rule = settings["stop_early"]
        if rule == "no":
            return heart.lost
        others = patiently(server, lambda: histories(server, name, settings, job, accuracies))
        return heart.lost or is_hopeless(rule, accuracies, others)

    called = "of another making"
    try:
        with understood(f"search {name} in {server.place}"):
            number, values, chosen = order_of(job, settings)
            called = str(number)
        print(f"Trial {number}: {report.described(chosen)}", flush=True)
        with Heartbeat(beat, heartbeat / 5) as heart:
            ordered = {"settings": settings, "parameters": chosen, "folder": folder}
            outcome = run_trial(ordered, trial_command, hopeless)
            trial = Trial(number, values, chosen, **dataclasses.asdict(outcome))
            recorded = patiently(server, lambda: finish(server, job, trial))
    except BaseException:
        with contextlib.suppress(ConnectionFailure, OSError):  # OSError: from a closed terminal
            if give_back(server, job):
                print(f"\nTrial {called} goes back to the queue", file=sys.stderr)
        raise
    if not recorded:
        print(f"Trial {number} was given to another worker meanwhile: this result is dropped", flush=True)
        return None
    print(f"Trial {number}: {report.ending(trial, None)}", flush=True)
    return trial
