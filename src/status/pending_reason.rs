//! Slurm's reasons for which a job waits, in words: what it waits for, and what to do where waiting does not help. Pure.
//!
//! Source: the list of reasons in Slurm's documentation, and the names that 22.05 to 26.05 print.

/// The words, where the reason needs any. Slurm's own name stays with the rarer ones: an administrator asks for it.
pub(super) fn words(reason: &str, has_run: bool) -> Option<String> {
    if matches!(reason, "None" | "") {
        return None;
    }
    let text = match usual(reason, has_run) {
        Some(text) => return Some(text.to_owned()),
        None => never(reason).or_else(|| limit(reason)).or_else(|| place(reason)),
    };
    Some(format!("{} ({reason})", text.unwrap_or("waits")))
}

/// What everybody meets.
fn usual(reason: &str, has_run: bool) -> Option<&'static str> {
    Some(match reason {
        "Dependency" => "waits for another task",
        "DependencyNeverSatisfied" => "its dependency can never be satisfied",
        "BeginTime" if !has_run => "waits for the time at which it may start",
        "BeginTime" => "waits a while before it starts again",
        "JobArrayTaskLimit" => "waits for others of its task (`concurrent`)",
        "Priority" => "waits for its turn: other jobs come first",
        "Resources" => "waits for free resources",
        "Licenses" => "waits for a free licence",
        "Cleaning" => "waits until its earlier run is cleaned up",
        "Prolog" => "waits until its nodes are prepared",
        "Reservation" => "waits for its reservation to begin",
        "WaitingForScheduling" => "waits until Slurm schedules it",
        _ => return None,
    })
}

/// Requests that Slurm takes and never starts, as long as nothing is changed.
fn never(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "BadConstraints" => {
            "can never start: no node of its partition has the memory, GPUs, CPUs or features \
             that it asks for: cancel it and ask for less"
        }
        "PartitionNodeLimit" => {
            "can't start: its partition has a lower node limit, or nodes are down: if \
             it stays so, cancel it and ask for fewer"
        }
        "PartitionTimeLimit" => {
            "can't start: its `time` is longer than its partition allows: cancel it and ask for less"
        }
        "PartitionConfig" => {
            "can't start: its partition does not allow what it asks for: cancel it and ask for less, or \
             for another partition"
        }
        "MaxMemPerLimit" => {
            "can't start: it asks for more memory on a CPU or a node than the site allows: cancel it and ask for less"
        }
        "InvalidAccount" => "can't start: its account is not valid: cancel it and name another",
        "InvalidQOS" => "can't start: its QOS is not valid: cancel it and name another",
        "AccountNotAllowed" => {
            "can't start: its partition does not allow its account: cancel it and name another account or partition"
        }
        "QOSNotAllowed" => {
            "can't start: its partition or account does not allow its QOS: cancel it and name another QOS or partition"
        }
        "ReservationDeleted" => {
            "can't start: its reservation is gone: cancel it and submit it without `reservation`"
        }
        "DeadLine" => "can't start: its `deadline` is over: cancel it and submit it again",
        reason if reason.starts_with("QOSMin") => {
            "can't start: it asks for less than its QOS wants of a job: cancel it and ask for more, or for another QOS"
        }
        reason if is_of_one_job(reason) => {
            "can't start: it asks for more than its account or QOS allows one job: cancel it and \
             ask for less"
        }
        _ => return None,
    })
}

/// Whether a limit on each single job is meant, such as `QOSMaxWallDurationPerJobLimit`: no other job's end helps.
fn is_of_one_job(reason: &str) -> bool {
    let is_limit = reason.starts_with("AssocMax") || reason.starts_with("QOSMax");
    is_limit && (reason.contains("PerJob") || reason.contains("PerNode"))
}

/// Limits that other jobs use up, or have used up.
fn limit(reason: &str) -> Option<&'static str> {
    let (is_assoc, is_qos) = (reason.starts_with("Assoc"), reason.starts_with("QOS"));
    let is_total = reason.contains("Minutes") || reason.contains("GrpWall");
    Some(match reason {
        "AccountingPolicy" => "waits, since its account or QOS has reached a limit",
        _ if reason.contains("SubmitJob") => {
            "waits until fewer jobs are submitted: its account or QOS allows no more at once"
        }
        _ if reason.contains("RunMinutes") => {
            "waits until running jobs have less time left: a shorter `time` may start sooner"
        }
        _ if is_assoc && is_total => {
            "waits, since the time that its account may use is spent: another account starts sooner, or ask \
             the site for more"
        }
        _ if is_qos && (is_total || reason == "QOSUsageThreshold") => {
            "waits: its QOS has used up its time; choose another QOS, or ask the site for more"
        }
        "AssociationTimeLimit" | "QOSTimeLimit" => {
            "waits: its account or QOS does not allow so much `time` now; cancel it and ask for less"
        }
        _ if reason.contains("PerUser") => {
            "waits until other jobs of yours end: together they have all that its QOS gives one user"
        }
        _ if reason.starts_with("Max") && reason.contains("PerAccount") => {
            "waits until other jobs of its account end: together they have all that its QOS gives one account"
        }
        _ if is_assoc => {
            "waits until other jobs of its account end: together they have all that the account may use"
        }
        _ if is_qos => {
            "waits until other jobs of its QOS end: together they have all that the QOS may use"
        }
        _ => return None,
    })
}

/// Places and times that are not to be had now.
fn place(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "NodeDown" => "waits for nodes that are not available now: in use, reserved or down",
        "PartitionDown" | "PartitionInactive" => "waits, since its partition starts no jobs now",
        "FrontEndDown" => "waits, since the machine that starts jobs is down",
        "SchedDefer" => {
            "waits until Slurm schedules it: it does not start jobs at their submission"
        }
        "PowerNotAvail" | "PowerReserved" => "waits for power: the site limits what its nodes use",
        "FedJobLock" => "waits until another cluster of the federation lets go of it",
        "BurstBufferResources" => "waits for room in the burst buffer",
        "BurstBufferOperation" | "BurstBufferStageIn" => {
            "waits until its data is in the burst buffer"
        }
        "JobLaunchFailure" | "SystemFailure" => {
            "waits after a start that failed: `nemo-slurm poll` looks after it"
        }
        _ if reason.starts_with("ReqNodeNotAvail") || reason.starts_with("Nodes_required") => {
            "waits for nodes that are not available now: in use, reserved or down"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the library of 22.05 has them. What tells of a run that is over, or of one that is held, has words elsewhere.
    const REASONS: &str = "AccountNotAllowed AccountingPolicy AssocGrpBB AssocGrpBBMinutes AssocGrpBBRunMinutes \
        AssocGrpBilling AssocGrpBillingMinutes AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit AssocGrpCpuLimit \
        AssocGrpEnergy AssocGrpGRES AssocGrpGRESMinutes AssocGrpGRESRunMinutes AssocGrpJobsLimit AssocGrpLicense \
        AssocGrpMemLimit AssocGrpMemMinutes AssocGrpNodeLimit AssocGrpNodeRunMinutes AssocGrpSubmitJobsLimit \
        AssocGrpUnknown AssocGrpWallLimit AssocMaxBBPerJob AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit \
        AssocMaxGRESPerNode AssocMaxJobsLimit AssocMaxNodePerJobLimit AssocMaxSubmitJobLimit \
        AssocMaxWallDurationPerJobLimit AssociationJobLimit AssociationResourceLimit AssociationTimeLimit BadConstraints \
        BurstBufferOperation BurstBufferResources BurstBufferStageIn DeadLine FedJobLock FrontEndDown InvalidAccount \
        InvalidQOS JobLaunchFailure MaxBBPerAccount MaxCpuPerAccount MaxGRESPerAccount MaxJobsPerAccount MaxMemPerLimit \
        MaxMemoryPerAccount MaxNodePerAccount MaxSubmitJobsPerAccount NodeDown PartitionConfig PartitionDown \
        PartitionInactive PartitionNodeLimit PartitionTimeLimit PowerNotAvail PowerReserved QOSGrpBB QOSGrpCPUMinutesLimit \
        QOSGrpCPURunMinutesLimit QOSGrpCpuLimit QOSGrpGRES QOSGrpJobsLimit QOSGrpMemoryMinutes QOSGrpNodeLimit \
        QOSGrpSubmitJobsLimit QOSGrpWallLimit QOSJobLimit QOSMaxBillingPerUser QOSMaxCpuPerJobLimit QOSMaxCpuPerNode \
        QOSMaxCpuPerUserLimit QOSMaxGRESPerUser QOSMaxJobsPerUserLimit QOSMaxMemoryPerNode QOSMaxNodePerUserLimit \
        QOSMaxSubmitJobPerUserLimit QOSMaxWallDurationPerJobLimit QOSMinBilling QOSMinCpuNotSatisfied QOSMinGRES \
        QOSMinMemory QOSMinNode QOSNotAllowed QOSResourceLimit QOSTimeLimit QOSUsageThreshold ReqNodeNotAvail \
        ReservationDeleted SchedDefer SystemFailure";

    #[test]
    fn every_reason_has_words_and_keeps_its_name() {
        for reason in REASONS.split_whitespace() {
            let text = words(reason, false).unwrap();
            assert!(text.ends_with(&format!(" ({reason})")) && text.contains(' '), "{text}");
            assert!(!text.starts_with("waits ("), "{text}");
        }
        assert_eq!(words("BrandNew", false).as_deref(), Some("waits (BrandNew)"));
        assert_eq!(words("None", true), None);
    }

    #[test]
    fn what_never_starts_says_what_to_do() {
        for reason in ["QOSMinMemory", "QOSNotAllowed", "AccountNotAllowed", "QOSMaxCpuPerNode"] {
            let text = words(reason, false).unwrap();
            assert!(text.starts_with("can't start: ") && text.contains("cancel it and"), "{text}");
        }
        let of = |reason| words(reason, false).unwrap();
        assert!(of("AssocGrpCPURunMinutesLimit").contains("shorter `time`"));
        assert!(of("QOSGrpCPUMinutesLimit").contains("its QOS has used up its time"));
        assert!(of("MaxCpuPerAccount").contains("gives one account"));
        assert!(of("MaxSubmitJobsPerAccount").contains("fewer jobs"));
    }
}
