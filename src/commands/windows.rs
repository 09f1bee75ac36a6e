//! How many more jobs a user may have in Slurm now. What does not fit is submitted later, in windows.

use std::collections::BTreeSet;

use super::App;
use super::note::user_name;
use crate::experiment::{Executor, Experiment, SlurmExecutor};
use crate::slurm::{AccountGroup, AccountTree, Association, Cluster, Qos, QueuedJob, SlurmError};

/// What a site allows a user, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobRoom {
    /// How many jobs may be in Slurm at once.
    pub(super) limit: usize,
    /// How many more.
    pub(super) left: usize,
}

impl JobRoom {
    /// How many jobs are worth a try. One always is: Slurm has the last word, and its refusal is written down.
    pub(super) fn worth_a_try(self) -> usize {
        self.left.max(1)
    }
}

/// What is known of it; nothing where there is no limit, or nobody tells: then `sbatch` has the last word.
pub(super) fn room(app: &App, experiment: &Experiment, cluster: &Cluster) -> Option<JobRoom> {
    if !cluster.limits_enforced || experiment.cluster().is_some() || !experiment.has_slurm() {
        return None;
    }
    let asked = || -> Result<Option<JobRoom>, SlurmError> {
        let Some(user) = user_name(app) else { return Ok(None) };
        let client = &app.slurm;
        let Some(wanted) = WantedAccounts::of(app, experiment, || client.default_account(&user))?
        else {
            return Ok(None);
        };
        let (own, qos, name) = (client.associations(&user)?, client.qos()?, &cluster.name);
        // A site may keep other accounts to itself.
        let groups = client.account_groups().unwrap_or_default();
        let mut limits = limits(&own, &qos, &wanted, name);
        limits.extend(group_limits(&groups, &wanted, name));
        if limits.is_empty() {
            return Ok(None);
        }
        Ok(smallest(&limits, &client.own_jobs()?))
    };
    asked().ok().flatten()
}

/// The accounts and QOSes of the experiment's jobs.
struct WantedAccounts {
    accounts: BTreeSet<String>,
    /// None is named where it is empty.
    qos: BTreeSet<String>,
}

impl WantedAccounts {
    /// Nothing if the account of a job is not known.
    fn of(
        app: &App,
        experiment: &Experiment,
        default_account: impl FnOnce() -> Result<Option<String>, SlurmError>,
    ) -> Result<Option<Self>, SlurmError> {
        let used = |executor: &String| {
            let slurm = experiment.executors.get(executor);
            slurm.and_then(|it| if let Executor::Slurm(slurm) = it { Some(slurm) } else { None })
        };
        let executors: Vec<&SlurmExecutor> =
            experiment.tasks.iter().filter_map(|task| used(&task.executor)).collect();
        let all = |option: &str, variable: &str| -> Vec<Option<String>> {
            let of_shell = app.variable(variable).and_then(|it| it.to_str()).map(str::to_owned);
            let of = |it: &&SlurmExecutor| it.sbatch.get(option).cloned().or(of_shell.clone());
            executors.iter().map(of).collect()
        };
        let (named, qos) = (all("account", "SBATCH_ACCOUNT"), all("qos", "SBATCH_QOS"));
        let mut accounts: BTreeSet<String> = named.iter().flatten().cloned().collect();
        if named.contains(&None) {
            let Some(account) = default_account()? else { return Ok(None) };
            accounts.insert(account);
        }
        Ok(Some(Self { accounts, qos: qos.into_iter().flatten().collect() }))
    }
}

/// How many jobs may be in an account, in an account and those below it, or in a QOS.
#[derive(Debug, PartialEq, Eq)]
enum JobLimit {
    Account(String, u64),
    /// Only one's own jobs are seen: others may have taken more.
    Group(BTreeSet<String>, u64),
    Qos(String, u64),
}

impl JobLimit {
    fn room(&self, jobs: &[QueuedJob]) -> Option<JobRoom> {
        let (taken, limit) = match self {
            Self::Account(name, limit) => {
                (jobs.iter().filter(|it| it.account == *name).count(), *limit)
            }
            Self::Group(names, limit) => {
                (jobs.iter().filter(|it| names.contains(&it.account)).count(), *limit)
            }
            Self::Qos(name, limit) => (jobs.iter().filter(|it| it.qos == *name).count(), *limit),
        };
        let limit = usize::try_from(limit).ok()?;
        Some(JobRoom { limit, left: limit.saturating_sub(taken) })
    }
}

/// What is left where least is. Pure.
fn smallest(limits: &[JobLimit], jobs: &[QueuedJob]) -> Option<JobRoom> {
    limits.iter().filter_map(|limit| limit.room(jobs)).min_by_key(|room| room.left)
}

/// The limits that hold for the experiment's jobs. Pure.
fn limits(
    associations: &[Association],
    qos: &[Qos],
    wanted: &WantedAccounts,
    cluster: &str,
) -> Vec<JobLimit> {
    let is_meant =
        |it: &&Association| it.cluster == cluster && wanted.accounts.contains(&it.account);
    let meant: Vec<&Association> = associations.iter().filter(is_meant).collect();
    let is_default = |name: &str| {
        meant.iter().any(|it| match it.qos.as_slice() {
            [only] => only == name,
            _ => name == "normal" && it.qos.iter().any(|own| own == name),
        })
    };
    let is_used = |name: &str| {
        if wanted.qos.is_empty() { is_default(name) } else { wanted.qos.contains(name) }
    };
    let of_account =
        |it: &&Association| Some(JobLimit::Account(it.account.clone(), it.max_submit?));
    let of_qos = |it: &Qos| Some(JobLimit::Qos(it.name.clone(), it.max_submit?));
    let of_qos = qos.iter().filter(|it| is_used(&it.name)).filter_map(of_qos);
    meant.iter().filter_map(of_account).chain(of_qos).collect()
}

/// The limits of the accounts and of those above them, for all of their users together. Pure.
fn group_limits(groups: &[AccountGroup], wanted: &WantedAccounts, cluster: &str) -> Vec<JobLimit> {
    let tree = AccountTree::new(groups, cluster);
    let is_below = |account: &str, name: &str| tree.lineage(account).any(|it| it.account == name);
    let of_cluster = || groups.iter().filter(|it| it.cluster == cluster);
    let group = |it: &AccountGroup| {
        let limit = it.max_submit?;
        let below = of_cluster().filter(|own| is_below(&own.account, &it.account));
        let is_wanted = wanted.accounts.iter().any(|own| is_below(own, &it.account));
        is_wanted.then(|| JobLimit::Group(below.map(|own| own.account.clone()).collect(), limit))
    };
    of_cluster().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_of_the_accounts_and_qos_that_are_meant() {
        let association = |account: &str, max_submit, qos: &[&str]| Association {
            cluster: "dev".to_owned(),
            account: account.to_owned(),
            max_submit,
            qos: qos.iter().map(ToString::to_string).collect(),
            ..Association::default()
        };
        let all = [
            association("lab", Some(50), &["normal", "urgent"]),
            association("big", None, &["normal"]),
            association("tiny", Some(2), &["normal"]),
        ];
        let qos =
            |name: &str, max_submit| Qos { name: name.to_owned(), max_submit, ..Qos::default() };
        let known = [qos("normal", Some(80)), qos("urgent", Some(5))];
        let job = |account: &str, qos: &str| QueuedJob {
            account: account.to_owned(),
            qos: qos.to_owned(),
        };
        let jobs = [job("tiny", "normal"), job("tiny", "normal"), job("lab", "urgent")];
        let check =
            |accounts: &[&str], wanted: &[&str], cluster, expected: Option<(usize, usize)>| {
                let names = |all: &[&str]| all.iter().map(ToString::to_string).collect();
                let wanted = WantedAccounts { accounts: names(accounts), qos: names(wanted) };
                let room = smallest(&limits(&all, &known, &wanted, cluster), &jobs);
                assert_eq!(room.map(|it| (it.limit, it.left)), expected, "{accounts:?}");
            };
        // Jobs of another account take no room in this one.
        check(&["lab"], &[], "dev", Some((50, 49)));
        check(&["big"], &[], "dev", Some((80, 78)));
        check(&["lab"], &["urgent"], "dev", Some((5, 4)));
        check(&["tiny"], &[], "dev", Some((2, 0)));
        check(&["lab"], &[], "other", None);
        assert_eq!(JobRoom { limit: 2, left: 0 }.worth_a_try(), 1, "Slurm has the last word");
    }

    #[test]
    fn an_account_has_no_more_room_than_those_above_it() {
        let group = |account: &str, parent: Option<&str>, max_submit| AccountGroup {
            cluster: "dev".to_owned(),
            account: account.to_owned(),
            parent: parent.map(str::to_owned),
            max_submit,
        };
        let groups = [
            group("root", None, None),
            group("physics", Some("root"), Some(20)),
            group("lab", Some("physics"), None),
            group("other", Some("physics"), None),
            group("bio", Some("root"), Some(3)),
        ];
        let accounts = BTreeSet::from(["lab".to_owned()]);
        let wanted = WantedAccounts { accounts, qos: BTreeSet::new() };
        let limits = group_limits(&groups, &wanted, "dev");
        let job = |account: &str| QueuedJob { account: account.to_owned(), ..Default::default() };
        let room = smallest(&limits, &[job("lab"), job("other"), job("bio")]);
        assert_eq!(room, Some(JobRoom { limit: 20, left: 18 }));
        assert!(group_limits(&groups, &wanted, "far").is_empty());
    }
}
