//! What `scontrol` prints: jobs, partitions and the configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_slurm::slurm::parse::{config, job, partition};

fuzz_target!(|output: &[u8]| {
    let jobs = job::parse(output);
    for row in jobs.rows {
        assert!(row.tasks.indices().count() <= 4_000_001);
    }
    let _partitions = partition::parse(output);
    if let Some(limits) = config::parse(output) {
        assert_eq!(limits.requeue_exit.count(), limits.requeue_exit.iter().count());
    }
});
