"""The module against a harness that answers, loses, repeats, lies, fills up and dies; and without one."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import threading
import time
import unittest
from fractions import Fraction
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import nemo_harness as nemo
from fake_harness import FakeHarness, scratch


def until(condition):
    """Polls: messages travel through another thread."""
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come about")
        time.sleep(0.002)


class Case(unittest.TestCase):
    def setUp(self):
        folder = scratch()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in [name for name in os.environ if name.startswith(("NEMO_", "SLURM_")) or name in ("RANK", "WORLD_SIZE")]:
            self.set(name, None)
        here = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, here)

    def set(self, name, value):
        patch = mock.patch.dict(os.environ)
        patch.start()
        self.addCleanup(patch.stop)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)

    def job(self, resume_step=None):
        """Puts this process into a job; the answer is its harness."""
        harness = FakeHarness(str(self.folder))
        self.addCleanup(harness.close)
        staging = self.folder / "staging"
        staging.mkdir()
        self.set("NEMO_SOCKET", harness.path)
        self.set("NEMO_CHECKPOINT_DIR", staging)
        self.set("NEMO_SEED", 7)
        self.staging = staging
        if resume_step is not None:
            (self.folder / "committed").mkdir()
            self.set("NEMO_RESUME_FROM", self.folder / "committed")
            self.set("NEMO_RESUME_STEP", resume_step)
        return harness

    def heard(self, trial, harness):
        """Lets the trial ask, and waits for the harness to know it."""
        trial.should_save()
        until(lambda: harness.askers)


class OutsideAJob(Case):
    def test_the_same_program_runs_to_its_end(self):
        loaded = []
        with nemo.trial(params={"lr": 0.1}, seed=3) as trial:
            start = trial.resume(loaded.append)
            steps = []
            for step in trial.steps(start, 4):
                steps.append(step)
                trial.report(step, loss=1.0)
                self.assertFalse(trial.should_save() or trial.should_stop())
            trial.status("done")
            with trial.checkpoint(4) as folder:
                (folder / "model").write_text("x")
        self.assertEqual((steps, loaded, trial.params, trial.seed), ([1, 2, 3, 4], [], {"lr": 0.1}, 3))
        self.assertTrue(trial.finished)
        self.assertEqual([path.name for path in Path("checkpoints").iterdir()], ["step-4"])
        self.assertFalse(nemo.notify(STATUS="x"))

    def test_a_checkpoint_of_the_same_step_is_replaced(self):
        trial = nemo.trial()
        for text in ("old", "new"):
            with trial.checkpoint(4) as folder:
                (folder / "model").write_text(text)
        self.assertEqual(Path("checkpoints/step-4/model").read_text(), "new")
        self.assertEqual(os.listdir("checkpoints"), ["step-4"])

    def test_workloads_come_in_the_order_of_the_protocol(self):
        with nemo.trial() as trial:
            works = trial.workloads(0, 500, unit=100, validate_every=200, checkpoint_every=400, validate_first=True)
            shown = " ".join(f"{work.kind[0]}{len(work.steps) or work.step}" for work in works)
        self.assertEqual(shown, "v0 t100 t100 v200 t100 t100 v400 c400 t100 c500 v500")
        self.assertTrue(trial.finished)

    def test_workloads_without_periods_train_save_and_validate(self):
        with nemo.trial() as trial:
            shown = [(work.kind, work.steps) for work in trial.workloads(0, 3)]
        self.assertEqual(shown, [("train", range(1, 4)), ("checkpoint", range(4, 4)), ("validate", range(4, 4))])

    def test_workloads_go_on_where_a_checkpoint_was_made(self):
        plain = {"unit": 100, "validate_every": 200, "checkpoint_every": 300}
        with nemo.trial() as trial:
            whole = [(work.kind, work.step) for work in trial.workloads(0, 700, **plain)]
            for kind, step in whole:
                if kind == "checkpoint":
                    rest = [(work.kind, work.step) for work in trial.workloads(step, 700, **plain)]
                    if step == 600:  # nobody knows whether it was validated before it was saved
                        self.assertEqual(rest.pop(0), ("validate", 600))
                    self.assertEqual(rest, whole[whole.index((kind, step)) + 1 :], step)


class InAJob(Case):
    def test_what_is_reported_arrives(self):
        harness = self.job()
        params = self.folder / "params.json"
        params.write_text('{"lr": 0.5}')
        self.set("NEMO_PARAMS", params)
        with nemo.trial(params={"lr": 0.1, "width": 3}) as trial:
            self.assertEqual((trial.params, trial.seed), ({"lr": 0.5, "width": 3}, 7))
            for step in trial.steps(trial.resume(None), 3):
                trial.report(step, loss=1 / step, bad=math.nan, worse=math.inf, n=2, flag=True, odd=[1])
                trial.report_validation(step, accuracy=0.5)
            trial.status("two\nlines")
            trial.progress(1.5)
        until(lambda: harness.said("FINISHED"))
        expected = {"loss": 0.5, "bad": None, "worse": None, "n": 2, "flag": True, "odd": "[1]"}
        self.assertEqual(harness.reports()[1], (2, expected))
        self.assertEqual([step for step, _ in harness.reports()], [1, 2, 3])
        self.assertEqual(harness.said("VALIDATION"), ['{"accuracy": 0.5}'] * 3)
        self.assertEqual((harness.said("STATUS"), harness.said("PROGRESS")), (["two lines"], ["1.0"]))
        self.assertEqual((harness.said("TOTAL"), harness.said("FINISHED")), (["3"], ["1"]))
        self.assertEqual(len(set(harness.said("SEQ"))), len(harness.messages))
        self.assertEqual(len(set(harness.said("ID"))), 1)

    def test_a_resumed_trial_goes_on_with_the_next_step(self):
        self.job(resume_step=20)
        loaded = []
        with nemo.trial() as trial:
            start = trial.resume(loaded.append)
            self.assertEqual(list(trial.steps(start, 23)), [21, 22, 23])
        self.assertEqual((start, loaded), (20, [self.folder / "committed"]))

    def test_a_checkpoint_is_complete_or_not_there(self):
        harness = self.job()
        trial = nemo.trial()
        with trial.checkpoint(60) as folder:
            self.assertEqual(folder.parent, self.staging)
            self.assertTrue(folder.name.startswith(".tmp"))
            (folder / "model").write_text("x")
        self.assertEqual((self.staging / "step-60/model").read_text(), "x")
        with self.assertRaisesRegex(OSError, "disk full"):
            with trial.checkpoint(61) as folder:
                (folder / "model").write_text("x")
                raise OSError("disk full")
        self.assertEqual(os.listdir(self.staging), ["step-60"])
        until(lambda: len(harness.said("SAVE")) == 4)
        self.assertEqual(harness.said("SAVE"), ["begin", "end", "begin", "end"])
        self.assertEqual(harness.said("CKPT_DONE"), ["step-60"])

    def test_a_request_to_save_is_answered_once(self):
        harness = self.job()
        trial = nemo.trial()
        self.heard(trial, harness)
        harness.push(SAVE=1, REASON="interval")
        until(trial.should_save)
        self.assertFalse(trial.should_stop())
        with trial.checkpoint(5):
            pass
        self.assertFalse(trial.should_save())
        harness.push(SAVE=2)
        until(trial.should_save)

    def test_a_stop_ends_the_loop_once_all_is_saved(self):
        harness = self.job()
        done, saved = [], []
        with self.assertRaises(SystemExit) as ended:
            with nemo.trial() as trial:
                for step in trial.steps(0, 100):
                    done.append(step)
                    if step == 3:
                        until(lambda: harness.askers)
                        harness.push(SAVE=1, STOP=1, REASON="preempted", DEADLINE=1234)
                        until(trial.should_stop)
                        self.assertEqual(trial.deadline, 1234)
                    elif trial.should_save() and step >= 5:  # it takes its time
                        with trial.checkpoint(step):
                            saved.append(step)
                self.assertFalse(trial.finished)
        self.assertEqual((done, saved, ended.exception.code), ([1, 2, 3, 4, 5], [5], 85))
        until(lambda: harness.said("STOPPING"))
        self.assertEqual(harness.said("FINISHED"), [])

    def test_a_stop_right_after_a_resume_loses_nothing(self):
        harness = self.job(resume_step=20)
        trial = nemo.trial()
        start = trial.resume(lambda path: None)
        self.heard(trial, harness)
        harness.push(SAVE=1, STOP=1)
        until(trial.should_stop)
        self.assertEqual(list(trial.steps(start, 30)), [])
        self.assertFalse(trial.finished)

    def test_a_stop_in_the_last_step_is_no_early_end(self):
        harness = self.job()
        with nemo.trial() as trial:
            for step in trial.steps(0, 3):
                if step == 3:
                    until(lambda: harness.askers)
                    harness.push(SAVE=1, STOP=1)
                    until(trial.should_stop)
                trial.should_save()
        self.assertTrue(trial.finished)
        until(lambda: harness.said("FINISHED"))

    def test_workloads_are_the_harnesss_choice(self):
        harness = self.job()
        harness.workloads = [("train", 40)]
        shown = []
        with self.assertRaises(SystemExit):
            with nemo.trial() as trial:
                for work in trial.workloads(0, 100, unit=50):
                    shown.append((work.kind, work.steps))
                    following = {"train": ("checkpoint", 0), "checkpoint": ("stop", 0)}
                    harness.workloads = [following[work.kind]]
        self.assertEqual(shown, [("train", range(1, 41)), ("checkpoint", range(41, 41))])
        until(lambda: len(harness.said("DID")) == 2)
        self.assertEqual(harness.said("DID"), ["train:40", "checkpoint"])
        self.assertEqual(json.loads(harness.said("WORKLOADS")[0])["unit"], 50)

    def test_lost_answers_cost_no_workload(self):
        harness = self.job()
        harness.workloads = [("train", 40)]
        harness.lose_answers = 3  # the first question is asked twice, the second once more
        kinds = []
        with mock.patch.object(nemo, "_PATIENCE", 0.05):
            for work in nemo.trial().workloads(0, 100):
                kinds.append(work.kind)
                harness.workloads = [("stop", 0)]
                if len(kinds) == 2:
                    break
        self.assertEqual(kinds[0], "train")

    def test_a_question_waits_its_turn_behind_many_reports(self):
        harness = self.job()
        harness.workloads = [("train", 1)]
        kinds = []
        with mock.patch.object(nemo, "_PATIENCE", 30.0):
            trial = nemo.trial()
            for work in trial.workloads(0, 10):
                kinds.append(work.kind)
                with harness.lock:  # it is busy
                    for step in range(300):
                        trial.report(step, loss=1.0)
                harness.workloads = [("stop", 0)]
        self.assertEqual(kinds, ["train"])  # without an answer there would be a checkpoint

    def test_bad_parameters_end_the_trial_for_good(self):
        harness = self.job()
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as ended:
            with nemo.trial() as trial:
                trial.invalid_hyperparameters("width < 0")
        self.assertEqual(ended.exception.code, 93)
        until(lambda: harness.said("INVALID_HP") == ["width < 0"])


class Faults(Case):
    def test_garbage_late_and_doubled_states_change_nothing(self):
        harness = self.job()
        trial = nemo.trial()
        self.heard(trial, harness)
        harness.push(STATE=9, SAVE=4)
        until(trial.should_save)
        late = "STATE=8\nSAVE=0\nSTOP=1"
        for text in (b"\xff\xfe\x00", "", "STATE=x\nSTOP=1", "STATE=10", "STATE=99999999999999999999\nSTOP=1", late, late):
            harness.push_raw(text)
        harness.push_raw("STATE=10\nSAVE=4\nDEADLINE=7\nNEW=x")  # says nothing of STOP: it stays as it was
        until(lambda: trial.deadline == 7)
        self.assertEqual((trial.should_save(), trial.should_stop()), (True, False))

    def test_a_lost_push_is_asked_for(self):
        harness = self.job()
        trial = nemo.trial()
        self.heard(trial, harness)
        with harness.lock:
            harness.state.update(STATE=1, STOP=1)  # and nobody is told
        self.assertFalse(trial.should_stop())
        with mock.patch.object(nemo, "_ASK_EVERY", 0.0):
            until(trial.should_stop)

    def test_it_asks_once_not_at_each_step(self):
        harness = self.job()
        with nemo.trial() as trial:
            for _ in trial.steps(0, 1000):
                trial.should_save()
        until(lambda: harness.said("FINISHED"))
        self.assertEqual(len(harness.said("ASK")), 1)
        self.assertLess(len(harness.messages), 10)

    def test_a_dead_harness_stops_nothing(self):
        harness = self.job()
        with nemo.trial() as trial:
            for step in trial.steps(0, 200):
                trial.report(step, loss=1.0)
                if step == 20:
                    harness.close()
                    self._cleanups = [item for item in self._cleanups if item[0] != harness.close]
                if step == 100:
                    with trial.checkpoint(step):
                        pass
                self.assertFalse(trial.should_save())
        self.assertTrue(trial.finished)
        self.assertEqual(os.listdir(self.staging), ["step-100"])

    def test_a_socket_that_is_not_there_is_said_and_endured(self):
        self.set("NEMO_SOCKET", self.folder / "none")
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            with nemo.trial() as trial:
                self.assertEqual(list(trial.steps(0, 2)), [1, 2])
        self.assertIn("no harness at", errors.getvalue())

    def test_a_harness_that_does_not_read_blocks_nothing_and_loses_nothing(self):
        harness = self.job()
        with nemo.trial() as trial:
            with harness.lock:  # it stops reading
                for step in trial.steps(0, 200):
                    trial.report(step, loss=float(step))
                    trial.should_save()
        until(lambda: harness.said("FINISHED"))
        self.assertEqual([step for step, _ in harness.reports()], list(range(1, 201)))

    def test_what_waits_is_bounded(self):
        harness = self.job()
        with mock.patch.object(nemo, "_PATIENCE", 0.05), mock.patch.object(nemo, "_WAITING_LIMIT", 50):
            with harness.lock, nemo.trial() as trial:
                for step in trial.steps(0, 3000):
                    trial.report(step, loss=1.0)
                self.assertEqual(len(trial._link._waiting), 50)

    def test_a_report_that_is_too_long_is_left_out(self):
        harness = self.job()
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), nemo.trial() as trial:
            trial.report(1, text="x" * 70_000)
            trial.report(2, loss=1.0)
        until(lambda: harness.reports() == [(2, {"loss": 1.0})])
        self.assertIn("was not sent", errors.getvalue())


class Processes(Case):
    def test_results_and_metadata_keep_lists_and_tables(self):
        harness = self.job()
        with nemo.trial() as trial:
            trial.result(deep={"a": 1, 2: math.nan}, classes=(1, [Fraction(1, 2)]), path=Path("x"))
            trial.metadata(layers=[1, 2], best={"loss": 0.5})
        until(lambda: harness.said("METADATA"))
        result = {"deep": {"a": 1, "2": None}, "classes": [1, [0.5]], "path": "x"}
        self.assertEqual(json.loads(harness.said("RESULT")[0]), result)
        self.assertEqual(json.loads(harness.said("METADATA")[0]), {"layers": [1, 2], "best": {"loss": 0.5}})

    def test_a_forked_child_is_silent_and_takes_nothing_away(self):
        harness = self.job()
        trial = nemo.trial()
        nemo.notify(STATUS="parent")
        self.heard(trial, harness)
        child = os.fork()
        if child == 0:
            trial.report(1, loss=1.0)
            nemo.notify(STATUS="child")
            os._exit(int(trial.should_stop()))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        harness.push(STOP=1)
        until(trial.should_stop)
        trial.report(2, loss=2.0)
        until(lambda: harness.reports() == [(2, {"loss": 2.0})])
        self.assertEqual(harness.said("STATUS"), ["parent"])

    def test_threads_may_speak_at_once(self):
        harness = self.job()
        trial = nemo.trial()

        def speak(offset):
            for step in range(offset, offset + 200):
                trial.report(step, loss=1.0)
                trial.should_save()

        threads = [threading.Thread(target=speak, args=(200 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trial.__exit__(None, None, None)
        until(lambda: len(harness.reports()) == 800)
        self.assertEqual(len(set(harness.said("SEQ"))), len(harness.messages))

    def test_other_ranks_listen_only(self):
        harness = self.job()
        self.set("RANK", 1)
        self.set("WORLD_SIZE", 2)
        with self.assertRaises(SystemExit) as ended:
            with nemo.trial() as trial:
                for step in trial.steps(0, 100):
                    trial.report(step, loss=1.0)
                    if step == 2:
                        until(lambda: harness.askers)
                        harness.push(SAVE=1, STOP=1)
                        until(trial.should_save)
                        with trial.checkpoint(step) as folder:
                            (folder / "shard").write_text("x")
        self.assertEqual(ended.exception.code, 0)
        self.assertEqual(os.listdir(self.staging), [])
        self.assertEqual({key for message in harness.messages for key in message}, {"ASK", "ID", "SEQ"})

    def test_ranks_that_are_distributed_save_and_stop_at_the_same_step(self):
        harness = self.job()
        self.set("WORLD_SIZE", 3)
        ranks, boxes, barrier = 3, [None], threading.Barrier(3)

        def broadcast(rank):
            def all_get(number):
                if rank == 0:
                    boxes[0] = number
                barrier.wait()
                answer = boxes[0]
                barrier.wait()
                return answer

            return all_get

        trials = []
        for rank in range(ranks):
            self.set("RANK", rank)
            trials.append(nemo.trial())
            trials[-1].distribute(broadcast(rank), barrier.wait)
        history = {rank: [] for rank in range(ranks)}

        def train(rank):
            trial = trials[rank]
            for step in trial.steps(0, 100_000):
                if rank == 0 and step == 5:
                    until(lambda: harness.askers)
                    harness.push(SAVE=1, STOP=1)
                    until(lambda: trial._link.hear().stop)
                if trial.should_save():
                    with trial.checkpoint(step) as folder:
                        (folder / f"shard-{rank}").write_text("x")
                    history[rank].append(step)
            history[rank].append("end")

        threads = [threading.Thread(target=train, args=(rank,)) for rank in range(ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(history[0], [6, "end"])
        self.assertEqual(history, {rank: history[0] for rank in range(ranks)})
        self.assertEqual(sorted(os.listdir(self.staging / "step-6")), ["shard-0", "shard-1", "shard-2"])

    def test_a_whole_program_that_is_stopped_and_resumed_ends_as_if_undisturbed(self):
        program = self.folder / "train.py"
        program.write_text(PROGRAM)
        plain = self.run_program(program)
        harness = self.job()
        for _ in range(2):
            harness.push(SAVE=0, STOP=0)
            child = self.start(program)
            count = len(harness.messages)
            until(lambda: any("METRICS" in message for message in harness.messages[count:]))
            harness.push(SAVE=1 + harness.state["SAVE"], STOP=1)
            code = child.wait()
            child.stdout.close()
            self.assertEqual(code, 85)
            newest = max(self.staging.iterdir(), key=lambda path: int(path.name[5:]))
            self.set("NEMO_RESUME_FROM", newest)
            self.set("NEMO_RESUME_STEP", newest.name[5:])
        harness.push(SAVE=0, STOP=0)
        self.assertEqual(self.run_program(program), plain)
        until(lambda: harness.said("FINISHED"))
        seen = [step for step, _ in harness.reports()]
        self.assertEqual(seen, list(range(1, 3001)))  # no step is lost, and none is done twice

    def start(self, program):
        path = str(Path(nemo.__file__).parent)
        return subprocess.Popen([sys.executable, str(program)], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)

    def run_program(self, program):
        child = self.start(program)
        output, _ = child.communicate()
        self.assertEqual(child.returncode, 0)
        return output


PROGRAM = '''
import nemo_harness as nemo

state = [1]

def load(path):
    state[0] = int((path / "state").read_text())

with nemo.trial() as trial:
    start = trial.resume(load)
    for step in trial.steps(start, 3000):
        state[0] = state[0] * 48271 % 2147483647
        trial.report(step, value=state[0])
        if trial.should_save():
            with trial.checkpoint(step) as folder:
                (folder / "state").write_text(str(state[0]))
print(state[0])
'''


if __name__ == "__main__":
    unittest.main()
