//! `notices/`: each end that is told, its message, and on which ways it was sent. The holder of the claim writes it: before
//! a message is sent first, and after each try.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nemo_core::rundir::ExperimentDir;
use nemo_core::{checksum, durable, open};
use serde::{Deserialize, Serialize};

use super::message::NoticeMessage;
use crate::experiment::{Notify, shown_url};
use crate::humanize::count;

/// After so many seconds nobody tries again.
const GIVEN_UP: f64 = 3.0 * 86400.0;
/// For so long every `poll` tries again; later they do once in that time.
const EAGER: f64 = 3600.0;
/// Between the tries of jobs and runners, which come often: no node is kept for a server that is away.
const BETWEEN_FREQUENT: f64 = 300.0;

/// A way on which a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the definition")]
pub enum Way {
    Command,
    Url,
    Email,
}

impl Way {
    /// Those that a file asks for.
    pub fn of(notify: &Notify) -> impl Iterator<Item = Self> {
        let command = notify.command.as_ref().map(|_| Self::Command);
        let url = notify.url.as_ref().map(|_| Self::Url);
        let email = (!notify.email.is_empty()).then_some(Self::Email);
        command.into_iter().chain(url).chain(email)
    }

    /// For people, without what may be secret.
    #[must_use]
    pub fn shown(self, notify: &Notify) -> String {
        match self {
            Self::Command => "the command".to_owned(),
            Self::Url => notify.url.as_deref().map(shown_url).unwrap_or_default(),
            Self::Email => format!("mail to {}", notify.email.join(", ")),
        }
    }
}

/// What became of a message on one way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// When it was sent, in unix seconds.
    pub sent: Option<f64>,
    /// How often it was tried in vain.
    pub failures: u32,
    /// When it failed first.
    pub first: Option<f64>,
    /// When it failed last.
    pub last: Option<f64>,
    /// Why it failed last.
    pub error: Option<String>,
}

impl Delivery {
    /// Whether nobody tries again.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        let tried = self.last.zip(self.first).map(|(last, first)| last - first);
        self.sent.is_none() && tried.is_some_and(|tried| tried > GIVEN_UP)
    }

    /// Whether it is to be tried now. `is_frequent`: by somebody who comes every few seconds.
    #[must_use]
    pub fn is_due(&self, now: f64, is_frequent: bool) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return self.sent.is_none() };
        let is_eager = now - first < EAGER;
        let pause = match (is_eager, is_frequent) {
            (true, false) => 0.0,
            (true, true) => BETWEEN_FREQUENT,
            (false, _) => EAGER,
        };
        // A clock that went backwards keeps nobody waiting.
        let is_rested = now - last >= pause || now < last;
        self.sent.is_none() && !self.is_given_up() && is_rested
    }

    /// Writes down what came of a try.
    pub fn add(&mut self, tried: Result<(), String>, now: f64) {
        match tried {
            Ok(()) => self.sent = Some(now),
            Err(error) => {
                self.failures += 1;
                self.first = self.first.or(Some(now));
                self.last = Some(now);
                self.error = Some(error);
            }
        }
    }
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoticeRecord {
    /// What is told, the same at each try.
    pub message: NoticeMessage,
    /// What became of it, by way.
    pub deliveries: BTreeMap<Way, Delivery>,
}

impl NoticeRecord {
    /// Whether there is nothing left to send.
    #[must_use]
    pub fn is_settled(&self, notify: &Notify) -> bool {
        let is_done = |way| {
            let delivery = self.deliveries.get(&way);
            delivery.is_some_and(|delivery| delivery.sent.is_some() || delivery.is_given_up())
        };
        Way::of(notify).all(is_done)
    }

    /// The ways that are to be tried now.
    #[must_use]
    pub fn due(&self, notify: &Notify, now: f64, is_frequent: bool) -> Vec<Way> {
        let is_due = |way: &Way| {
            self.deliveries.get(way).is_none_or(|delivery| delivery.is_due(now, is_frequent))
        };
        Way::of(notify).filter(is_due).collect()
    }
}

/// What could not be sent, for people: a sentence for each way and cause, however many messages it kept back.
pub fn failures<'a>(
    records: impl Iterator<Item = &'a NoticeRecord>,
    notify: &Notify,
) -> Vec<String> {
    let mut ids: BTreeMap<(Way, &str, bool), Vec<&NoticeMessage>> = BTreeMap::new();
    for record in records {
        for (way, delivery) in record.deliveries.iter().filter(|(_, it)| it.sent.is_none()) {
            if let Some(error) = &delivery.error {
                let cause = (*way, error.as_str(), delivery.is_given_up());
                ids.entry(cause).or_default().push(&record.message);
            }
        }
    }
    let is_used: BTreeSet<Way> = Way::of(notify).collect();
    let all = ids.into_iter().filter(|((way, ..), _)| is_used.contains(way));
    all.map(|((way, error, is_given_up), messages)| {
        let (first, others) = (messages[0], messages.len() - 1);
        let what = match others {
            0 => format!("the notification `{}` was", first.id),
            others => {
                format!("the notification `{}` and {} were", first.id, count(others, "other"))
            }
        };
        let next = if is_given_up {
            "given up".to_owned()
        } else {
            format!("`nemo-slurm poll {}` tries again", first.experiment)
        };
        format!("{what} not sent by {}: {error}; {next}", way.shown(notify))
    })
    .collect()
}

/// What `notices/` holds.
#[derive(Debug, Default)]
pub struct NoticeRecords {
    /// By the names of their files.
    pub whole: BTreeMap<String, NoticeRecord>,
    /// Files that are not as they were written: what they tell is sent again.
    pub damaged: Vec<PathBuf>,
}

impl NoticeRecords {
    /// Reads them all.
    pub fn read(dir: &ExperimentDir) -> io::Result<Self> {
        let folder = dir.notices();
        open::refresh(&folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries?,
        };
        let mut records = Self::default();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            // Others are temporary, or not ours.
            if name.starts_with('.') || Path::new(&name).extension() != Some("json".as_ref()) {
                continue;
            }
            let path = folder.join(&name);
            match checksum::from_slice(&open::read(&path)?) {
                Ok(record) => drop(records.whole.insert(name, record)),
                Err(_) => records.damaged.push(path),
            }
        }
        Ok(records)
    }

    /// Writes one. It is durable when this returns.
    pub fn write(dir: &ExperimentDir, name: &str, record: &NoticeRecord) -> io::Result<()> {
        let folder = dir.notices();
        durable::create_dir_below(&dir.0, &folder)?;
        durable::replace_file_durably(&folder.join(name), &checksum::to_vec(record)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_and_given_up_after_days() {
        let mut delivery = Delivery::default();
        assert!(delivery.is_due(0.0, true));
        delivery.add(Err("no route".to_owned()), 1000.0);
        assert!(delivery.is_due(1000.5, false), "every poll tries again");
        assert!(!delivery.is_due(1000.5, true) && delivery.is_due(1300.0, true));
        delivery.add(Err("no route".to_owned()), 5000.0);
        assert!(!delivery.is_due(8000.0, false) && delivery.is_due(8600.0, false));
        assert!(delivery.is_due(10.0, false), "a clock that went backwards keeps nobody waiting");
        delivery.add(Err("no route".to_owned()), 1000.0 + 4.0 * 86400.0);
        assert!(delivery.is_given_up() && !delivery.is_due(1e9, false));
        let mut sent = Delivery::default();
        sent.add(Ok(()), 5.0);
        assert!(!sent.is_due(6.0, false) && !sent.is_given_up());
    }
    fn record(id: &str, error: &str) -> NoticeRecord {
        let message = serde_json::json!({
            "schema": 1, "id": id, "event": "failed", "experiment": "digits-1", "name": "digits", "target": "digits-1",
            "task": null, "trial": null, "generation": 0, "state": "failed", "time": 1.0, "subject": "", "text": "",
            "trials": {}, "errors": [], "repair": "", "dir": "",
        });
        let mut delivery = Delivery::default();
        delivery.add(Err(error.to_owned()), 1.0);
        let message = serde_json::from_value(message).unwrap();
        NoticeRecord { message, deliveries: [(Way::Email, delivery)].into() }
    }

    #[test]
    fn a_mailer_that_is_missing_is_told_once() {
        let records =
            [record("a", "no `sendmail`"), record("b", "no `sendmail`"), record("c", "refused")];
        let notify = Notify {
            on: Vec::new(),
            of: Vec::new(),
            command: None,
            url: None,
            email: vec!["me@site".to_owned()],
        };
        let way = Way::Email.shown(&notify);
        let again = "`nemo-slurm poll digits-1` tries again";
        let expected = [
            format!(
                "the notification `a` and 1 other were not sent by {way}: no `sendmail`; {again}"
            ),
            format!("the notification `c` was not sent by {way}: refused; {again}"),
        ];
        assert_eq!(failures(records.iter(), &notify), expected);
        let silent = Notify { email: Vec::new(), ..notify };
        assert!(
            failures(records.iter(), &silent).is_empty(),
            "who asks no more for mails hears no more"
        );
    }
}
