//! The only module of nemo-slurm that knows Slurm's programs: what they are called, what they are asked, what they print.

pub mod client;
pub mod cluster;
pub mod command;
pub mod control;
mod environment;
pub mod error;
pub mod exit;
mod forecast;
pub mod id;
pub mod indices;
pub mod parse;
mod site;
pub mod state;

pub use client::{Accepted, Accounting, Client, FoundJobs, accounting_since};
pub use cluster::Cluster;
pub(crate) use command::block_on;
pub use control::{JobControl, Recipient, SOON};
pub use environment::ignored_defaults;
pub use error::SlurmError;
pub use id::{JobId, ShownId, Step, TaskSet, Tasks};
pub use indices::{IndexRange, IndexSet};
pub use parse::account::AccountRow;
pub use parse::accounts::{AccountGroup, AccountTree, Association, Qos, QueuedJob};
pub use parse::config::ClusterLimits;
pub use parse::job::JobDetail;
pub use parse::node::Node;
pub use parse::partition::Partition;
pub use parse::queue::QueueRow;
pub use parse::time::UnixTime;
pub use parse::usage::JobUsage;
pub use parse::{Parsed, UnreadLine};
pub use state::{JobPhase, JobState};
