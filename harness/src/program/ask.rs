//! Sends the save signal to the outermost processes that catch it, and to none that would die of it.

use std::collections::BTreeMap;

use nemo_core::profile;
use nemo_core::rundir::Profile;
use nix::sys::signal::Signal;

use crate::os::disposition::{self, SignalTarget};
use crate::os::proc_fs;
use crate::program::shells::{self, ShellReception};
use crate::program::steps;
use crate::program::{command, processes};
use crate::rank::srun;

/// The signal that asks for a save, and its recipients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaveSignal<'a> {
    /// Every process below this one,
    pub(crate) root: u32,
    /// but not these and what is below them.
    pub(crate) except: &'a [u32],
    pub(crate) signal: Signal,
    pub(crate) profile: Option<Profile>,
}

/// One request.
#[derive(Debug)]
struct SignalRound {
    signal: Signal,
    profile: Option<Profile>,
    /// Processes that got the signal or must not get it. The processes below them are skipped too.
    skip: Vec<u32>,
    /// Every `srun` that was found. Its tasks are elsewhere in the process tree.
    sruns: Vec<u32>,
    /// Shells that catch the signal. They are asked if nothing that they run is.
    shells: Vec<u32>,
    /// What is known of processes: a script on a slow disk is not waited for twice.
    receptions: BTreeMap<u32, ShellReception>,
    is_caught: bool,
}

impl SaveSignal<'_> {
    /// Sends the signal. Returns whether a process catches it. Processes below one that catches it are left to that one: a
    /// launcher passes the signal on, and a forked worker only inherited the handler.
    ///
    /// The program itself comes first: looking at all processes of a node takes milliseconds.
    pub(crate) fn send(&self, program: Option<u32>) -> bool {
        let SaveSignal { root, except, signal, profile } = *self;
        let mut round = SignalRound::new(signal, profile, except);
        if let Some(program) = program {
            round.ask(program);
        }
        round.ask_below(root, except);
        round.ask_steps();
        round.ask_shells();
        round.is_caught
    }
}

impl SignalRound {
    fn new(signal: Signal, profile: Option<Profile>, except: &[u32]) -> Self {
        Self {
            signal,
            profile,
            skip: except.to_vec(),
            sruns: Vec::new(),
            shells: Vec::new(),
            receptions: BTreeMap::new(),
            is_caught: false,
        }
    }

    fn ask_below(&mut self, root: u32, except: &[u32]) {
        for pid in proc_fs::descendants(root, except) {
            let parent = proc_fs::stat(pid).map(|stat| stat.parent);
            if parent.is_ok_and(|parent| self.leaves_to(parent, pid)) {
                self.skip.push(pid);
            } else if !self.skip.contains(&pid) {
                self.ask(pid);
            }
        }
    }

    /// Whether a process is left to its parent: that one was asked, or is the shell of a script whose trap can run at
    /// once. A shell of ours comes after what it runs.
    fn leaves_to(&self, parent: u32, pid: u32) -> bool {
        let is_ours = || command::own_text(&proc_fs::arguments(parent)).is_some();
        self.skip.contains(&parent)
            || self.shells.contains(&parent) && !is_ours() && shells::is_in_background(parent, pid)
    }

    /// A launcher of workers never gets the signal, which would end it and them; the processes below it do. Shells
    /// come last.
    fn ask(&mut self, pid: u32) {
        let arguments = proc_fs::arguments(pid);
        if srun::is_srun(&arguments) {
            self.sruns.push(pid);
            self.skip.push(pid);
        } else if let Some(text) = command::own_text(&arguments) {
            // Its trap for TERM is ours. Without one for the signal the kernel may say that bash catches it.
            if self.signal != Signal::SIGTERM && command::catches(&text, self.signal) {
                self.ask_later(pid);
            }
        } else if !srun::ends_workers(&arguments)
            && profile::is_asked(self.profile, |name| proc_fs::variable(pid, name).is_some())
        {
            let signal = self.signal;
            let known = self.receptions.entry(pid);
            match *known.or_insert_with(|| shells::reception(pid, signal)) {
                ShellReception::NoShell => self.send(pid),
                ShellReception::Trap => self.ask_later(pid),
                ShellReception::Death => {}
            }
        }
    }

    fn ask_later(&mut self, shell: u32) {
        if !self.shells.contains(&shell) {
            self.shells.push(shell);
        }
    }

    /// Where nothing below a shell catches the signal, its own text may: `run = "trap save USR1; …"`. Of a script that runs a
    /// script, the inner one.
    fn ask_shells(&mut self) {
        if self.is_caught {
            return;
        }
        let mut outer = Vec::new();
        for shell in std::mem::take(&mut self.shells).into_iter().rev() {
            if !outer.contains(&shell) {
                self.send(shell);
                outer.extend(proc_fs::ancestors(shell));
            }
        }
    }

    fn send(&mut self, pid: u32) {
        let sent = match disposition::target(pid, self.signal) {
            Some(SignalTarget::Process) => processes::signal(pid, self.signal),
            Some(SignalTarget::Thread(thread)) => {
                processes::signal_thread(pid, thread, self.signal)
            }
            None => false,
        };
        if sent {
            self.skip.push(pid);
            self.is_caught = true;
        }
    }

    /// Sends the signal to the tasks of job steps that the program started, as to any other process. `srun` would pass USR1
    /// on even to tasks that die of it, and would kill all tasks on TERM. Tasks on other nodes can't be seen: a program on
    /// several nodes has a shim for each rank.
    fn ask_steps(&mut self) {
        let sruns = std::mem::take(&mut self.sruns);
        for task in steps::tasks_of(&sruns) {
            self.ask(task.pid);
            self.ask_below(task.pid, &[]);
        }
        let passes_on = matches!(self.signal, Signal::SIGUSR1 | Signal::SIGUSR2);
        for &srun in sruns.iter().filter(|&&srun| passes_on && steps::job(srun).is_none()) {
            self.send(srun); // its tasks are in another job, so only `srun` can reach them
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_looked_at_once_a_round() {
        let (one, other) = (std::process::id(), u32::MAX);
        let mut round = SignalRound::new(Signal::SIGUSR1, None, &[]);
        round.receptions.insert(one, ShellReception::Trap);
        round.ask(one);
        assert_eq!(round.shells, [one], "what is known of it counts");
        round.ask(other);
        assert_eq!(round.receptions[&other], ShellReception::NoShell, "it is known from now on");
    }
}
