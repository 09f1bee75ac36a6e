//! Sends the notifications of an experiment that are due: by `poll`, by a job at its end through it, and by the local
//! runner. Under a claim, so that two of them never send the same one.
//!
//! A message is written down before it is sent first, and what came of it after each try: whoever is killed in between
//! leaves it to the next one, which sends the same message with the same id.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::retry::automatic;
use super::{App, control};
use crate::clock;
use crate::error::{CommandError, IoResultExt};
use crate::experiment::Notify;
use crate::notify::{self, Notice, NoticeRecord, NoticeRecords, Way};
use crate::report::say;
use crate::status::{Status, TrialStatus};
use crate::store::claim::{self, ClaimKind};
use crate::store::{Claim, ClaimError, Home, Stored, TakeOver, require_safe};
use crate::trial_error;

/// No message is tried after so many seconds of one pass, of however many experiments: a job does not keep its node for a
/// server that is away.
const MAX_SECONDS_OF_PASS: f64 = 25.0;
/// How often a message is posted to a webhook before it is left to the next run.
const TRIES: u32 = 3;

/// One message that was tried.
pub(super) struct Tried {
    pub(super) record: NoticeRecord,
    /// The ways on which it was sent now, for people.
    pub(super) sent: Vec<String>,
    /// What failed, for people.
    pub(super) failed: Vec<String>,
}

/// Whether something is left to tell, now or later: then nobody may forget the experiment.
pub(super) fn are_open(stored: &Stored, status: &Status) -> Result<bool, CommandError> {
    let Some(notify) = &stored.experiment.notify else { return Ok(false) };
    let records = read(stored)?;
    let is_settled = |record: &NoticeRecord| record.is_settled(notify);
    let is_told = |notice: &Notice| records.whole.get(&notice.file_name()).is_some_and(is_settled);
    let all = notices(stored, notify, status)?;
    Ok(!all.iter().all(is_told) || !records.whole.values().all(is_settled))
}

/// Whether there is something to tell that nobody has begun to tell: then the status must be of all folders.
pub(super) fn has_new(stored: &Stored, status: &Status) -> Result<bool, CommandError> {
    let Some(notify) = &stored.experiment.notify else { return Ok(false) };
    let known = read(stored)?;
    let all = notices(stored, notify, status)?;
    Ok(!all.iter().all(|notice| known.whole.contains_key(&notice.file_name())))
}

/// What could not be sent so far.
pub(super) fn failures(stored: &Stored) -> Result<Vec<String>, CommandError> {
    let Some(notify) = &stored.experiment.notify else { return Ok(Vec::new()) };
    let records = read(stored)?;
    Ok(notify::failures(records.whole.values(), notify))
}

/// What was told, as `show --json` shows it.
pub(super) fn sent_json(stored: &Stored) -> Result<Value, CommandError> {
    let one = |record: &NoticeRecord| {
        let message = &record.message;
        json!({
            "id": message.id, "event": message.event, "task": message.task, "trial": message.trial,
            "time": message.time, "subject": message.subject, "deliveries": record.deliveries,
        })
    };
    Ok(read(stored)?.whole.values().map(one).collect())
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// `poll`, as a person or cron runs it.
    Poll,
    /// A job or a runner, which come often.
    Frequent,
}

impl Sender {
    /// Who runs `poll`.
    pub(super) fn of_poll(app: &App) -> Self {
        if app.variable("SLURM_JOB_ID").is_some() { Self::Frequent } else { Self::Poll }
    }
}

/// Until when messages of this pass are tried, in unix seconds.
pub(super) fn deadline() -> f64 {
    clock::now() + MAX_SECONDS_OF_PASS
}

/// Sends what is due until the deadline. Nothing while another process does.
pub(super) fn send_due(
    home: &Home,
    stored: &Stored,
    status: &Status,
    (sender, deadline): (Sender, f64),
) -> Result<Vec<Tried>, CommandError> {
    let Some(notify) = &stored.experiment.notify else { return Ok(Vec::new()) };
    let is_frequent = sender == Sender::Frequent;
    let all = notices(stored, notify, status)?;
    let known = read(stored)?;
    let is_new = |notice: &Notice| !known.whole.contains_key(&notice.file_name());
    if !all.iter().any(is_new) && due(&known, notify, is_frequent).is_empty() {
        return Ok(Vec::new());
    }
    let taken = claim::take(&stored.dir, ClaimKind::Notices, TakeOver::FromTheDead, &|_| ());
    let claim = match taken {
        Ok(claim) => claim,
        Err(ClaimError::Held { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    // Another process may have told some of them meanwhile.
    let mut records = read(stored)?;
    write_new((stored, &claim), status, all, &mut records)?;
    let mut tried = Vec::new();
    for (name, ways) in due(&records, notify, is_frequent) {
        let Some(mut record) = records.whole.remove(&name) else { continue };
        let (mut sent, mut failed) = (Vec::new(), Vec::new());
        for way in ways {
            if clock::now() > deadline {
                break;
            }
            if let Some(why) = refusal(home, way) {
                // That it was not tried here is no failure of it: a node may see the home otherwise than a login node.
                failed.extend((!is_frequent).then(|| not_tried(&record, notify, way, &why)));
                continue;
            }
            claim.check()?;
            let outcome = deliver(stored, notify, &record, way, deadline);
            sent.extend(outcome.is_ok().then(|| way.shown(notify)));
            record.deliveries.entry(way).or_default().add(outcome, clock::now());
            keep(stored, &claim, &name, &record)?;
        }
        failed.extend(notify::failures(std::iter::once(&record), notify));
        tried.push(Tried { record, sent, failed });
    }
    Ok(tried)
}

/// What [`send_due`] would send.
pub(super) fn dry_run(
    home: &Home,
    stored: &Stored,
    status: &Status,
    sender: Sender,
) -> Result<Vec<Tried>, CommandError> {
    let Some(notify) = &stored.experiment.notify else { return Ok(Vec::new()) };
    let mut records = read(stored)?;
    let all = notices(stored, notify, status)?;
    add_new(stored, status, all, &mut records);
    let mut tried = Vec::new();
    for (name, ways) in due(&records, notify, sender == Sender::Frequent) {
        let Some(record) = records.whole.remove(&name) else { continue };
        let (mut sent, mut failed) = (Vec::new(), Vec::new());
        for way in ways {
            match refusal(home, way) {
                Some(why) => failed.push(not_tried(&record, notify, way, &why)),
                None => sent.push(way.shown(notify)),
            }
        }
        tried.push(Tried { record, sent, failed });
    }
    Ok(tried)
}

/// Why a message may not be sent on this way from here. Whoever may write to the home could have the command be another one;
/// others only read what they send.
fn refusal(home: &Home, way: Way) -> Option<String> {
    let unsafe_home = || require_safe(home).err().map(|why| CommandError::from(why).one_line());
    if way == Way::Command { unsafe_home() } else { None }
}

fn not_tried(record: &NoticeRecord, notify: &Notify, way: Way, why: &str) -> String {
    let (id, shown) = (&record.message.id, way.shown(notify));
    format!("the notification `{id}` was not sent by {shown}: {why}")
}

/// The records whose messages are to be tried now, and on which ways.
fn due(records: &NoticeRecords, notify: &Notify, is_frequent: bool) -> BTreeMap<String, Vec<Way>> {
    let now = clock::now();
    let of = |(name, record): (&String, &NoticeRecord)| {
        let ways = record.due(notify, now, is_frequent);
        (!ways.is_empty()).then(|| (name.clone(), ways))
    };
    records.whole.iter().filter_map(of).collect()
}

fn deliver(
    stored: &Stored,
    notify: &Notify,
    record: &NoticeRecord,
    way: Way,
    deadline: f64,
) -> Result<(), String> {
    let workdir = &stored.experiment.workdir;
    let once = || notify::deliver(way, notify, &record.message, workdir);
    let mut outcome = once();
    // A command may have done its work before it failed, and a mailer has a queue of its own.
    let tries = if way == Way::Url { TRIES } else { 1 };
    for n in 1..tries {
        if outcome.is_ok() || clock::now() > deadline {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(u64::from(n)));
        outcome = once();
    }
    outcome
}

fn notices(stored: &Stored, notify: &Notify, status: &Status) -> Result<Vec<Notice>, CommandError> {
    let due = automatic::due_trials(stored, status)?;
    let mut all = notify::notices((&stored.experiment, notify), &stored.journal, status, &due);
    if stored.experiment.has_budget() {
        all.extend(notify::spent_budgets(notify, &control::requests(stored)?));
    }
    Ok(all)
}

/// Writes down what nobody has begun to tell.
fn write_new(
    (stored, claim): (&Stored, &Claim),
    status: &Status,
    all: Vec<Notice>,
    records: &mut NoticeRecords,
) -> Result<(), CommandError> {
    for name in add_new(stored, status, all, records) {
        if let Some(record) = records.whole.get(&name) {
            keep(stored, claim, &name, record)?;
        }
    }
    Ok(())
}

/// Adds what nobody has begun to tell, and returns the names. What failed is read once for all of it.
fn add_new(
    stored: &Stored,
    status: &Status,
    mut new: Vec<Notice>,
    records: &mut NoticeRecords,
) -> Vec<String> {
    new.retain(|notice| !records.whole.contains_key(&notice.file_name()));
    if new.is_empty() {
        return Vec::new();
    }
    let meant: BTreeSet<(Option<&str>, Option<u32>)> =
        new.iter().map(|notice| (notice.task.as_deref(), notice.trial)).collect();
    let is_meant = |task: &str, trial: &TrialStatus| {
        meant.contains(&(None, None))
            || meant.contains(&(Some(task), None))
            || meant.contains(&(Some(task), Some(trial.index)))
    };
    let mut status = status.clone();
    trial_error::set_errors_of(&mut status, stored, &is_meant);
    for notice in &new {
        let message = notify::message(stored, &status, notice, clock::now());
        let record = NoticeRecord { message, deliveries: BTreeMap::new() };
        records.whole.insert(notice.file_name(), record);
    }
    new.iter().map(Notice::file_name).collect()
}

fn keep(
    stored: &Stored,
    claim: &Claim,
    name: &str,
    record: &NoticeRecord,
) -> Result<(), CommandError> {
    claim.check()?;
    let path = stored.dir.notices().join(name);
    Ok(NoticeRecords::write(&stored.dir, name, record).at("write", &path)?)
}

fn read(stored: &Stored) -> Result<NoticeRecords, CommandError> {
    let records = NoticeRecords::read(&stored.dir).at("read", &stored.dir.notices())?;
    for path in &records.damaged {
        say(&format!("warning: `{}` is damaged: what it says is sent again", path.display()));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_command_needs_a_safe_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let open_to_all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open_to_all).unwrap();
        assert!(refusal(&home, Way::Command).is_some());
        assert_eq!((refusal(&home, Way::Url), refusal(&home, Way::Email)), (None, None));
    }
}
