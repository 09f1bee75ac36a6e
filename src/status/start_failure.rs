//! Why a run of a job left no record: the harness was never started, or was ended before it could write. Pure.

use crate::slurm::exit::JobExit;
use crate::slurm::{AccountRow, JobState};

/// What a shell answers for a program that it may not or can't execute.
const NOT_EXECUTABLE: u32 = 126;
/// What a shell answers for a program that is not there.
const NOT_FOUND: u32 = 127;

const LOOK: &str = "look at Slurm's own output: `nemo-slurm logs --slurm`";

/// Why a run that failed without a record did, in words.
pub(super) fn why(row: &AccountRow) -> String {
    let node = &row.nodes;
    match JobExit::from(row.exit) {
        _ if row.state == JobState::LaunchFailed => {
            format!("Slurm could not start the job on {node}")
        }
        JobExit::NoOutputFile => format!(
            "Slurm could not open the job's output file on {node}: is the folder of the experiment \
             mounted and writable there, and within its quota?"
        ),
        JobExit::Code(NOT_EXECUTABLE) => format!(
            "{node} could not execute the harness: no permission, mounted `noexec`, or busy ({LOOK})"
        ),
        JobExit::Code(NOT_FOUND) => format!(
            "the harness was not found on {node}: is the home of nemo-slurm mounted there? ({LOOK})"
        ),
        JobExit::Code(code) if code == u32::from(nemo_core::exit::NOT_STARTED) => format!(
            "the trial could not begin on {node}, which can't read or write its folder (a full or failing disk, a \
             quota, or mounted read-only): {LOOK}"
        ),
        exit @ JobExit::Signal(_) => {
            format!("the harness {exit} on {node} before it wrote a record")
        }
        exit @ JobExit::Code(_) => {
            format!("the harness {exit} on {node} before it wrote a record: {LOOK}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::parse::account;

    #[track_caller]
    fn check(exit: &str, expected: &str) {
        let delimiter = char::from(account_delimiter()).to_string();
        let fields = ["8_0", "FAILED", exit, "100", "100", "101", "n1"];
        let text = fields.map(|field| [field, &delimiter].concat()).concat();
        let parsed = account::parse(format!("{text}\n").as_bytes());
        assert_eq!(parsed.unread, []);
        let why = why(&parsed.rows[0]);
        assert!(why.contains(expected), "{exit}: {why}");
    }

    fn account_delimiter() -> u8 {
        crate::slurm::parse::queue::DELIMITER
    }

    #[test]
    fn each_kind_has_words_of_its_own() {
        check("0:53", "could not open the job's output file on n1");
        check("126:0", "n1 could not execute the harness");
        check("127:0", "the harness was not found on n1");
        check("74:0", "could not begin on n1, which can't read or write its folder");
        check("0:9", "the harness was killed by signal 9 (SIGKILL) on n1 before it wrote a record");
        check("9:0", "killed by signal 9 (SIGKILL)");
        check("137:0", "killed by signal 9 (SIGKILL)");
        check("1:0", "the harness exited with code 1 on n1 before it wrote a record: look at");
    }
}
