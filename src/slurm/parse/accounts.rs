//! What `sacctmgr` says of QOSes and of a user's associations. Its rows are separated by `|`.

use std::collections::HashMap;

use super::id::whole;
use super::time::limit;

/// A QOS: whom it preempts, and how much it allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Its name.
    pub name: String,
    /// The QOSes whose jobs it preempts.
    pub preempts: Vec<String>,
    /// What becomes of its own jobs that are preempted: `cluster` where the cluster decides.
    pub preempt_mode: String,
    /// Seconds that a preempted job has left.
    pub grace_time: u64,
    /// How many jobs may be in it: of a user, of an account or of all.
    pub max_submit: Option<u64>,
    /// How many of a user's jobs may run in it.
    pub max_running: Option<u64>,
}

/// A user's right to an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Association {
    /// The cluster.
    pub cluster: String,
    /// The account.
    pub account: String,
    /// How many jobs the user may have.
    pub max_submit: Option<u64>,
    /// How many of them may run.
    pub max_running: Option<u64>,
    /// The QOSes that may be asked for.
    pub qos: Vec<String>,
}

/// What all users of an account may have together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountGroup {
    /// The cluster.
    pub cluster: String,
    /// The account.
    pub account: String,
    /// The account above it, whose limit holds too. None above the first one.
    pub parent: Option<String>,
    /// How many jobs there may be, with those of the accounts below.
    pub max_submit: Option<u64>,
}

/// How deep a tree of accounts may be: what is read may lead in a circle.
const MOST_LEVELS: usize = 64;

/// The accounts of a cluster, by name.
#[derive(Clone, Debug)]
pub struct AccountTree<'a>(HashMap<&'a str, &'a AccountGroup>);

impl<'a> AccountTree<'a> {
    /// Those of one cluster.
    #[must_use]
    pub fn new(groups: &'a [AccountGroup], cluster: &str) -> Self {
        let own = groups.iter().filter(|it| it.cluster == cluster);
        Self(own.map(|it| (&*it.account, it)).collect())
    }

    /// An account and those above it, whose limits hold too.
    pub fn lineage(&self, account: &str) -> impl Iterator<Item = &'a AccountGroup> {
        let above = |it: &&'a AccountGroup| self.0.get(it.parent.as_deref()?).copied();
        std::iter::successors(self.0.get(account).copied(), above).take(MOST_LEVELS)
    }
}

/// What a job in the queue counts for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuedJob {
    /// Its account.
    pub account: String,
    /// Its QOS.
    pub qos: String,
}

/// The fields of [`Qos`], as `sacctmgr` calls them.
pub const QOS_FIELDS: &str = "Name,Preempt,PreemptMode,GraceTime,MaxSubmitJobsPerUser,MaxJobsPerUser,\
     MaxSubmitJobsPerAccount,GrpSubmitJobs";
/// The fields of [`Association`].
pub const ASSOCIATION_FIELDS: &str = "Cluster,Account,MaxSubmitJobs,MaxJobs,GrpSubmitJobs,QOS";

/// The fields of [`AccountGroup`].
pub const GROUP_FIELDS: &str = "Cluster,Account,ParentName,GrpSubmitJobs";

/// Reads QOSes. A row of another form is passed over: the advice of a doctor decides nothing.
#[must_use]
pub fn qos(output: &[u8]) -> Vec<Qos> {
    let row = |line: &str| match fields(line)[..] {
        [name, preempts, mode, grace, submit, running, of_account, of_all] if !name.is_empty() => {
            Some(Qos {
                name: name.to_owned(),
                preempts: names(preempts),
                preempt_mode: mode.to_owned(),
                grace_time: whole(limit, grace.as_bytes())
                    .ok()
                    .and_then(super::time::Limit::seconds)
                    .unwrap_or(0),
                max_submit: [submit, of_account, of_all]
                    .iter()
                    .filter_map(|it| it.parse().ok())
                    .min(),
                max_running: running.parse().ok(),
            })
        }
        _ => None,
    };
    String::from_utf8_lossy(output).lines().filter_map(row).collect()
}

/// Reads what accounts allow all of their users together.
#[must_use]
pub fn groups(output: &[u8]) -> Vec<AccountGroup> {
    let row = |line: &str| match fields(line)[..] {
        [cluster, account, parent, submit] if !account.is_empty() => Some(AccountGroup {
            cluster: cluster.to_owned(),
            account: account.to_owned(),
            parent: Some(parent.to_owned()).filter(|parent| !parent.is_empty()),
            max_submit: submit.parse().ok(),
        }),
        _ => None,
    };
    String::from_utf8_lossy(output).lines().filter_map(row).collect()
}

/// Reads associations.
#[must_use]
pub fn associations(output: &[u8]) -> Vec<Association> {
    let row = |line: &str| match fields(line)[..] {
        [cluster, account, submit, running, group, qos] if !account.is_empty() => {
            let of_group: Option<u64> = group.parse().ok();
            Some(Association {
                cluster: cluster.to_owned(),
                account: account.to_owned(),
                max_submit: submit.parse().ok().into_iter().chain(of_group).min(),
                max_running: running.parse().ok(),
                qos: names(qos),
            })
        }
        _ => None,
    };
    String::from_utf8_lossy(output).lines().filter_map(row).collect()
}

/// Reads a user's default account.
#[must_use]
pub fn default_account(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Reads the accounts and QOSes of jobs. A row of another form is a job too: it counts for nothing that has a name.
#[must_use]
pub fn own_jobs(output: &[u8]) -> Vec<QueuedJob> {
    let row = |line: &str| {
        let (account, qos) = line.trim().split_once('|').unwrap_or_default();
        QueuedJob { account: account.to_owned(), qos: qos.to_owned() }
    };
    String::from_utf8_lossy(output)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(row)
        .collect()
}

fn fields(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_others_passed_over() {
        let text = "normal||cluster|00:00:00||||\nurgent|normal,scavenge|requeue|00:02:00|50|8||40\nbanner\n\n";
        let all = qos(text.as_bytes());
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!((all[1].grace_time, all[1].max_submit), (120, Some(40)));
        assert_eq!(all[1].preempts, ["normal", "scavenge"]);
        let text = "dev|lab|100||50|normal,urgent\ndev|root||||normal\n";
        let all = associations(text.as_bytes());
        assert_eq!((all[0].max_submit, all[1].max_submit), (Some(50), None));
        assert_eq!(all[0].qos, ["normal", "urgent"]);
        let all = groups(b"dev|root||\ndev|lab|root|20\n");
        assert_eq!((&all[0].parent, all[0].max_submit), (&None, None));
        assert_eq!((all[1].parent.as_deref(), all[1].max_submit), (Some("root"), Some(20)));
    }

    #[test]
    fn jobs_count_for_their_account_and_qos() {
        let jobs = own_jobs(b"lab|normal\nlab|urgent\n\n");
        assert_eq!((jobs.len(), &*jobs[1].account, &*jobs[1].qos), (2, "lab", "urgent"));
        assert_eq!(default_account(b"\nlab\n"), Some("lab".to_owned()));
        assert_eq!(default_account(b"\n"), None);
    }
}
