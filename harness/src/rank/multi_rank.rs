//! A program of several processes: `srun`, the shims behind it, and what each of them has told.
//!
//! `srun`'s own exit code is not believed. One process's crash ends all, and the end of the worst is the program's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::attempt::verdict::{EXIT_NEVER, EXIT_REQUEUE, EXIT_RESTART, Exit};
use crate::job::harness::Harness;
use crate::os::clock::Time;
use crate::os::log::{Log, log_info};
use crate::os::subprocess;
use crate::program::output::OutputStream;
use crate::program::processes::{self, Pipes};
use crate::rank::frame::{Decoder, RankMessage, Read, answer};
use crate::rank::relay::{Relay, Relayed};

/// How long the others have to end by themselves when one has crashed: what they say last explains most.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same while they may be saving.
const SAVING: Duration = Duration::from_secs(30);
/// How long they have after TERM.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// How long `srun` may stay when all is over.
const SRUN: Duration = Duration::from_secs(10);
/// How long `scancel` may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How one rank stands.
#[derive(Clone, Debug, Default)]
struct RankState {
    node: String,
    heard: bool,
    end: Option<Exit>,
}

/// What is done next where one rank's end is to be all ranks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    End,
    Kill,
    /// `srun` itself: TERM makes it kill what it started, and KILL ends it.
    Srun(Signal),
}

/// The program.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) srun: u32,
    ranks: BTreeMap<u32, RankState>,
    of: u32,
    step: Option<String>,
    orders: Option<PipeWriter>,
    messages: OutputStream,
    words: OutputStream,
    last_word: Option<String>,
    decoder: Decoder,
    /// A request is open: these ranks have answered that nobody caught its signal.
    deaf: Option<BTreeSet<u32>>,
    asked_at: Option<Time>,
    due: Option<(Time, Due)>,
    /// In the order of their coming: who ended badly before anybody was told to end.
    culprits: Vec<u32>,
    told_to_end: bool,
    kills: u32,
    relay: Option<Relay>,
    /// What was heard after the end, and not taken yet.
    late: Vec<RankNews>,
}

/// What is heard of a program elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RankNews {
    /// A line of rank 0's output.
    Line(String),
    /// Whether a request to save reached anybody.
    Asked(bool),
    /// A message of one rank's program.
    Message(Relayed),
}

/// Whose end was the program's, where it has several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) rank: u32,
    pub(crate) node: String,
    /// How the others ended, for people.
    pub(crate) others: String,
    /// Some ranks' ends were seen by nobody, though nobody had told them to end: their node may be gone.
    pub(crate) lost: bool,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} on {}", self.rank, self.node)
    }
}

impl Launched {
    /// Starts `srun` for so many ranks.
    pub(crate) fn start(
        of: u32,
        argv: &[OsString],
        env: &[(String, OsString)],
        relay: Option<Relay>,
    ) -> io::Result<Self> {
        let (read, orders) = io::pipe()?;
        fcntl(orders.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (messages, stdout) = OutputStream::read_only()?;
        let (words, stderr) = OutputStream::read_only()?;
        let pipes = Pipes { stdin: read.into(), stdout, stderr };
        let srun = processes::start_srun(argv, env, pipes)?;
        Ok(Self {
            srun,
            ranks: BTreeMap::new(),
            of,
            step: None,
            orders: Some(orders),
            messages,
            words,
            last_word: None,
            decoder: Decoder::default(),
            deaf: None,
            asked_at: None,
            due: None,
            culprits: Vec::new(),
            told_to_end: false,
            kills: 0,
            relay,
            late: Vec::new(),
        })
    }

    /// Each shim writes down what the processes of its rank do.
    pub(crate) fn keep_evidence(&mut self) {
        self.order("evidence");
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = self.messages.pipe().into_iter().chain(self.words.pipe()).map(AsFd::as_fd);
        pipes.chain(self.relay.iter().flat_map(Relay::descriptors))
    }

    pub(crate) fn next_look(&self) -> Option<Time> {
        self.due.map(|(at, _)| at)
    }

    pub(crate) fn deliver(&mut self, message: &Relayed) {
        if let Some(relay) = &mut self.relay {
            relay.deliver(message);
        }
    }

    /// Asks all ranks to save. A shim whose program does not catch the signal yet goes on trying.
    pub(crate) fn ask(&mut self, signal: Signal, now: Time) {
        if self.deaf.is_none() {
            self.deaf = Some(BTreeSet::new());
            self.asked_at = Some(now);
            self.order(&format!("ask {signal}"));
        }
    }

    /// Tells all ranks to end. Who does not listen any more is ended through `srun`, which ends the step.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.told_to_end = true;
        self.due = None;
        if signal != Signal::SIGKILL {
            self.order("end");
            return;
        }
        self.kills += 1;
        match self.kills {
            1..=2 => self.order("kill"),
            3..=7 => drop(processes::signal(self.srun, Signal::SIGTERM)),
            _ => drop(processes::signal(self.srun, Signal::SIGKILL)),
        }
    }

    /// A full pipe means that nobody has listened for long: then only the kill through `srun` is left.
    fn order(&mut self, order: &str) {
        if let Some(orders) = &mut self.orders {
            drop(orders.write_all(format!("{order}\n").as_bytes()));
        }
    }

    pub(crate) fn look(&mut self, now: Time, log: &mut Log) -> Vec<RankNews> {
        let mut heard = std::mem::take(&mut self.late);
        let (mut messages, mut foreign) = (Vec::new(), Vec::new());
        let Self { decoder, .. } = self;
        self.messages.read(|line| match decoder.take(line) {
            Read::Message(rank, message) => messages.push((rank, message)),
            Read::Nothing => {}
            Read::Foreign => foreign.push(line.to_owned()),
        });
        self.words.read(|line| foreign.push(line.to_owned()));
        for line in foreign {
            log_info(&line);
            self.last_word = Some(line);
        }
        for (rank, message) in messages {
            heard.extend(self.take(rank, message, now, log));
        }
        heard.extend(self.asked());
        for (rank, to, bytes) in self.relay.as_ref().map(Relay::answers).unwrap_or_default() {
            self.order(&answer(rank, to, &bytes));
        }
        self.act(now, log);
        heard
    }

    fn take(
        &mut self,
        number: u32,
        message: RankMessage,
        now: Time,
        log: &mut Log,
    ) -> Option<RankNews> {
        let rank = self.ranks.entry(number).or_default();
        match message {
            RankMessage::Started { step, node } => {
                log.note(&format!("rank {number} runs on {node}"));
                rank.node = node;
                self.step = Some(step);
            }
            RankMessage::Failed { node, why } => {
                rank.node = node;
                self.rank_ended(number, &Exit::StartFailed(why), now, log);
            }
            RankMessage::Exited(code) => self.rank_ended(number, &Exit::Code(code), now, log),
            RankMessage::Killed(signal) => self.rank_ended(number, &Exit::Signal(signal), now, log),
            RankMessage::Heard(true) => rank.heard = true,
            RankMessage::Heard(false) => {
                if let Some(deaf) = &mut self.deaf {
                    deaf.insert(number);
                }
            }
            RankMessage::Datagram { from, bytes } => {
                return Some(RankNews::Message(Relayed { rank: number, from, bytes }));
            }
            RankMessage::Line(line) => {
                return Some(RankNews::Line(String::from_utf8_lossy(&line).into_owned()));
            }
        }
        None
    }

    /// The answer to a request, once one rank heard it or all are known to be deaf.
    fn asked(&mut self) -> Option<RankNews> {
        let deaf = self.deaf.as_ref()?;
        let mut has_heard = false;
        for rank in self.ranks.values_mut() {
            has_heard |= std::mem::take(&mut rank.heard);
        }
        let over = |number: &u32| self.ranks.get(number).is_some_and(|rank| rank.end.is_some());
        let all = (0..self.of).all(|number| deaf.contains(&number) || over(&number));
        (has_heard || all).then(|| {
            self.deaf = None;
            RankNews::Asked(has_heard)
        })
    }

    fn rank_ended(&mut self, number: u32, exit: &Exit, now: Time, log: &mut Log) {
        let Some(rank) = self.ranks.get_mut(&number) else { return };
        if rank.end.is_some() {
            return;
        }
        if *exit != Exit::Code(0) {
            log.note(&format!("rank {number} on {} {exit}", rank.node));
        }
        let is_crash = severity(exit) >= CRASH;
        rank.end = Some(exit.clone());
        if *exit != Exit::Code(0) && !self.told_to_end {
            self.culprits.push(number);
        }
        if is_crash && self.due.is_none() && !self.told_to_end {
            let saving = self.asked_at.map(|at| at + SAVING);
            let at = saving.into_iter().chain([now + PATIENCE]).max().unwrap_or(now);
            self.due = Some((at, Due::End));
        }
        let ended = self.ranks.values().filter(|rank| rank.end.is_some()).count();
        if u32::try_from(ended).is_ok_and(|ended| ended == self.of) {
            self.due = Some((now + SRUN, Due::Srun(Signal::SIGTERM)));
        }
    }

    /// Does what is due.
    fn act(&mut self, now: Time, log: &mut Log) {
        let Some((_, due)) = self.due.filter(|(at, _)| *at <= now) else { return };
        match due {
            Due::End => {
                log.note("one rank's end is all ranks' end: the others are told to end (SIGTERM)");
                self.told_to_end = true;
                self.order("end");
                self.due = Some((now + KILL_AFTER, Due::Kill));
            }
            Due::Kill => {
                log.note("the other ranks are killed");
                self.order("kill");
                self.due = Some((now + SRUN, Due::Srun(Signal::SIGTERM)));
            }
            Due::Srun(signal) => {
                processes::signal(self.srun, signal);
                self.due = Some((now + SRUN, Due::Srun(Signal::SIGKILL)));
            }
        }
    }

    /// `srun` is gone: what the shims told last is read, and what it left behind is ended.
    pub(crate) fn ended(&mut self, harness: &Harness, log: &mut Log) -> (Exit, Option<Who>) {
        for _ in 0..64 {
            let heard = self.look(harness.clock.now(), log);
            self.late.extend(heard);
        }
        self.orders = None;
        self.due = None;
        let missing: Vec<u32> = (0..self.of)
            .filter(|number| self.ranks.get(number).is_none_or(|rank| rank.end.is_none()))
            .collect();
        if !missing.is_empty()
            && let Some(step) = &self.step
        {
            // A killed `srun` leaves its tasks behind.
            subprocess::ask(&["scancel", "--signal=KILL", step], &harness.clock, ANSWER);
        }
        if self.ranks.is_empty() {
            let word = self.last_word.clone().unwrap_or_else(|| "it said nothing".to_owned());
            return (Exit::NotStarted(format!("`srun` could not start the ranks: {word}")), None);
        }
        self.worst(&missing)
    }

    /// The worst end; of equals, the first to come.
    fn worst(&self, missing: &[u32]) -> (Exit, Option<Who>) {
        let ended = |number: &u32| self.ranks.get(number).and_then(|rank| rank.end.clone());
        let mut ends: Vec<(u32, Exit)> = Vec::new();
        let others = self.ranks.keys().filter(|number| !self.culprits.contains(number));
        for number in self.culprits.iter().chain(others) {
            ends.extend(ended(number).map(|exit| (*number, exit)));
        }
        let lost = missing.iter().map(|&number| (number, Exit::Signal(Signal::SIGKILL as i32)));
        let all: Vec<(u32, Exit)> = ends.into_iter().chain(lost).collect();
        let worst_of = |is_meant: &dyn Fn(u32) -> bool| {
            let meant = all.iter().rev().filter(|(number, _)| is_meant(*number));
            meant.max_by_key(|(_, exit)| severity(exit))
        };
        // Who crashed by itself explains more than who was told to end, and than whose end nobody saw.
        let by_itself = worst_of(&|number| self.culprits.contains(&number));
        let crashed = by_itself.filter(|(_, exit)| severity(exit) >= CRASH);
        let worst = crashed.or_else(|| worst_of(&|_| true));
        let Some((rank, exit)) = worst.cloned() else {
            return (Exit::Signal(Signal::SIGKILL as i32), None);
        };
        let node = self.ranks.get(&rank).map_or(String::new(), |rank| rank.node.clone());
        let others = others_shown(&all, rank, missing);
        let lost = !missing.is_empty() && !self.told_to_end;
        (exit, Some(Who { rank, node, others, lost }))
    }
}

/// From here on an end is a crash.
const CRASH: u8 = 2;

/// How bad an end is. Success and what was agreed upon are the mildest.
fn severity(exit: &Exit) -> u8 {
    match exit {
        Exit::Code(0) => 0,
        Exit::Code(EXIT_RESTART | EXIT_REQUEUE) => 1,
        Exit::Code(EXIT_NEVER) => 4,
        Exit::StartFailed(_) | Exit::NotStarted(_) => 3,
        // An abort in a library is often but the answer to another rank's exit: which came first tells more.
        Exit::Code(_) | Exit::Signal(_) => CRASH,
    }
}

/// The other ranks by their ends: `ranks 0, 2: code 1; rank 3: lost`.
fn others_shown(all: &[(u32, Exit)], worst: u32, missing: &[u32]) -> String {
    let mut by_end: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (number, exit) in all.iter().filter(|(number, _)| *number != worst) {
        let end = match exit {
            _ if missing.contains(number) => "lost".to_owned(),
            Exit::Code(code) => format!("code {code}"),
            Exit::Signal(signal) => format!("signal {signal}"),
            Exit::StartFailed(_) | Exit::NotStarted(_) => "not started".to_owned(),
        };
        by_end.entry(end).or_default().push(*number);
    }
    let group = |(end, mut numbers): (String, Vec<u32>)| {
        numbers.sort_unstable();
        let shown: Vec<String> = numbers.iter().take(8).map(ToString::to_string).collect();
        let more = if numbers.len() > 8 { " …" } else { "" };
        let word = if numbers.len() == 1 { "rank" } else { "ranks" };
        format!("{word} {}{more}: {end}", shown.join(", "))
    };
    by_end.into_iter().map(group).collect::<Vec<_>>().join("; ")
}
