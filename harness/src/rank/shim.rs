//! The shim's loop: runs one program, reports to the harness, and leaves no process behind.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Stdin, Stdout};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::UnixAddr;

use super::ExecOptions;
use super::devices;
use super::frame::{RankMessage, encode, read_answer};
use super::identity::{self, Rank};
use crate::attempt::start_error::StartError;
use crate::job::context;
use crate::job::trial::with_path;
use crate::monitor::watchdog;
use crate::os::clock::{Clock, Time};
use crate::os::log::log_stderr;
use crate::os::proc_fs;
use crate::os::serial_queue::SerialQueue;
use crate::os::signals;
use crate::program::ask::SaveSignal;
use crate::program::output::{self, ProgramOutput};
use crate::program::output_times::OutputClock;
use crate::program::processes::{self, ProcessStart};
use crate::program::scratch::{self, Scratch};
use crate::program::usage::UsageSampler;
use crate::protocol::Socket;

/// How often the save signal is sent again if no process caught it.
const RETRY: Duration = Duration::from_secs(1);
/// How long the harness may take to read the last messages.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How much may wait for the harness. Beyond that, lines of output are dropped.
const BACKLOG: usize = 1024 * 1024;
/// How often the output is polled while the disk can't take earlier output.
const FULL: Duration = Duration::from_millis(50);
/// How many messages are read before other events are handled.
const MESSAGES: usize = 1024;
/// How many senders can be answered.
const SENDERS: usize = 256;

/// A command of the harness, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ShimCommand {
    /// Ask the program to save, by this signal.
    Ask(Signal),
    /// TERM.
    End,
    /// KILL.
    Kill,
    /// Write the state of the processes to a file.
    Evidence,
    /// A message for a sender of this rank's.
    Answer { rank: u32, to: u32, bytes: Vec<u8> },
}

#[derive(Debug)]
struct Shim {
    rank: Rank,
    clock: Clock,
    /// The file for the state of the processes of a program that hangs.
    evidence: PathBuf,
    signals: SignalFd,
    pid: u32,
    program: Option<u32>,
    /// The signal that no process caught yet, and when it is sent again.
    wanted: Option<(Signal, Time)>,
    streams: Vec<ProgramOutput>,
    /// The thread that writes: a disk that hangs must not delay a command.
    records: SerialQueue,
    times: Option<OutputClock>,
    usage: Option<UsageSampler>,
    socket: Option<Socket>,
    scratch: Option<Scratch>,
    /// The senders that can be answered. Their numbers start at 1.
    senders: Vec<UnixAddr>,
    input: Option<(Stdin, Vec<u8>)>,
    output: Stdout,
    pending: VecDeque<u8>,
}

/// Runs the program of one rank and reports its end to the harness. The exit code only says that this was done.
pub(crate) fn run(options: &ExecOptions) -> Result<u8, String> {
    let signals = signals::listen().map_err(|error| format!("signals: {error}"))?;
    processes::adopt_orphans().map_err(|error| format!("a subreaper: {error}"))?;
    let rank = Rank::of_slurm()?;
    let (input, output) = (io::stdin(), io::stdout());
    for end in [input.as_fd(), output.as_fd()] {
        let set = fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        set.map_err(|error| format!("the pipes to Slurm: {error}"))?;
    }
    let mut shim = Shim {
        clock: Clock::start(),
        evidence: options.dir.rank_evidence(options.attempt, rank.number),
        signals,
        pid: std::process::id(),
        program: None,
        wanted: None,
        streams: Vec::new(),
        records: SerialQueue::start("output", None),
        times: None,
        usage: None,
        socket: None,
        scratch: None,
        senders: Vec::new(),
        input: Some((input, Vec::new())),
        output,
        pending: VecDeque::new(),
        rank,
    };
    match shim.start(options) {
        Ok(program) => {
            shim.program = Some(program);
            let (step, node) = (shim.rank.step.clone(), shim.rank.node_name.clone());
            shim.send(&RankMessage::Started { step, node });
            if options.devices {
                let seen = devices::seen(context::visible_devices().as_deref());
                shim.send(&RankMessage::Devices(seen.join(",")));
            }
            shim.watch();
        }
        Err(error) => {
            let node = shim.rank.node_name.clone();
            shim.send(&RankMessage::Failed { node, error });
        }
    }
    shim.last_words();
    Ok(nemo_core::exit::DONE)
}

impl Shim {
    fn start(&mut self, options: &ExecOptions) -> Result<u32, StartError> {
        let (dir, attempt, rank) = (&options.dir, options.attempt, self.rank.number);
        let outputs = [dir.rank_stdout(attempt, rank), dir.rank_stderr(attempt, rank)];
        let mut ends = Vec::new();
        for path in &outputs {
            let log = output::open_log(path).ok();
            if options.lines && rank == 0 {
                let stream = ProgramOutput::new(log, &self.records);
                let (stream, end) = stream.map_err(|error| StartError::Node(error.to_string()))?;
                self.streams.push(stream);
                ends.push(end);
            } else {
                ends.push(log.map_or_else(Stdio::null, Stdio::from));
            }
        }
        self.times = Some(OutputClock::start(outputs, &self.records));
        let allotment = context::allotment(&self.rank.node_name, true);
        let path = dir.usage(attempt, rank);
        self.usage = Some(UsageSampler::start(path, attempt, allotment, &self.records));
        let [stdout, stderr] =
            ends.try_into().map_err(|_| "a program has two outputs".to_owned())?;
        let mut env: Vec<(String, OsString)> = self.rank.variables(options.port, options.workers);
        env.extend(self.open_socket());
        env.extend(self.open_scratch());
        let (argv, workdir) = (&options.program, &options.workdir);
        let path = super::identity::search_path();
        // The shim's own input is its channel to the harness.
        let stdin = Stdio::null();
        let start = ProcessStart { argv, env: &env, workdir, stdin, stdout, stderr };
        processes::start(start, &path)
    }

    /// Makes the folder of the attempt on this node, with the other ranks here.
    fn open_scratch(&mut self) -> Option<(String, OsString)> {
        let path = scratch::beside(&context::scratch()?);
        scratch::sweep_beside();
        match Scratch::open(&path) {
            Ok(held) => self.scratch = Some(held),
            Err(error) => log_stderr(&with_path(&path, &error)),
        }
        Some((scratch::VARIABLE.to_owned(), path.into()))
    }

    /// Opens a socket in place of the harness's, which is on another node.
    fn open_socket(&mut self) -> Vec<(String, OsString)> {
        let names = ["NEMO_SOCKET", "NOTIFY_SOCKET"];
        if !identity::is_heard() {
            return Vec::new();
        }
        let mark = std::process::id().to_string();
        let opened = nemo_core::claim::nonce()
            .and_then(|nonce| Socket::open(&std::env::temp_dir(), &mark, &nonce));
        let path = match opened {
            Ok(socket) => self.socket.insert(socket).path().into_os_string(),
            Err(error) => {
                log_stderr(&format!(
                    "the program can't send messages; its socket could not be made: {error}"
                ));
                OsString::new()
            }
        };
        names.map(|name| (name.to_owned(), path.clone())).into()
    }

    fn hand_on_messages(&mut self) {
        for _ in 0..MESSAGES {
            let Some(received) = self.socket.as_mut().and_then(Socket::receive) else { return };
            let from = received.from.map_or(0, |from| self.number_of(from));
            if self.pending.len() < BACKLOG {
                self.send(&RankMessage::Datagram { from, bytes: received.bytes });
            }
        }
    }

    /// The number of a sender, or 0 if there are too many.
    fn number_of(&mut self, sender: UnixAddr) -> u32 {
        if !self.senders.contains(&sender) && self.senders.len() < SENDERS {
            self.senders.push(sender);
        }
        let place = self.senders.iter().position(|known| *known == sender);
        place.and_then(|place| u32::try_from(place + 1).ok()).unwrap_or(0)
    }

    fn answer(&mut self, to: u32, bytes: &[u8]) {
        let sender = usize::try_from(to).ok().and_then(|to| self.senders.get(to.checked_sub(1)?));
        if let Some((socket, sender)) = self.socket.as_mut().zip(sender) {
            socket.answer(*sender, &String::from_utf8_lossy(bytes));
        }
    }

    /// Runs until the program and all that it left behind have ended.
    fn watch(&mut self) {
        while self.program.is_some() {
            self.wait();
            signals::read(&self.signals); // only CHLD matters, and it has woken the loop
            self.hand_on_lines();
            self.hand_on_messages();
            for order in self.orders() {
                self.obey(order);
            }
            if self.wanted.is_some_and(|(_, at)| at <= self.clock.now()) {
                self.ask();
            }
            self.reap();
            self.write();
        }
        self.clean_up();
        for _ in 0..64 {
            self.hand_on_lines();
        }
        self.hand_on_messages();
    }

    fn wait(&mut self) {
        let wanted = self.wanted.map(|(_, at)| at.saturating_sub(self.clock.now()));
        let full = self.records.is_full().then_some(FULL);
        let due = wanted.into_iter().chain(full).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            PollTimeout::try_from(due + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut set = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let pipes = self.streams.iter().filter_map(ProgramOutput::pipe);
        set.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let socket = self.socket.iter().map(Socket::descriptor);
        set.extend(socket.map(|open| PollFd::new(open, PollFlags::POLLIN)));
        let input =
            self.input.iter().map(|(input, _)| PollFd::new(input.as_fd(), PollFlags::POLLIN));
        set.extend(input);
        if !self.pending.is_empty() {
            set.push(PollFd::new(self.output.as_fd(), PollFlags::POLLOUT));
        }
        poll(&mut set, timeout).ok(); // every source is read without blocking
    }

    /// Reads the harness's commands. The end of the input means that it or `srun` has ended.
    fn orders(&mut self) -> Vec<ShimCommand> {
        let Some((input, begun)) = &mut self.input else { return Vec::new() };
        let mut orders = Vec::new();
        let mut buffer = [0; 4096];
        let is_over = loop {
            // `poll` does not know of the buffer of `stdin`, so it is read directly.
            match nix::unistd::read(input.as_fd(), &mut buffer) {
                Ok(0) => break true,
                Ok(length) => {
                    begun.extend_from_slice(&buffer[..length]);
                    while let Some(end) = begun.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = begun.drain(..=end).collect();
                        orders.extend(order(&String::from_utf8_lossy(&line)));
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => break false,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => break true,
            }
        };
        if is_over {
            self.input = None;
            orders.push(ShimCommand::Kill);
        }
        orders
    }

    fn obey(&mut self, order: ShimCommand) {
        let group = self.program;
        match order {
            ShimCommand::Ask(signal) => {
                self.wanted = Some((signal, self.clock.now()));
                let heard = self.ask();
                self.send(&RankMessage::Heard(heard));
            }
            ShimCommand::End => {
                self.wanted = None;
                processes::end(self.pid, &[], group, Signal::SIGTERM);
            }
            ShimCommand::Kill => processes::end(self.pid, &[], group, Signal::SIGKILL),
            ShimCommand::Answer { rank, to, bytes } if rank == self.rank.number => {
                self.answer(to, &bytes);
            }
            ShimCommand::Answer { .. } => {}
            ShimCommand::Evidence => {
                let (path, text) =
                    (self.evidence.clone(), watchdog::evidence(self.pid, &[], &self.clock));
                self.records.add(text.len(), move || watchdog::keep_evidence(&path, &text));
            }
        }
    }

    /// Sends the save signal. Returns whether a process caught it.
    fn ask(&mut self) -> bool {
        let Some((signal, _)) = self.wanted else { return false };
        let asking = SaveSignal { root: self.pid, except: &[], signal, profile: None };
        let heard = asking.send(None);
        self.wanted = (!heard).then_some((signal, self.clock.now() + RETRY));
        heard
    }

    fn reap(&mut self) {
        for reaped in processes::reap() {
            if Some(reaped.pid) == self.program {
                self.program = None;
                let end = match (reaped.code, reaped.signal) {
                    (Some(code), _) => RankMessage::Exited(code),
                    (None, signal) => RankMessage::Killed(signal.unwrap_or(Signal::SIGKILL as i32)),
                };
                self.send(&end);
            }
        }
    }

    fn clean_up(&mut self) {
        for _ in 0..200 {
            if proc_fs::descendants(self.pid, &[]).is_empty() {
                return;
            }
            processes::end(self.pid, &[], None, Signal::SIGKILL);
            self.write();
            sleep(Duration::from_millis(10));
            processes::reap();
        }
    }

    fn hand_on_lines(&mut self) {
        let mut lines = Vec::new();
        for stream in &mut self.streams {
            stream.read(|line| lines.push(line.as_bytes().to_vec()));
        }
        for line in lines {
            if self.pending.len() < BACKLOG {
                self.send(&RankMessage::Line(line));
            }
        }
    }

    fn send(&mut self, message: &RankMessage) {
        self.pending.extend(encode(self.rank.number, message).into_bytes());
    }

    fn write(&mut self) {
        while !self.pending.is_empty() {
            let (first, _) = self.pending.as_slices();
            match nix::unistd::write(self.output.as_fd(), first) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => self.pending.clear(), // the harness does not read any more
            }
        }
    }

    /// Sends the last messages, and waits a limited time for the harness to read them.
    fn last_words(&mut self) {
        let until = self.clock.now() + LAST_WORDS;
        self.write();
        while !self.pending.is_empty() && self.clock.now() < until {
            let mut set = [PollFd::new(self.output.as_fd(), PollFlags::POLLOUT)];
            poll(&mut set, PollTimeout::from(100_u16)).ok();
            self.write();
        }
        (self.times, self.usage) = (None, None);
        if self.scratch.take().is_some() {
            scratch::sweep(); // the last rank of the node removes it
        }
        self.records.drain(until.saturating_sub(self.clock.now()));
    }
}

fn order(line: &str) -> Option<ShimCommand> {
    let line = line.trim_end_matches('\n');
    match line.split_once(' ').unwrap_or((line, "")) {
        ("ask", name) => name.parse().ok().map(ShimCommand::Ask),
        ("end", _) => Some(ShimCommand::End),
        ("kill", _) => Some(ShimCommand::Kill),
        ("evidence", _) => Some(ShimCommand::Evidence),
        ("answer", rest) => {
            read_answer(rest).map(|(rank, to, bytes)| ShimCommand::Answer { rank, to, bytes })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_lines() {
        assert_eq!(order("ask SIGUSR1\n"), Some(ShimCommand::Ask(Signal::SIGUSR1)));
        assert_eq!(order("end\n"), Some(ShimCommand::End));
        assert_eq!(order("kill\n"), Some(ShimCommand::Kill));
        let answer = ShimCommand::Answer { rank: 1, to: 2, bytes: b"A=1\n ".to_vec() };
        assert_eq!(order("answer 1 2 A=1%0A \n"), Some(answer));
        assert_eq!(order("state later\n"), None);
        assert_eq!(order("ask NOTHING\n"), None);
    }
}
