//! A program of several processes: `srun`, the shims that it starts, and their messages.
//!
//! The exit code of `srun` is ignored. If any rank crashes, all are ended, and the worst exit becomes the program's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::attempt::verdict::Exit;
use crate::job::harness::Harness;
use crate::os::clock::Time;
use crate::os::log::{Log, log_info};
use crate::os::subprocess;
use crate::program::output::ProgramOutput;
use crate::program::processes::{self, Pipes};
use crate::rank::devices;
use crate::rank::failed_rank::{CRASH, FailedRank, others_shown, severity};
use crate::rank::frame::{Decoder, FrameLine, RankMessage, answer};
use crate::rank::relay::{Relay, Relayed};

/// How long the other ranks may take to end by themselves after a crash: their last output may explain it.
const END_GRACE: Duration = Duration::from_secs(3);
/// The same if they may be saving.
const SAVE_GRACE: Duration = Duration::from_secs(30);
/// The time from TERM to KILL.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// How long `srun` may stay after the end of all ranks.
const SRUN_GRACE: Duration = Duration::from_secs(10);
/// How long `scancel` may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The state of one rank.
#[derive(Clone, Debug, Default)]
struct RankState {
    node: String,
    has_caught: bool,
    /// The GPUs that it sees, once it has said so.
    devices: Option<Vec<String>>,
    exit: Option<Exit>,
}

/// The next step of ending all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndStep {
    End,
    Kill,
    /// `srun` itself: TERM makes it kill what it started, and KILL ends it.
    Srun(Signal),
}

/// A program of several ranks.
#[derive(Debug)]
pub(crate) struct MultiRankProgram {
    pub(crate) srun: u32,
    ranks: BTreeMap<u32, RankState>,
    world_size: u32,
    /// Each rank was to have GPUs of its own, and not all have said yet which they see.
    checks_devices: bool,
    step: Option<String>,
    commands: Option<PipeWriter>,
    messages: ProgramOutput,
    stderr: ProgramOutput,
    last_error_line: Option<String>,
    decoder: Decoder,
    /// The ranks in which no process caught the signal of the open save request.
    without_handler: Option<BTreeSet<u32>>,
    requested_at: Option<Time>,
    next_step: Option<(Time, EndStep)>,
    /// The ranks that failed before any was told to end, in the order of their ends.
    failed_first: Vec<u32>,
    is_ending: bool,
    kills: u32,
    relay: Option<Relay>,
    /// News that came after the end and was not returned yet.
    unread_news: Vec<RankNews>,
}

/// News of a program on other nodes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RankNews {
    /// A line of rank 0's output.
    Line(String),
    /// Whether any process caught a save request.
    SaveRequested(bool),
    /// A message of one rank's program.
    Message(Relayed),
}

impl MultiRankProgram {
    /// Starts `srun` for `world_size` ranks.
    pub(crate) fn start(
        world_size: u32,
        checks_devices: bool,
        argv: &[OsString],
        env: &[(String, OsString)],
        relay: Option<Relay>,
    ) -> io::Result<Self> {
        let (read, commands) = io::pipe()?;
        fcntl(commands.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (messages, stdout_end) = ProgramOutput::read_only()?;
        let (stderr, stderr_end) = ProgramOutput::read_only()?;
        let pipes = Pipes { stdin: read.into(), stdout: stdout_end, stderr: stderr_end };
        let srun = processes::start_srun(argv, env, pipes)?;
        Ok(Self {
            srun,
            ranks: BTreeMap::new(),
            world_size,
            checks_devices,
            step: None,
            commands: Some(commands),
            messages,
            stderr,
            last_error_line: None,
            decoder: Decoder::default(),
            without_handler: None,
            requested_at: None,
            next_step: None,
            failed_first: Vec::new(),
            is_ending: false,
            kills: 0,
            relay,
            unread_news: Vec::new(),
        })
    }

    /// Tells each shim to write the state of its processes to a file.
    pub(crate) fn keep_evidence(&mut self) {
        self.send_command("evidence");
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = self.messages.pipe().into_iter().chain(self.stderr.pipe()).map(AsFd::as_fd);
        pipes.chain(self.relay.iter().flat_map(Relay::descriptors))
    }

    pub(crate) fn next_step_at(&self) -> Option<Time> {
        self.next_step.map(|(at, _)| at)
    }

    pub(crate) fn deliver(&mut self, message: &Relayed) {
        if let Some(relay) = &mut self.relay {
            relay.deliver(message);
        }
    }

    /// Asks all ranks to save. A shim whose program does not catch the signal yet tries again.
    pub(crate) fn ask(&mut self, signal: Signal, now: Time) {
        if self.without_handler.is_none() {
            self.without_handler = Some(BTreeSet::new());
            self.requested_at = Some(now);
            self.send_command(&format!("ask {signal}"));
        }
    }

    /// Tells all ranks to end. If shims don't react, `srun` gets the signals and ends the step.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.is_ending = true;
        self.next_step = None;
        if signal != Signal::SIGKILL {
            self.send_command("end");
            return;
        }
        self.kills += 1;
        match self.kills {
            1..=2 => self.send_command("kill"),
            3..=7 => drop(processes::signal(self.srun, Signal::SIGTERM)),
            _ => drop(processes::signal(self.srun, Signal::SIGKILL)),
        }
    }

    /// Sends a command to all shims. If the pipe is full, nobody has read for long, and only a KILL through `srun` helps.
    fn send_command(&mut self, order: &str) {
        if let Some(orders) = &mut self.commands {
            drop(orders.write_all(format!("{order}\n").as_bytes()));
        }
    }

    pub(crate) fn read_news(&mut self, now: Time, log: &mut Log) -> Vec<RankNews> {
        let mut heard = std::mem::take(&mut self.unread_news);
        let (mut messages, mut foreign) = (Vec::new(), Vec::new());
        let Self { decoder, .. } = self;
        self.messages.read(|line| match decoder.take(line) {
            FrameLine::Message(rank, message) => messages.push((rank, message)),
            FrameLine::Nothing => {}
            FrameLine::Foreign => foreign.push(line.to_owned()),
        });
        self.stderr.read(|line| foreign.push(line.to_owned()));
        for line in foreign {
            log_info(&line);
            self.last_error_line = Some(line);
        }
        for (rank, message) in messages {
            heard.extend(self.take(rank, message, now, log));
        }
        heard.extend(self.save_answer());
        for (rank, to, bytes) in self.relay.as_ref().map(Relay::answers).unwrap_or_default() {
            self.send_command(&answer(rank, to, &bytes));
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
            RankMessage::Devices(seen) => {
                let names = seen.split(',').filter(|name| !name.is_empty());
                rank.devices = Some(names.map(str::to_owned).collect());
                self.check_devices(log);
            }
            RankMessage::Failed { node, error } => {
                rank.node = node;
                self.rank_ended(number, &error.into(), now, log);
            }
            RankMessage::Exited(code) => self.rank_ended(number, &Exit::Code(code), now, log),
            RankMessage::Killed(signal) => self.rank_ended(number, &Exit::Signal(signal), now, log),
            RankMessage::Heard(true) => rank.has_caught = true,
            RankMessage::Heard(false) => {
                if let Some(deaf) = &mut self.without_handler {
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

    /// Says once what is wrong with the GPUs of the ranks, when all have said which they see.
    fn check_devices(&mut self, log: &mut Log) {
        let seen = |(number, rank): (&u32, &RankState)| {
            Some((*number, (rank.node.clone(), rank.devices.clone()?)))
        };
        let all: BTreeMap<u32, (String, Vec<String>)> =
            self.ranks.iter().filter_map(seen).collect();
        if !self.checks_devices || u32::try_from(all.len()) != Ok(self.world_size) {
            return;
        }
        self.checks_devices = false;
        if let Some(complaint) = devices::complaint(&all) {
            log.warn(&complaint);
        }
    }

    /// The answer to a save request: one rank caught it, or none did.
    fn save_answer(&mut self) -> Option<RankNews> {
        let deaf = self.without_handler.as_ref()?;
        let mut has_heard = false;
        for rank in self.ranks.values_mut() {
            has_heard |= std::mem::take(&mut rank.has_caught);
        }
        let all = (0..self.world_size).all(|number| {
            let rank = self.ranks.get(&number);
            deaf.contains(&number) || rank.is_some_and(|rank| rank.exit.is_some())
        });
        (has_heard || all).then(|| {
            self.without_handler = None;
            RankNews::SaveRequested(has_heard)
        })
    }

    fn rank_ended(&mut self, number: u32, exit: &Exit, now: Time, log: &mut Log) {
        let Some(rank) = self.ranks.get_mut(&number) else { return };
        if rank.exit.is_some() {
            return;
        }
        if *exit != Exit::Code(0) {
            log.note(&format!("rank {number} on {} {exit}", rank.node));
        }
        let is_crash = severity(exit) >= CRASH;
        rank.exit = Some(exit.clone());
        if *exit != Exit::Code(0) && !self.is_ending {
            self.failed_first.push(number);
        }
        if is_crash && self.next_step.is_none() && !self.is_ending {
            let saving = self.requested_at.map(|at| at + SAVE_GRACE);
            let at = saving.into_iter().chain([now + END_GRACE]).max().unwrap_or(now);
            self.next_step = Some((at, EndStep::End));
        }
        let ended = self.ranks.values().filter(|rank| rank.exit.is_some()).count();
        if u32::try_from(ended).is_ok_and(|ended| ended == self.world_size) {
            self.next_step = Some((now + SRUN_GRACE, EndStep::Srun(Signal::SIGTERM)));
        }
    }

    /// Does the next step if it is due.
    fn act(&mut self, now: Time, log: &mut Log) {
        let Some((_, due)) = self.next_step.filter(|(at, _)| *at <= now) else { return };
        match due {
            EndStep::End => {
                log.note("one rank failed: sending SIGTERM to the others");
                self.is_ending = true;
                self.send_command("end");
                self.next_step = Some((now + KILL_AFTER, EndStep::Kill));
            }
            EndStep::Kill => {
                log.note("killing the other ranks");
                self.send_command("kill");
                self.next_step = Some((now + SRUN_GRACE, EndStep::Srun(Signal::SIGTERM)));
            }
            EndStep::Srun(signal) => {
                processes::signal(self.srun, signal);
                self.next_step = Some((now + SRUN_GRACE, EndStep::Srun(Signal::SIGKILL)));
            }
        }
    }

    /// Reads the last messages after `srun` has ended, and kills what it left behind.
    pub(crate) fn ended(&mut self, harness: &Harness, log: &mut Log) -> (Exit, Option<FailedRank>) {
        for _ in 0..64 {
            let heard = self.read_news(harness.clock.now(), log);
            self.unread_news.extend(heard);
        }
        self.commands = None;
        self.next_step = None;
        let missing: Vec<u32> = (0..self.world_size)
            .filter(|number| self.ranks.get(number).is_none_or(|rank| rank.exit.is_none()))
            .collect();
        if !missing.is_empty()
            && let Some(step) = &self.step
        {
            // A killed `srun` leaves its tasks running.
            subprocess::ask(&["scancel", "--signal=KILL", step], &harness.clock, ANSWER);
        }
        if self.ranks.is_empty() {
            let word = self.last_error_line.clone().unwrap_or_else(|| "it said nothing".to_owned());
            return (Exit::NotStarted(format!("`srun` could not start the ranks: {word}")), None);
        }
        self.worst(&missing)
    }

    /// The worst exit. Of equal ones, the first.
    fn worst(&self, missing: &[u32]) -> (Exit, Option<FailedRank>) {
        let mut ends: Vec<(u32, Exit)> = Vec::new();
        let others = self.ranks.keys().filter(|number| !self.failed_first.contains(number));
        for number in self.failed_first.iter().chain(others) {
            let exit = self.ranks.get(number).and_then(|rank| rank.exit.clone());
            ends.extend(exit.map(|exit| (*number, exit)));
        }
        let lost = missing.iter().map(|&number| (number, Exit::Signal(Signal::SIGKILL as i32)));
        let all: Vec<(u32, Exit)> = ends.into_iter().chain(lost).collect();
        let worst_of = |is_meant: &dyn Fn(u32) -> bool| {
            let meant = all.iter().rev().filter(|(number, _)| is_meant(*number));
            meant.max_by_key(|(_, exit)| severity(exit))
        };
        // A rank that crashed by itself explains more than one that was told to end, or whose end is unknown.
        let by_itself = worst_of(&|number| self.failed_first.contains(&number));
        let crashed = by_itself.filter(|(_, exit)| severity(exit) >= CRASH);
        let worst = crashed.or_else(|| worst_of(&|_| true));
        let Some((rank, exit)) = worst.cloned() else {
            return (Exit::Signal(Signal::SIGKILL as i32), None);
        };
        let node = self.ranks.get(&rank).map_or(String::new(), |rank| rank.node.clone());
        let others = others_shown(&all, rank, missing);
        let lost = !missing.is_empty() && !self.is_ending;
        (exit, Some(FailedRank { rank, node, others, lost }))
    }
}
