//! The client against programs that misbehave: each test puts small shell scripts into a PATH of its own.
#![expect(clippy::unwrap_used, reason = "the helpers of tests")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nemo_slurm::slurm::{Accounting, Client, JobControl, JobId, Recipient, SlurmError};
use tempfile::TempDir;

/// Runs the body that lies beside the name it is called by.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/slurm-22.05/fake-program");

/// A folder with fake programs, and a client that finds only them.
struct Fake {
    folder: TempDir,
}

impl Fake {
    fn new(programs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, body) in programs {
            #[expect(clippy::disallowed_methods, reason = "a file of a test")]
            std::fs::write(folder.path().join(format!("{name}.body")), body).unwrap();
            // The program itself is never written: a file that another thread's child still has open can't be run.
            std::os::unix::fs::symlink(PROGRAM, folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn client(&self) -> Client {
        self.patient(Duration::from_secs(20))
    }

    fn patient(&self, timeout: Duration) -> Client {
        Client::new(timeout).with_path(OsString::from(self.folder.path()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Every program fails with this on stderr.
fn failing(stderr: &str, code: u8) -> Fake {
    let body = format!("printf '%s\\n' '{stderr}' >&2; exit {code}");
    let names = ["sbatch", "squeue", "sacct", "scontrol", "scancel"];
    Fake::new(&names.map(|name| (name, body.as_str())))
}

const JOB: JobId = JobId(7);

/// A `squeue` that shows these arrays, all of them of the names that were asked for.
fn queued(arrays: &[u32]) -> String {
    let row = |id| format!(r"printf '{id}_[0-9]\037PENDING\037100\0370\037None\037\n';");
    arrays.iter().map(row).collect()
}

fn name() -> Vec<String> {
    vec!["n".to_owned()]
}

#[test]
fn a_missing_program_is_named() {
    let fake = Fake::new(&[]);
    let error = fake.client().queue(&[JOB]).unwrap_err();
    let expected = format!("`squeue` was not found in PATH: {}", fake.folder.path().display());
    assert_eq!(error.to_string(), expected);
    assert!(!error.is_no_answer());
    assert!(error.hint().unwrap().contains("login node"));
}

#[test]
fn where_slurm_finds_no_configuration_the_hint_names_it() {
    let words = "squeue: error: fetch_config: DNS SRV lookup failed\nsqueue: fatal: Could not establish a configuration source";
    let fake = failing(words, 1);
    let error = fake.client().queue(&[JOB]).unwrap_err();
    assert!(error.hint().unwrap().contains("SLURM_CONF"), "{error}");
    let fake =
        failing("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1);
    let error = fake.client().queue(&[JOB]).unwrap_err();
    assert!(error.hint().unwrap().contains("in a minute"), "{error}");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let fake = Fake::new(&[("sbatch", "echo $$ > ${0%/*}/pid; /bin/sleep 1000 & wait")]);
    let client = fake.patient(Duration::from_millis(600));
    let error = client.submit(&fake.path("x"), &[]).unwrap_err();
    assert!(matches!(error, SlurmError::NoAnswer { program: "sbatch", .. }), "{error:?}");
    assert!(error.is_no_answer());
    let pid: i32 = std::fs::read_to_string(fake.path("pid")).unwrap().trim().parse().unwrap();
    let group = nix::unistd::Pid::from_raw(pid);
    // What was killed is gone from the group as soon as init has taken note of it.
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        nix::sys::signal::killpg(group, None).is_err()
    });
    assert!(gone, "something of process group {pid} is left");
}

#[test]
fn a_child_that_keeps_the_output_open_holds_nobody_up() {
    let fake = Fake::new(&[("sbatch", "/bin/sleep 5 & echo 12; exit 0")]);
    let client = fake.patient(Duration::from_secs(4));
    assert_eq!(client.submit(&fake.path("x"), &[]).unwrap().job, JobId(12));
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let fake = Fake::new(&[("sbatch", "exec >&- 2>&-; /bin/sleep 0.3; exit 3")]);
    let error = fake.client().submit(&fake.path("x"), &[]).unwrap_err();
    assert!(matches!(error, SlurmError::Refused { code: Some(3), .. }), "{error:?}");
    assert_eq!(error.to_string(), "`sbatch` refused: it gave no reason");
}

#[test]
fn a_program_that_a_signal_ended_may_have_done_its_work() {
    let fake = Fake::new(&[("sbatch", "kill -9 $$")]);
    let error = fake.client().submit(&fake.path("x"), &[]).unwrap_err();
    assert!(matches!(error, SlurmError::Refused { code: None, .. }) && error.is_no_answer());
}

#[test]
fn huge_outputs_on_both_sides_do_not_block() {
    let body = "i=0; while [ $i -lt 20000 ]; do echo 'a line that is no row at all, to fill the pipe'; \
                echo 'something to worry about, to fill the other pipe' >&2; i=$((i+1)); done";
    let fake = Fake::new(&[("squeue", body)]);
    let parsed = fake.client().queue(&[JOB]).unwrap();
    assert_eq!((parsed.rows.len(), parsed.unread.len()), (0, 20_000));
    assert_eq!(parsed.unread[19_999].line, 20_000);
}

#[test]
fn garbage_is_kept_and_counted() {
    let fake = Fake::new(&[("squeue", r"printf '\377\000\037\037\n\nhello'")]);
    let parsed = fake.client().queue(&[JOB]).unwrap();
    assert_eq!((parsed.rows.len(), parsed.unread.len()), (0, 2));
    let error = fake.client().find("token", 0).unwrap_err();
    assert!(error.is_no_answer(), "{error}");
}

#[test]
fn a_submission_is_found_among_banners() {
    let check = |printed: &str, job: Option<u32>| {
        let fake = Fake::new(&[("sbatch", &format!("printf '{printed}'"))]);
        let answer = fake.client().submit(&fake.path("x"), &[]);
        match job {
            Some(job) => assert_eq!(answer.unwrap().job, JobId(job), "{printed:?}"),
            None => assert!(answer.unwrap_err().is_no_answer(), "{printed:?}"),
        }
    };
    check(r"12\n", Some(12));
    check(r"12;dev\n", Some(12));
    check(r"Welcome to cluster 9\n*** 2026 maintenance: 3 days ***\n12\n", Some(12));
    check(r"12\nYour project has used 33 of 100 hours\n", Some(12));
    check(r"\n 12 \r\n", Some(12));
    check(r"Submitted batch job 12\n", None);
    check(r"2026\n12\n", None);
    check(r"0\n", None);
    check(r"", None);
    check(r"99999999999\n", None);
}

#[test]
fn slurms_own_words_sort_the_errors() {
    let check = |stderr: &str, code: u8, want: &str, no_answer: bool| {
        let fake = failing(stderr, code);
        let error = fake.client().submit(&fake.path("x"), &[]).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_no_answer()), (want, no_answer));
    };
    let refused = "sbatch: error: invalid partition specified: nope\n\
                   sbatch: error: Batch job submission failed: Invalid partition name specified";
    check(
        refused,
        1,
        "`sbatch` refused: invalid partition specified: nope; Invalid partition name specified",
        false,
    );
    check(
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        1,
        "`sbatch` could not reach Slurm`s controller: Unable to contact slurm controller (connect failure)"
            .replace("Slurm`s", "Slurm's")
            .as_str(),
        true,
    );
}

#[test]
fn accounting_off_down_and_empty_are_three_things() {
    let find = |sacct: &str| {
        let fake = Fake::new(&[("squeue", "exit 0"), ("sacct", sacct)]);
        fake.client().find("token", 0).unwrap()
    };
    let asked = find("exit 0");
    assert!(asked.surely_none());
    let off = find("echo 'Slurm accounting storage is disabled' >&2; exit 1");
    assert!(matches!(off.accounting, Accounting::Off) && !off.surely_none());
    let down = find(
        "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1",
    );
    assert!(
        matches!(&down.accounting, Accounting::Unanswered(SlurmError::AccountingDown { .. })),
        "{down:?}"
    );
    assert!(!down.surely_none());
    let odd = find("echo what");
    assert!(matches!(odd.accounting, Accounting::Unanswered(_)) && !odd.surely_none());
}

#[test]
fn the_queue_must_answer_before_anything_is_said_to_be_absent() {
    let down = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1";
    let fake = Fake::new(&[("squeue", down), ("sacct", "exit 0")]);
    assert!(fake.client().find("token", 0).unwrap_err().is_no_answer());
    assert!(fake.client().find("two,names", 0).is_err());
}

#[test]
fn an_unknown_job_is_an_empty_answer() {
    let fake = failing("slurm_load_jobs error: Invalid job id specified", 1);
    assert!(fake.client().queue(&[JOB]).unwrap().rows.is_empty());
    assert!(fake.client().show("7").unwrap().rows.is_empty());
}

#[test]
fn an_unknown_field_is_an_error_although_squeue_exits_well() {
    let body =
        "printf '7\\037\\n'; echo 'squeue: error: Invalid job format specification: Foo' >&2";
    let fake = Fake::new(&[("squeue", body)]);
    let error = fake.client().queue(&[JOB]).unwrap_err();
    assert!(matches!(error, SlurmError::UnknownField { .. }), "{error:?}");
}

#[test]
fn nothing_is_asked_about_no_jobs() {
    let fake = Fake::new(&[]);
    assert!(fake.client().queue(&[]).unwrap().rows.is_empty());
    assert!(fake.client().accounting(&[], 0).unwrap().rows.is_empty());
    fake.client().control(name()).cancel(&[]).unwrap();
    fake.client().control(name()).hold(&[]).unwrap();
}

#[test]
fn many_jobs_are_asked_about_in_arguments_that_linux_takes() {
    let fake = Fake::new(&[("squeue", "echo x >> ${0%/*}/runs")]);
    let jobs: Vec<JobId> = (4_294_900_000..4_294_930_000).map(JobId).collect();
    fake.client().queue(&jobs).unwrap();
    assert_eq!(std::fs::read_to_string(fake.path("runs")).unwrap().lines().count(), 4);
}

#[test]
fn the_words_of_each_question() {
    let echo = "for word; do printf '%s\\n' \"$word\" >> ${0%/*}/words; done; \
                printf '%s %s\\n' \"$SLURM_TIME_FORMAT\" \"$SLURM_BITSTR_LEN $LC_ALL\" >> ${0%/*}/words";
    let squeue = queued(&[12, 13]);
    let programs = [("scancel", echo), ("scontrol", echo), ("sbatch", echo), ("squeue", &squeue)];
    let fake = Fake::new(&programs);
    let control = fake.client().control(name());
    let ids = ["12".to_owned(), "13_[1-3]".to_owned()];
    control.signal(&ids, "USR1", Recipient::Batch).unwrap();
    control.hold(&ids).unwrap();
    fake.client().submit(&fake.path("x"), &["--hold".to_owned()]).unwrap_err();
    let words = std::fs::read_to_string(fake.path("words")).unwrap();
    let script = fake.path("x").display().to_string();
    let want = "--signal=USR1 --batch --name=n 12 13_[1-3] %s 0 C hold 12 13_[1-3] %s 0 C --parsable --hold SCRIPT";
    assert_eq!(
        words.split_whitespace().collect::<Vec<_>>().join(" "),
        want.replace("SCRIPT", &script)
    );
}

#[test]
fn another_cluster_is_named_in_every_question() {
    let echo = "echo ${0##*/} $1 >> ${0%/*}/words; exit 1";
    let programs = ["sbatch", "squeue", "sacct", "scancel", "scontrol"];
    let fake = Fake::new(&programs.map(|program| (program, echo)));
    let client = fake.client().on_cluster(Some("b"));
    let ids = ["12".to_owned()];
    client.submit(&fake.path("x"), &[]).unwrap_err();
    client.queue(&[JOB]).unwrap_err();
    client.accounting(&[JOB], 0).unwrap_err();
    let control = client.control(name()).with_known(&[JobId(12)]);
    control.cancel(&ids).unwrap_err();
    control.signal(&ids, "USR1", Recipient::Batch).unwrap_err();
    for answer in [control.hold(&ids), control.release(&ids), control.requeue(&ids)] {
        answer.unwrap_err();
    }
    control.start_soon(&ids).unwrap_err();
    client.show("12").unwrap_err();
    client.limits().unwrap_err();
    client.partitions().unwrap_err();
    let words = std::fs::read_to_string(fake.path("words")).unwrap();
    assert_eq!(words.lines().count(), 12, "{words}");
    assert!(words.lines().all(|line| line.ends_with(" --clusters=b")), "{words}");
    for program in programs {
        assert!(words.contains(program), "{program}: {words}");
    }
}

#[test]
fn a_job_that_is_queued_already_counts_as_requeued() {
    let fake = failing("Job is pending execution for job 7", 1);
    let control = |fake: &Fake| fake.client().control(name()).with_known(&[JOB]);
    control(&fake).requeue(&["7".to_owned()]).unwrap();
    let fake = failing("Requested operation is presently disabled for job 7", 1);
    control(&fake).requeue(&["7".to_owned()]).unwrap_err();
}

#[test]
fn the_captured_outputs_answer_exactly_our_questions() {
    let echo = "printf '%s' \"${0##*/} $*\" > ${0%/*}/words";
    let fake = Fake::new(&[("squeue", echo), ("sacct", echo), ("scontrol", echo)]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/slurm-22.05/");
    let commands = std::fs::read_to_string(format!("{folder}commands")).unwrap();
    let asked = || std::fs::read_to_string(fake.path("words")).unwrap();
    let [queue, account, show] = commands.lines().collect::<Vec<_>>()[..] else {
        panic!("three commands, not {commands:?}")
    };

    fake.client().queue(&[JOB]).unwrap();
    assert_eq!(asked(), format!("{queue} --jobs=7"));
    let since = account.split("uts").nth(1).unwrap().split(' ').next().unwrap();
    fake.client().accounting(&[JOB], since.parse().unwrap()).unwrap();
    assert_eq!(asked(), format!("{account} --jobs=7"));
    fake.client().show("7").unwrap();
    assert_eq!(asked(), format!("{show} 7"));
}

/// An id that Slurm gave to another job, after its controller had lost its state.
#[test]
fn a_job_of_another_name_is_told_nothing() {
    type Command = fn(&JobControl, &[String]) -> Result<(), SlurmError>;
    let commands: [Command; 7] = [
        JobControl::hold,
        JobControl::release,
        JobControl::requeue,
        JobControl::requeue_held,
        JobControl::start_soon,
        JobControl::cancel,
        |control, ids| control.wait_for(ids, "afterany:1"),
    ];
    let echo = "printf '%s\\n' \"$*\" >> ${0%/*}/words";
    let ids = ["12_[0-3]", "13_4", "14_5"].map(str::to_owned);
    for (place, command) in commands.into_iter().enumerate() {
        let squeue = format!("echo x >> ${{0%/*}}/runs; {}", queued(&[12, 14]));
        let fake = Fake::new(&[("squeue", &squeue), ("scontrol", echo), ("scancel", echo)]);
        let control = fake.client().control(name());
        command(&control, &ids).unwrap();
        command(&control, &ids).unwrap();
        let words = std::fs::read_to_string(fake.path("words")).unwrap();
        assert!(words.contains("12_[0-3]") && words.contains("14_5"), "{place}: {words}");
        assert!(!words.contains("13_4"), "{place}: {words}");
        let runs = std::fs::read_to_string(fake.path("runs")).unwrap();
        assert_eq!(runs, "x\n", "{place}: each job is asked about once");
    }
    let fake = Fake::new(&[("squeue", "echo what"), ("scontrol", echo)]);
    let error = fake.client().control(name()).hold(&ids).unwrap_err();
    assert!(error.is_no_answer() && !fake.path("words").exists(), "{error}");
}

/// `scancel` compares its `--name` with the whole name of a job: of two names it would find no job.
#[test]
fn jobs_of_several_names_are_cancelled_and_signalled() {
    let echo = "printf '%s\\n' \"$*\" >> ${0%/*}/words";
    let squeue = queued(&[12, 13]);
    let fake = Fake::new(&[("squeue", &squeue), ("scancel", echo)]);
    let ids = ["12", "13", "14"].map(str::to_owned);
    let control = fake.client().control(vec!["a".to_owned(), "b".to_owned()]);
    control.cancel(&ids).unwrap();
    control.signal(&ids, "USR1", Recipient::Batch).unwrap();
    fake.client().control(name()).cancel(&ids).unwrap();
    let words = std::fs::read_to_string(fake.path("words")).unwrap();
    assert_eq!(words, "12 13\n--signal=USR1 --batch 12 13\n--name=n 12 13 14\n");
}
