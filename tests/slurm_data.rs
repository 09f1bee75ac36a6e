//! The parsers against what real Slurms printed, the oldest and newest that packages exist for: every line of every file is accounted for.
#![expect(clippy::unwrap_used, reason = "the helpers of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use nemo_slurm::slurm::parse::time::Limit;
use nemo_slurm::slurm::parse::tres::Tres;
use nemo_slurm::slurm::parse::{account, config, id, job, partition, queue, submit};
use nemo_slurm::slurm::{AccountRow, JobState, QueueRow, ShownId, SlurmError, Tasks};

/// The versions in `tests/data`, by `scripts/capture-slurm`.
const VERSIONS: [&str; 3] = ["22.05", "24.11", "26.05"];

/// What one version of Slurm printed.
struct Capture {
    version: &'static str,
    folder: PathBuf,
}

/// Runs a check on every version's outputs.
#[track_caller]
fn on_each(check: impl Fn(&Capture)) {
    for version in VERSIONS {
        println!("Slurm {version}");
        let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        check(&Capture { version, folder: data.join(format!("slurm-{version}")) });
    }
}

impl Capture {
    fn read(&self, name: &str) -> Vec<u8> {
        let path = self.folder.join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The names of the captured outputs that begin so.
    fn outputs(&self, start: &str) -> Vec<String> {
        let names = std::fs::read_dir(&self.folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with(start) && !name.contains(".err")).collect();
        names.sort();
        names
    }

    fn queue_rows(&self, name: &str) -> BTreeMap<String, QueueRow> {
        let parsed = queue::parse(&self.read(name));
        assert_eq!(parsed.unread, [], "{name}");
        parsed.rows.into_iter().map(|row| (shown(row.array_job, &row.tasks), row)).collect()
    }
}

fn lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

fn shown(job: nemo_slurm::slurm::JobId, tasks: &Tasks) -> String {
    ShownId { job, tasks: tasks.clone(), step: None }.to_string()
}

#[test]
fn every_row_of_our_queue_questions_is_read_and_printed_back() {
    on_each(every_row_of_our_queue_questions_is_read_and_printed_back_on);
}

fn every_row_of_our_queue_questions_is_read_and_printed_back_on(slurm: &Capture) {
    let ours = ["early", "preempting", "clusters", "by-name", "late", "node-lost", "emptied"];
    for name in ours.map(|kind| format!("queue-{kind}.out")) {
        let output = slurm.read(&name);
        let rows = slurm.queue_rows(&name);
        let printed: Vec<String> = output
            .split(|byte| *byte == b'\n')
            .filter(|line| line.contains(&queue::DELIMITER))
            .map(|line| {
                String::from_utf8_lossy(
                    line.split(|byte| *byte == queue::DELIMITER).next().unwrap(),
                )
                .into_owned()
            })
            .collect();
        assert_eq!(rows.len(), printed.len(), "{name}");
        assert!(!rows.is_empty(), "{name}");
        for id in printed {
            assert!(rows.contains_key(&id), "{name}: {id}");
        }
        assert!(rows.values().all(|row| row.state.phase() != nemo_slurm::slurm::JobPhase::Unknown));
    }
}

#[test]
fn every_row_of_our_account_questions_is_read() {
    on_each(every_row_of_our_account_questions_is_read_on);
}

fn every_row_of_our_account_questions_is_read_on(slurm: &Capture) {
    for kind in ["early", "by-name", "late", "node-lost", "emptied"] {
        let name = format!("account-{kind}.out");
        let output = slurm.read(&name);
        let parsed = account::parse(&output);
        assert_eq!((parsed.rows.len(), parsed.unread.len()), (lines(&output), 0), "{name}");
    }
    // A job that never became eligible is in no answer about a name.
    assert_eq!(slurm.read("account-by-name-held.out"), b"");
}

#[test]
fn tables_for_people_are_no_rows_but_none_of_their_lines_is_lost() {
    on_each(tables_for_people_are_no_rows_but_none_of_their_lines_is_lost_on);
}

fn tables_for_people_are_no_rows_but_none_of_their_lines_is_lost_on(slurm: &Capture) {
    for name in
        ["queue-default.out", "account-default.out", "queue-one-by-one.out", "helpformat.out"]
    {
        let output = slurm.read(name);
        let parsed = queue::parse(&output);
        assert_eq!((parsed.rows.len(), parsed.unread.len()), (0, lines(&output)), "{name}");
        let parsed = account::parse(&output);
        assert_eq!((parsed.rows.len(), parsed.unread.len()), (0, lines(&output)), "{name}");
    }
}

#[test]
fn the_story_of_the_captured_jobs_is_understood() {
    on_each(the_story_of_the_captured_jobs_is_understood_on);
}

fn the_story_of_the_captured_jobs_is_understood_on(slurm: &Capture) {
    let queue = slurm.queue_rows("queue-preempting.out");
    // Newer versions leave the reason in the row of a job that was cancelled while it waited.
    let waits = |row: &&QueueRow| row.state == JobState::Pending;
    let by_reason = |reason: &str| queue.values().filter(waits).find(|row| &*row.reason == reason);
    for reason in
        ["JobArrayTaskLimit", "DependencyNeverSatisfied", "Dependency", "BeginTime", "JobHeldUser"]
    {
        assert!(by_reason(reason).is_some(), "no row waits for {reason}");
    }
    assert!(queue.values().any(|row| row.tasks == Tasks::Component(1)));

    let late = account::parse(&slurm.read("account-late.out")).rows;
    let has = |state: JobState| {
        late.iter().filter(|row| row.state == state).collect::<Vec<&AccountRow>>()
    };
    assert_eq!(has(JobState::Timeout)[0].exit.code, 0, "a time-out shows no exit code");
    assert!(has(JobState::Cancelled).iter().all(|row| row.cancelled_by == Some(0)));
    assert!(has(JobState::Failed).iter().any(|row| row.exit.signal == 9));
    assert!(has(JobState::Failed).iter().any(|row| row.exit.code == 7));
    let first = has(JobState::Requeued)[0];
    let is_same = |row: &AccountRow| (row.array_job, &row.tasks) == (first.array_job, &first.tasks);
    assert!(late.iter().any(|row| is_same(row) && row.submit > first.submit));
    assert!(!has(JobState::Preempted).is_empty(), "the preempted attempt is kept");
}

#[test]
fn lists_that_slurm_cut_short_hold_only_what_is_certain() {
    on_each(lists_that_slurm_cut_short_hold_only_what_is_certain_on);
}

fn lists_that_slurm_cut_short_hold_only_what_is_certain_on(slurm: &Capture) {
    let names = slurm.outputs("ids-cut-at-");
    assert!(names.len() >= 7);
    let whole: Vec<u32> =
        [1, 10, 200, 300, 777].into_iter().chain((900..=950).step_by(10)).collect();
    for name in names {
        for line in String::from_utf8(slurm.read(&name)).unwrap().lines() {
            let id: ShownId = line.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            let Tasks::Set(set) = &id.tasks else { continue };
            assert_eq!(set.cut_short, line.contains("..."), "{name}: {line}");
            if line.contains("%4") {
                assert!(set.indices.iter().all(|index| whole.contains(&index)), "{name}: {line}");
            }
        }
    }
}

#[test]
fn a_cancelled_array_may_have_a_row_without_tasks() {
    on_each(a_cancelled_array_may_have_a_row_without_tasks_on);
}

fn a_cancelled_array_may_have_a_row_without_tasks_on(slurm: &Capture) {
    let queue = queue::parse(&slurm.read("queue-emptied.out")).rows;
    let shown = job::parse(&slurm.read("show-emptied.out")).rows;
    let tasks = [
        queue.iter().map(|row| &row.tasks).collect::<Vec<_>>(),
        shown.iter().map(|row| &row.tasks).collect(),
    ];
    for tasks in tasks {
        let whole = tasks.iter().filter(|tasks| **tasks == &Tasks::NotAnArray);
        assert_eq!((whole.count(), tasks.len()), (1, 5));
    }
    let account = account::parse(&slurm.read("account-emptied.out")).rows;
    assert!(account.iter().all(|row| row.state == JobState::Cancelled), "{account:?}");
    let of_all = account.iter().find(|row| !matches!(row.tasks, Tasks::One(_))).unwrap();
    if slurm.version == "22.05" {
        assert_eq!((account.len(), &of_all.tasks), (5, &Tasks::NotAnArray));
    } else {
        // One row names all of its tasks.
        let Tasks::Set(set) = &of_all.tasks else { panic!("{of_all:?}") };
        assert_eq!((account.len(), set.indices.to_string()), (1, "0-3,7,9".to_owned()));
    }
}

#[test]
fn limits_partitions_and_submissions_are_read() {
    on_each(limits_partitions_and_submissions_are_read_on);
}

fn limits_partitions_and_submissions_are_read_on(slurm: &Capture) {
    let limits = config::parse(&slurm.read("config.out")).unwrap();
    assert_eq!((limits.max_array_size, limits.max_array_tasks), (1001, Some(1001)));
    assert_eq!((limits.kill_wait, limits.min_job_age, limits.cred_expire), (5, 60, 5));
    assert!(limits.preempt_user_signal && limits.accounting && limits.job_requeue);
    assert!(limits.version.starts_with(slurm.version), "{}", limits.version);
    assert_eq!(limits.preempt_mode, "REQUEUE");
    assert_eq!(limits.preempt_type, "preempt/partition_prio");
    let partitions = partition::parse(&slurm.read("partitions.out"));
    assert_eq!((partitions.rows.len(), partitions.unread.len()), (3, 0));
    let scavenge = &partitions.rows[1];
    assert_eq!((scavenge.name.as_str(), scavenge.grace_time), ("scavenge", 20));
    assert_eq!(
        (scavenge.max_time, scavenge.default_time),
        (Limit::Unlimited, Limit::Seconds(3600))
    );
    assert!(submit::parse(&slurm.read("submit-ok.out")).is_some());
    assert!(submit::parse(&slurm.read("submit-cluster.out")).is_some());
}

#[test]
fn jobs_are_shown_whatever_their_names_hold() {
    on_each(jobs_are_shown_whatever_their_names_hold_on);
}

fn jobs_are_shown_whatever_their_names_hold_on(slurm: &Capture) {
    for name in ["preempting", "array", "hetero", "named", "requeued", "emptied"] {
        let parsed = job::parse(&slurm.read(&format!("show-{name}.out")));
        assert_eq!(parsed.unread, [], "{name}");
        assert!(!parsed.rows.is_empty(), "{name}");
    }
    let named = job::parse(&slurm.read("show-named.out")).rows;
    assert_eq!((named.len(), &named[0].state), (1, &JobState::Running));
    let preempting = &job::parse(&slurm.read("show-preempting.out")).rows[0];
    assert!(preempting.preempted.is_some() && preempting.end > preempting.preempted);
    assert_eq!(job::parse(&slurm.read("show-requeued.out")).rows[0].restarts, 1);
    let hetero = job::parse(&slurm.read("show-hetero.out")).rows;
    assert_eq!(hetero.len(), 2);
    assert!(hetero.iter().all(|row| row.array_job == hetero[0].job), "{hetero:?}");
}

#[test]
fn times_and_resources_are_read() {
    on_each(times_and_resources_are_read_on);
}

fn times_and_resources_are_read_on(slurm: &Capture) {
    let text = String::from_utf8(slurm.read("limits-times.out")).unwrap();
    for line in text.lines() {
        let mut words = line.split(' ');
        words.next().unwrap().parse::<ShownId>().unwrap();
        for word in words {
            word.parse::<Limit>().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    assert!(text.contains("1-02:04:00"));
    for line in String::from_utf8(slurm.read("account-steps.out")).unwrap().lines() {
        let fields: Vec<&str> = line.split('|').collect();
        fields[0].parse::<ShownId>().unwrap_or_else(|error| panic!("{line}: {error}"));
        id::whole(id::shown, fields[1].as_bytes()).unwrap();
        for tres in [fields[3], fields[4]] {
            assert_eq!(tres.parse::<Tres>().unwrap().to_string(), tres);
        }
    }
}

#[test]
fn errors_are_sorted_by_slurms_own_words() {
    on_each(errors_are_sorted_by_slurms_own_words_on);
}

fn errors_are_sorted_by_slurms_own_words_on(slurm: &Capture) {
    let check = |file: &str, program: &'static str, want: &str, no_answer: bool| {
        let stderr = slurm.read(&format!("{file}.err"));
        let text = String::from_utf8_lossy(&stderr);
        let (said, code) = text.trim_end().rsplit_once("exit ").unwrap();
        let error = SlurmError::from_output(program, said.as_bytes(), code.parse().ok());
        let kind = format!("{error:?}");
        assert!(kind.starts_with(want), "{file}: {kind}");
        assert_eq!(error.is_no_answer(), no_answer, "{file}");
    };
    for (file, program) in [
        ("submit", "sbatch"),
        ("queue", "squeue"),
        ("config", "scontrol"),
        ("hold", "scontrol"),
        ("cancel", "scancel"),
    ] {
        check(&format!("no-controller-{file}"), program, "ControllerDown", true);
    }
    check("no-database-account", "sacct", "AccountingDown", true);
    check("no-accounting-account", "sacct", "AccountingOff", false);
    check("unknown-field-account", "sacct", "UnknownField", false);
    check("unknown-field-queue", "squeue", "UnknownField", false);
    for refusal in ["partition", "array", "option", "script", "dependency"] {
        check(&format!("refused-{refusal}"), "sbatch", "Refused", false);
    }
    for file in ["hold-finished", "requeue-pending", "unknown-job-hold", "unknown-job-show"] {
        check(file, "scontrol", "Refused", false);
    }
    check("unknown-job-queue", "squeue", "Refused", false);
    let stderr = slurm.read("hold-finished.err");
    let said = String::from_utf8_lossy(&stderr).replace("exit 1\n", "");
    let error = SlurmError::from_output("scontrol", said.as_bytes(), Some(1));
    let SlurmError::Refused { reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.starts_with("Job has already finished for job "), "{reason}");
    assert!(!reason.contains("slurm_suspend"), "{reason}");
}
