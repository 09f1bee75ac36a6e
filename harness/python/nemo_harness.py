"""Connects a training program with nemo-slurm's harness: saves, stops, metrics. One file, no dependencies.

    import nemo_harness as nemo

    with nemo.trial() as trial:
        start = trial.resume(load)                  # load(path) is called if there is a checkpoint
        for step in trial.steps(start, 10_000):     # start + 1, ..., 10_000
            loss = train_step(trial.params["lr"])
            trial.report(step, loss=loss)
            if trial.should_save():                 # interval, preemption, time limit or pause
                with trial.checkpoint(step) as folder:
                    save(folder / "model.pt")

A step's number is the count of steps completed at the end of the loop's body: `checkpoint(step)` holds everything up to
and including it, and a trial that is resumed from it continues with `step + 1`.

Outside a job (no NEMO_SOCKET) the same program just runs: nobody asks it to save, and checkpoints go to ./checkpoints.
Nothing here blocks or fails because the harness is slow or gone. Processes that are forked off (data-loader workers) send
nothing. Neither do ranks other than 0: they only receive (`Trial.distribute` makes all ranks decide alike).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from types import FrameType, TracebackType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Tuple,
    Type,
    Union,
)

__all__ = ["Trial", "Workload", "notify", "trial"]

SAVED_START_ME_AGAIN = 85
NEVER_RESTART = 93

_MESSAGE_LIMIT = 64 * 1024
_ASK_EVERY = 5.0  # seconds: the harness pushes each change, and a lost one is asked for
_STEP_EVERY = 1.0  # seconds between two mere signs of life
_WAITING_LIMIT = 1000  # messages kept while the harness doesn't read
_PATIENCE = 1.0  # seconds for what must get through: an answer, the last messages


def trial(params: Optional[Mapping[str, Any]] = None, seed: int = 0) -> Trial:
    """This process's trial. `params` are defaults for parameters that the experiment does not set, `seed` is for runs outside a job."""
    return Trial(os.environ, params or {}, seed)


def notify(**lines: object) -> bool:
    """Sends one message of the protocol: `notify(STATUS="warming up", EXTEND_TIMEOUT_USEC=600_000_000)`.

    Returns whether the harness accepted it; False outside a job.
    """
    global _shared
    path = None if _is_forked else os.environ.get("NEMO_SOCKET")
    with _shared_lock:
        if _shared is None or _shared[0] != path:
            _shared = (path, _Link(path))
        link = _shared[1]
    return link.send({key: str(value) for key, value in lines.items()})


class Workload(NamedTuple):
    """What to do next: `kind` is "train", "validate" or "checkpoint"; `step` is the number of steps completed before it.

    `steps` are the numbers of the steps to train: `for step in workload.steps`.
    """

    kind: str
    step: int
    steps: range


class Trial:
    """One trial, as the program that trains it sees it."""

    def __init__(self, environ: Mapping[str, str], defaults: Mapping[str, Any], seed: int) -> None:
        self.rank: int = _rank(environ)
        """0, or this process's number among several."""
        self.params: Dict[str, Any] = {**defaults, **_read_params(environ.get("NEMO_PARAMS"))}
        """The trial's parameters."""
        self.seed: int = int(environ.get("NEMO_SEED") or seed)
        """Differs between trials, and is the same in every attempt of one."""
        self.attempt: int = int(environ.get("NEMO_ATTEMPT") or 0)
        """Counts the runs of this trial, from 0."""
        self.resume_from: Optional[Path] = _path(environ.get("NEMO_RESUME_FROM"))
        """A verified checkpoint, or None at the first start."""
        self.resume_step: int = int(environ.get("NEMO_RESUME_STEP") or 0) if self.resume_from else 0
        """The step of that checkpoint."""
        self.finished: bool = False
        """Whether the last loop over `steps` or `workloads` completed."""

        self._link = _Link(environ.get("NEMO_SOCKET"))
        self._checkpoints = _path(environ.get("NEMO_CHECKPOINT_DIR")) or Path("checkpoints")
        self._in_job = bool(environ.get("NEMO_CHECKPOINT_DIR"))
        self._world = _number(environ, "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS") or 1
        self._deadline = _number(environ, "NEMO_DEADLINE")
        self._step: Optional[int] = None
        self._saved: Optional[int] = None
        self._answered = 0  # the latest request to save that a checkpoint has answered
        self._saved_for_stop = False
        self._stopped_early = False
        self._entered = False
        self._told_at = -math.inf
        self._broadcast: Optional[Callable[[int], int]] = None
        self._barrier: Callable[[], None] = lambda: None
        self._agreed: Tuple[int, bool] = (0, False)
        self._pid = os.getpid()
        self._told_to_end = False  # by SIGTERM, which some clusters send to every process of a job

    # --- start and end ---

    def __enter__(self) -> Trial:
        self._entered = True
        is_main = threading.current_thread() is threading.main_thread()
        if self._in_job and is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._hear_term)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Ends the process if the loop was stopped early: what follows the block runs only for a finished trial."""
        if kind is None and self.finished:
            self._tell({"FINISHED": "1"})
        self._link.close()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == self._hear_term:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None and self._stopped_early:
            # One of several processes that ended with another code would have its launcher kill the rest.
            sys.exit(SAVED_START_ME_AGAIN if self._world == 1 else 0)

    def resume(self, load: Callable[[Path], object]) -> int:
        """Calls `load` with the checkpoint to resume from, if there is one, and returns its step, else 0."""
        if self.resume_from is not None:
            load(self.resume_from)
        self._step = self._saved = self.resume_step
        return self.resume_step

    def steps(self, start: int, total: int) -> Iterator[int]:
        """The steps that are left: start + 1, ..., total. Ends early if a stop is requested and all is saved."""
        self._begin(start)
        self._tell({"STEP": str(start), "TOTAL": str(total)})
        for step in range(start + 1, total + 1):
            self._agree()
            if self.should_stop() and not self._is_unsaved():
                self._stop_early()
                return
            self._step = step
            yield step
            self._sign_of_life()
        self._finish(total)

    def workloads(
        self,
        start: int,
        total: int,
        *,
        unit: Optional[int] = None,
        validate_every: Optional[int] = None,
        checkpoint_every: Optional[int] = None,
        validate_first: bool = False,
        checkpoint_best: bool = False,
    ) -> Iterator[Workload]:
        """What to do next, until training is finished. The harness decides when to validate and when to save.

        A workload counts as done when the next one is asked for. `checkpoint_best` saves after each validation that is
        the best by the experiment's metric, in a job.
        """
        self._begin(start)
        plan = _Plan(start, total, unit or total, validate_every or 0, checkpoint_every or 0, validate_first)
        self._tell({"STEP": str(start), "WORKLOADS": plan.as_json(checkpoint_best)})
        while True:
            self._agree()
            work = self._next_workload(plan)
            if work is None:
                break
            yield work
            plan.did(work)
            self._step = plan.step
            if work.kind == "checkpoint":
                self._note_saved(plan.step)
            count = f":{len(work.steps)}" if work.kind == "train" else ""
            self._tell({"DID": f"{work.kind}{count}", "STEP": str(plan.step)})
        if plan.is_done():
            self._finish(total)
        else:
            self._stop_early()

    def finish(self) -> None:
        """Says that training is finished although not all steps were done, for example after early stopping."""
        self.finished = True
        if not self._entered:
            self._tell({"FINISHED": "1"})

    def invalid_hyperparameters(self, reason: str) -> NoReturn:
        """Ends the process: the parameters are invalid, and the trial must not be run again."""
        print(f"invalid hyperparameters: {reason}", file=sys.stderr)
        self._tell({"INVALID_HP": reason})
        self._link.close()
        sys.exit(NEVER_RESTART)

    # --- reports ---

    def report(self, step: int, **metrics: Any) -> None:
        """Records metrics after `step` steps."""
        self._tell({"STEP": str(step), "METRICS": _as_json(metrics)})

    def report_validation(self, step: int, **metrics: Any) -> None:
        """Records metrics of a validation after `step` steps."""
        self._tell({"STEP": str(step), "VALIDATION": _as_json(metrics)})

    def result(self, **values: Any) -> None:
        """Gives values to the tasks that run after this one, as `{task.result.KEY}`. The last value of a key counts."""
        self._tell({"RESULT": _as_json(values, _nested)})

    def note(self, text: str) -> None:
        """Adds a text to the experiment, as `nemo-slurm note` does. The same text twice is one note."""
        self._tell({"NOTE": text.replace("\n", "\\n")})

    def metadata(self, **values: Any) -> None:
        """Sets metadata of the experiment, as `nemo-slurm note --set` does. The last value of a key counts."""
        self._tell({"METADATA": _as_json(values, _nested)})

    def artifact(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Keeps a copy of a file, up to 256 MiB, among the trial's artifacts, under its name."""
        self._tell({"ARTIFACT": os.path.abspath(os.fspath(path))})

    def status(self, text: str) -> None:
        """Shows a text to people, in `nemo-slurm status`."""
        self._tell({"STATUS": text})

    def progress(self, fraction: float) -> None:
        """Tells which part of the training is done, from 0 to 1."""
        self._tell({"PROGRESS": repr(min(max(float(fraction), 0.0), 1.0))})

    # --- requests ---

    def should_save(self) -> bool:
        """Whether to save a checkpoint now. True until one is made."""
        save, stop = self._requests()
        return (save != 0 and save != self._answered) or (stop and self._is_unsaved()) or self._is_due()

    def should_stop(self) -> bool:
        """Whether to save and end."""
        return self._requests()[1]

    @property
    def deadline(self) -> Optional[int]:
        """When the program must have ended, in unix seconds, or None if that is not known."""
        return self._link.hear().deadline or self._deadline

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """A folder for everything that the next step depends on. It is complete when the block ends, and removed if the block fails.

        Only what rank 0 writes there counts, unless `distribute` was called. Then all ranks share the folder.
        """
        if self.rank != 0 and self._broadcast is None:
            with self._scratch() as folder:
                yield folder
            self._note_saved(step)
            return
        name = f"step-{step}"
        folder = self._checkpoints / f".tmp-{name}"
        save, _ = self._requests()
        self._tell({"STEP": str(step), "SAVE": "begin"})
        done = {"STEP": str(step), "SAVE": "end"}
        try:
            if self.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            self._barrier()
            yield folder
            self._barrier()
            if self.rank == 0:
                _rename_over(folder, self._checkpoints / name)
            done["CKPT_DONE"] = name
            # A request that came while this was saved is answered by it too: nothing was trained since.
            self._answered = self._requests()[0] or save
            self._note_saved(step)
        finally:
            if self.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
            self._tell(done)

    def distribute(
        self,
        broadcast: Optional[Callable[[int], int]] = None,
        barrier: Optional[Callable[[], None]] = None,
    ) -> None:
        """Makes all ranks decide as rank 0 does, once a step, so that all save and stop at the same one.

        Every rank calls it after `torch.distributed.init_process_group`, and then runs the same `steps` or `workloads`.
        Without arguments torch.distributed is used. `broadcast(number)` returns rank 0's number in every rank.
        """
        self._broadcast = broadcast or _torch_broadcast
        self._barrier = barrier or (_torch_barrier if broadcast is None else lambda: None)

    # --- internals ---

    def _begin(self, start: int) -> None:
        self.finished = False
        self._stopped_early = False
        self._step = start
        if self._saved is None and start == self.resume_step:
            self._saved = start

    def _finish(self, total: int) -> None:
        self._step = total
        self._tell({"STEP": str(total)})
        self.finish()

    def _stop_early(self) -> None:
        self._stopped_early = True
        self._tell({"STOPPING": "1"})

    def _tell(self, lines: Dict[str, str]) -> None:
        if self.rank == 0:
            self._told_at = time.monotonic()
            self._link.send(lines)

    def _sign_of_life(self) -> None:
        if time.monotonic() - self._told_at >= _STEP_EVERY:
            self._tell({"STEP": str(self._step)})

    def _requests(self) -> Tuple[int, bool]:
        """The number of the request to save, or 0; and whether to stop."""
        if self._broadcast is not None:
            return self._agreed
        state = self._link.hear()
        return state.save, state.stop or self._told_to_end

    def _hear_term(self, number: int, frame: Optional[FrameType]) -> None:
        """Saves and ends instead of dying at once. A forked child, such as a data loader's worker, dies."""
        if os.getpid() != self._pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self._told_to_end = True

    def _is_due(self) -> bool:
        """Whether to save at exactly this step. Several ranks wait for a request instead, so that all receive it."""
        every = self._link.hear().every
        if not every or self._broadcast is not None or not self._step:
            return False
        return self._step // every > (self._saved or 0) // every

    def _agree(self) -> None:
        if self._broadcast is not None:
            state = self._link.hear()
            answer = self._broadcast(state.save * 2 + (state.stop or self._told_to_end))
            self._agreed = (answer // 2, bool(answer % 2))

    def _is_unsaved(self) -> bool:
        if self._step is None:
            return not self._saved_for_stop
        return self._step != self._saved

    def _note_saved(self, step: int) -> None:
        self._saved = step
        self._saved_for_stop = self._requests()[1]

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self._checkpoints / f".tmp-rank-{self.rank}-{os.getpid()}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _next_workload(self, plan: _Plan) -> Optional[Workload]:
        """The harness's answer. If it does not answer, or if all ranks must do the same, the same rule is applied here."""
        if self._broadcast is None and self.rank == 0:
            answer = self._link.ask_next()
            if answer is not None:
                kind, steps = answer
                return plan.workload(kind, steps)
        kind, steps = plan.next(self.should_stop(), self._is_unsaved())
        return plan.workload(kind, steps)


class _Plan:
    """The order of workloads, as the harness computes it: a pure function of what was done."""

    def __init__(
        self,
        start: int,
        total: int,
        unit: int,
        validate_every: int,
        checkpoint_every: int,
        validate_first: bool,
    ) -> None:
        self.step = start
        self.total = total
        self.unit = unit
        self.validate_every = validate_every
        self.checkpoint_every = checkpoint_every
        self.validate_first = validate_first
        self.saved = start
        # What was due before the resume was done; at its own step a stop may have come before the validation.
        self.validated = (start - 1) // validate_every * validate_every if validate_every and start else 0
        self.first_is_open = validate_first and start == 0
        self.has_validated = False

    def as_json(self, checkpoint_best: bool) -> str:
        return json.dumps(
            {
                "total": self.total,
                "unit": self.unit,
                "validate_every": self.validate_every,
                "checkpoint_every": self.checkpoint_every,
                "validate_first": self.validate_first,
                "checkpoint_best": checkpoint_best,
            }
        )

    def next(self, stop: bool, unsaved: bool) -> Tuple[str, int]:
        left = self.total - self.step
        if stop:
            return ("checkpoint" if unsaved else "stop"), 0
        if self.first_is_open or self._is_due(self.validate_every, self.validated):
            return "validate", 0
        if (left <= 0 and self.saved != self.step) or self._is_due(self.checkpoint_every, self.saved):
            return "checkpoint", 0
        if left <= 0:
            return ("stop", 0) if self._all_is_validated() else ("validate", 0)
        limits = [left, self.unit]
        for every in (self.validate_every, self.checkpoint_every):
            if every:
                limits.append(every - self.step % every)
        return "train", max(1, min(limits))

    def workload(self, kind: str, steps: int) -> Optional[Workload]:
        if kind == "stop":
            return None
        last = self.step + (steps if kind == "train" else 0)
        return Workload(kind, self.step, range(self.step + 1, last + 1))

    def did(self, work: Workload) -> None:
        self.step += len(work.steps)
        if work.kind == "validate":
            self.validated = self.step
            self.first_is_open = False
            self.has_validated = True
        if work.kind == "checkpoint":
            self.saved = self.step

    def is_done(self) -> bool:
        return self.step >= self.total and self._all_is_validated()

    def _all_is_validated(self) -> bool:
        return self.validated == self.step and (self.has_validated or self.validate_every > 0)

    def _is_due(self, every: int, last: int) -> bool:
        return every > 0 and self.step // every > last // every


class _State(NamedTuple):
    """What the harness wants, as it said last."""

    number: int = -1
    save: int = 0
    stop: bool = False
    deadline: Optional[int] = None
    every: Optional[int] = None


class _Link:
    """A datagram socket to the harness. Never blocks, never raises, and is silent in a process that was forked off."""

    def __init__(self, path: Optional[str]) -> None:
        self._lock = threading.RLock()
        self._state = _State()
        self._waiting: Deque[bytes] = deque(maxlen=_WAITING_LIMIT)
        self._sequence = 0
        self._identity = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._asked_at = -math.inf
        self._warned = False
        self._answer: Optional[Dict[str, str]] = None
        self._answers_late = False
        self._socket = _connect(path) if path else None
        if self._socket is not None:
            _links.add(self)

    def send(self, lines: Mapping[str, str]) -> bool:
        """Sends one message, or keeps it until the harness reads again; says whether it was taken."""
        with self._lock:
            if self._socket is None:
                return False
            self._sequence += 1
            parts = [f"{key}={_one_line(value)}" for key, value in lines.items()]
            parts += [f"ID={self._identity}", f"SEQ={self._sequence}"]
            message = "\n".join(parts).encode("utf-8", "replace")
            if len(message) > _MESSAGE_LIMIT:
                self._warn(f"a message of {len(message)} bytes was not sent: the limit is {_MESSAGE_LIMIT}")
                return False
            self._waiting.append(message)
            self._flush()
            return not self._waiting

    def hear(self) -> _State:
        """The newest state. The harness sends each change, and is asked every few seconds in case a message was lost."""
        with self._lock:
            if self._socket is None:
                return self._state
            now = time.monotonic()
            if now - self._asked_at >= _ASK_EVERY:
                self._asked_at = now
                self.send({"ASK": "1"})
            elif self._waiting:
                self._flush()
            self._receive()
            return self._state

    def ask_next(self) -> Optional[Tuple[str, int]]:
        """The next workload's kind and number of steps, or None if the harness doesn't tell in time."""
        with self._lock:
            for _ in range(2):
                if self._socket is None:
                    return None
                self._answer = None
                self.send({"NEXT": "1"})
                until = time.monotonic() + (_PATIENCE / 10 if self._answers_late else _PATIENCE)
                answer = self._wait_for(self._sequence, until)
                if answer is not None:
                    self._answers_late = False
                    return answer
            self._answers_late = True
            return None

    def close(self) -> None:
        """Sends what waits, within a second, and closes."""
        with self._lock:
            until = time.monotonic() + _PATIENCE
            self._flush()
            while self._socket is not None and self._waiting and time.monotonic() < until:
                time.sleep(0.01)  # a datagram socket is always "writable" until the peer's queue is full
                self._flush()
            self.silence()

    def silence(self) -> None:
        """Drops the socket and sends nothing. In a forked child the lock may be held by a thread that is not there."""
        self._lock = threading.RLock()
        link, self._socket = self._socket, None
        self._waiting.clear()
        if link is not None:
            link.close()

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _flush(self) -> None:
        while self._socket is not None and self._waiting:
            try:
                self._socket.send(self._waiting[0], socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM, errno.EINTR):
                    return
                self._waiting.clear()  # the harness is gone, and nobody else can be told
                return
            self._waiting.popleft()

    def _receive(self) -> None:
        for _ in range(1000):  # bounded, whatever is sent
            if self._socket is None:
                return
            try:
                message = self._socket.recv(_MESSAGE_LIMIT, socket.MSG_DONTWAIT)
            except OSError:
                return
            lines = _parse(message)
            if "WORKLOAD" in lines:
                self._answer = lines
            self._state = _newer(self._state, lines)

    def _wait_for(self, sequence: int, until: float) -> Optional[Tuple[str, int]]:
        while self._socket is not None:
            self._receive()
            answer = self._answer or {}
            if answer.get("SEQ", "") == str(sequence):
                kind, steps = answer.get("WORKLOAD"), _integer(answer.get("STEPS"))
                if kind in ("validate", "checkpoint", "stop"):
                    return kind, 0
                return ("train", steps) if kind == "train" and steps else None
            left = until - time.monotonic()
            if left <= 0:
                return None
            # What waits is sent as soon as there is room; the kernel doesn't tell when the peer has some.
            select.select([self._socket], [], [], min(left, 0.002) if self._waiting else left)
            self._flush()
        return None

    def _warn(self, text: str) -> None:
        if not self._warned:
            print(f"nemo_harness: {text}", file=sys.stderr)
        self._warned = True


_links: "weakref.WeakSet[_Link]" = weakref.WeakSet()
_shared: Optional[Tuple[Optional[str], _Link]] = None
_shared_lock = threading.Lock()
_is_forked = False


def _after_fork() -> None:
    global _is_forked, _shared_lock
    _is_forked = True
    _shared_lock = threading.Lock()  # a thread that isn't here may have held it
    for link in list(_links):
        link.silence()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _connect(path: str) -> Optional[socket.socket]:
    """A socket, connected so that only the harness can send to it, then bound so that the harness can answer."""
    try:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except (AttributeError, OSError):
        return None
    try:
        link.setblocking(False)
        link.connect(path)
        link.bind("")
    except OSError as error:
        print(f"nemo_harness: no harness at {path}: {error}", file=sys.stderr)
        link.close()
        return None
    return link


def _parse(message: bytes) -> Dict[str, str]:
    """The `KEY=VALUE` lines of a message. Other lines are ignored."""
    lines: Dict[str, str] = {}
    for line in message.decode("utf-8", "replace").split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            lines[key] = value
    return lines


def _newer(state: _State, lines: Mapping[str, str]) -> _State:
    """The state after a message. A late or unreadable message changes nothing."""
    number, save, stop = (_integer(lines.get(key)) for key in ("STATE", "SAVE", "STOP"))
    if number is None or number <= state.number or (save is None and stop is None):
        return state
    return _State(
        number,
        state.save if save is None else save,
        state.stop if stop is None else stop != 0,
        _integer(lines.get("DEADLINE")) or state.deadline,
        _integer(lines.get("SAVE_EVERY")) or state.every,
    )


def _integer(text: Optional[str]) -> Optional[int]:
    """A whole number from 0 on, of a sensible length."""
    return int(text) if text and len(text) < 19 and text.isascii() and text.isdigit() else None


def _number(environ: Mapping[str, str], *names: str) -> Optional[int]:
    found = (_integer(environ.get(name)) for name in names)
    return next((number for number in found if number is not None), None)


def _rank(environ: Mapping[str, str]) -> int:
    return _number(environ, "RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID") or 0


def _path(text: Optional[str]) -> Optional[Path]:
    return Path(text) if text else None


def _read_params(path: Optional[str]) -> Dict[str, Any]:
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        params: Dict[str, Any] = json.load(file)
    return params


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


def _as_json(values: Mapping[str, Any], convert: Optional[Callable[[Any], Any]] = None) -> str:
    convert = convert or _plain
    return json.dumps({name: convert(value) for name, value in values.items()}, allow_nan=False)


def _nested(value: Any) -> Any:
    """The same for a result: lists and tables stay what they are, with such values in them."""
    if isinstance(value, Mapping):
        return {str(name): _nested(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nested(own) for own in value]
    return _plain(value)


def _plain(value: Any) -> Union[None, bool, int, float, str]:
    """A metric as JSON has it: tensors and arrays of one number become that number, NaN and infinities null."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return str(value)
    return number if math.isfinite(number) else None


def _rename_over(source: Path, target: Path) -> None:
    """Replaces a checkpoint of that name that the harness has not committed yet."""
    for _ in range(3):
        try:
            os.rename(source, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        old = target.with_name(f".tmp-old-{target.name}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):  # the harness was faster
            os.rename(target, old)
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
    os.rename(source, target)


def _torch_broadcast(number: int) -> int:
    distributed = __import__("torch.distributed", fromlist=["distributed"])
    box = [number]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def _torch_barrier() -> None:
    __import__("torch.distributed", fromlist=["distributed"]).barrier()
