//! What Slurm's words mean: the states of a job that both programs act on, and what its programs say when it is away. Pure.

/// The states of a job that has ended and will not run again. Slurm may add words: `CANCELLED by 1000`.
const OVER: [&str; 9] = [
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
];

/// What Slurm's programs say if they can't reach it, in lower case.
const AWAY: [&str; 19] = [
    "unable to contact",
    "unable to establish controller machine",
    "unable to establish configuration source",
    "could not establish a configuration source",
    "connection refused",
    "connection reset",
    "timed out",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "primary is in standby mode",
    "backup controller in standby mode",
    "munge_encode failed",
    "munge encode failed",
    "authentication plugin",
    "protocol authentication error",
    "no route to host",
    "temporarily unable",
    "unexpected message",
    "can't be reached now, or it is an invalid entry for --cluster",
];

/// Whether a job in this state has ended and will not run again.
#[must_use]
pub fn is_over(state: &str) -> bool {
    OVER.iter().any(|word| state.starts_with(word))
}

/// Whether its processes may run. While Slurm sends a signal, the state is SIGNALING.
#[must_use]
pub fn is_running(state: &str) -> bool {
    matches!(state, "RUNNING" | "SIGNALING")
}

/// Whether it is in the queue.
#[must_use]
pub fn is_waiting(state: &str) -> bool {
    matches!(state, "PENDING" | "REQUEUED")
}

/// Whether a program says that Slurm is away. The same command may succeed later.
#[must_use]
pub fn is_away(text: &str) -> bool {
    let text = text.to_lowercase();
    AWAY.iter().any(|words| text.contains(words))
}

/// Whether a program says that a job is over for good, or is not there any more: nothing comes of it in any case.
#[must_use]
pub fn has_ended(text: &str) -> bool {
    text.contains("Job has already finished") || text.contains("Invalid job id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slurm_that_is_away_is_told_from_one_that_refuses() {
        for away in [
            "Unable to contact slurm controller (connect failure)",
            "slurm_load_jobs error: Zero Bytes were transmitted or received",
            "Socket timed out on send/recv operation",
            "Slurm temporarily unable to accept job, sleeping and retrying",
            "Temporarily unable to accept job",
            "slurmctld: Unexpected message received",
            "Protocol authentication error",
            "connect: connection refused",
            "Slurm backup controller in standby mode",
        ] {
            assert!(is_away(away), "{away}");
        }
        for refused in
            ["Invalid job id specified", "Access/permission denied", "Invalid --sockets-per-node"]
        {
            assert!(!is_away(refused), "{refused}");
        }
    }

    #[test]
    fn each_state_has_one_meaning() {
        let meanings = |state| [is_over(state), is_running(state), is_waiting(state)];
        assert_eq!(meanings("CANCELLED by 1000"), [true, false, false]);
        assert_eq!(meanings("SIGNALING"), [false, true, false]);
        assert_eq!(meanings("REQUEUED"), [false, false, true]);
        assert_eq!(meanings("COMPLETING"), [false; 3]);
    }
}
