//! Questions about a site: its limits, partitions, nodes, QOSes, accounts, and the jobs that a user has there.

use super::client::{Client, unreadable};
use super::command::block_on;
use super::error::SlurmError;
use super::parse::accounts::{self, AccountGroup, Association, Qos, QueuedJob};
use super::parse::config::{self, ClusterLimits};
use super::parse::node::{self, Node};
use super::parse::partition::{self, Partition};

impl Client {
    /// The cluster's limits and settings that a plan depends on.
    pub fn limits(&self) -> Result<ClusterLimits, SlurmError> {
        block_on("scontrol", self.fetch_limits())
    }

    async fn fetch_limits(&self) -> Result<ClusterLimits, SlurmError> {
        let output = self.call_async("scontrol", &["show", "config"]).await?;
        config::parse(&output.stdout).ok_or_else(|| unreadable("scontrol", &output))
    }

    /// The cluster's partitions, hidden ones included.
    pub fn partitions(&self) -> Result<Vec<Partition>, SlurmError> {
        block_on("scontrol", self.fetch_partitions())
    }

    async fn fetch_partitions(&self) -> Result<Vec<Partition>, SlurmError> {
        let words = ["--all", "--oneliner", "show", "partition"];
        let output = self.call_async("scontrol", &words).await?;
        let parsed = partition::parse(&output.stdout);
        if parsed.rows.is_empty() { Err(unreadable("scontrol", &output)) } else { Ok(parsed.rows) }
    }

    /// The limits and the partitions, asked side by side.
    pub fn limits_and_partitions(&self) -> Result<(ClusterLimits, Vec<Partition>), SlurmError> {
        let both = async { tokio::try_join!(self.fetch_limits(), self.fetch_partitions()) };
        block_on("scontrol", both)
    }

    /// The cluster's nodes.
    pub fn nodes(&self) -> Result<Vec<Node>, SlurmError> {
        let output = self.call("scontrol", &["--all", "--oneliner", "show", "node"])?;
        Ok(node::parse(&output.stdout).rows)
    }

    /// The QOSes of the site.
    pub fn qos(&self) -> Result<Vec<Qos>, SlurmError> {
        let format = format!("format={}", accounts::QOS_FIELDS);
        let words = ["--noheader", "--parsable2", "show", "qos", &format];
        Ok(accounts::qos(&self.call("sacctmgr", &words)?.stdout))
    }

    /// The accounts that a user may use.
    pub fn associations(&self, user: &str) -> Result<Vec<Association>, SlurmError> {
        let format = format!("format={}", accounts::ASSOCIATION_FIELDS);
        let user = format!("user={user}");
        let words = ["--noheader", "--parsable2", "show", "assoc", "where", &user, &format];
        Ok(accounts::associations(&self.call("sacctmgr", &words)?.stdout))
    }

    /// What the accounts of the site allow all of their users together.
    pub fn account_groups(&self) -> Result<Vec<AccountGroup>, SlurmError> {
        let format = format!("format={}", accounts::GROUP_FIELDS);
        let words = ["--noheader", "--parsable2", "show", "assoc", "where", "user=", &format];
        Ok(accounts::groups(&self.call("sacctmgr", &words)?.stdout))
    }

    /// The account that a user's jobs go to where nothing names one; none if Slurm has none.
    pub fn default_account(&self, user: &str) -> Result<Option<String>, SlurmError> {
        let user = format!("name={user}");
        let words =
            ["--noheader", "--parsable2", "show", "user", "where", &user, "format=DefaultAccount"];
        Ok(accounts::default_account(&self.call("sacctmgr", &words)?.stdout))
    }

    /// This user's jobs in the queue, each task of an array for itself.
    pub fn own_jobs(&self) -> Result<Vec<QueuedJob>, SlurmError> {
        let words = ["--noheader", "--me", "--array", "--format=%a|%q"];
        Ok(accounts::own_jobs(&self.call("squeue", &words)?.stdout))
    }
}
