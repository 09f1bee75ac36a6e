//! The client against a real Slurm. Skipped, and says so, where `NEMO_TEST_SLURM` isn't set.

use std::time::Duration;

use nemo_slurm::slurm::{Client, JobState, Tasks};

fn client() -> Option<Client> {
    if std::env::vars_os().any(|(name, _)| name == "NEMO_TEST_SLURM") {
        Some(Client::new(Duration::from_secs(30)))
    } else {
        eprintln!("skipped: no real Slurm here; `scripts/test` starts one");
        None
    }
}

#[test]
fn an_array_is_submitted_found_held_released_and_cancelled() {
    let Some(client) = client() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("array.sbatch");
    let text =
        "#!/bin/sh\n#SBATCH --array=0-3,7,9\n#SBATCH --output=/dev/null\n#SBATCH --hold\n:\n";
    #[expect(clippy::disallowed_methods, reason = "a file of a test")]
    std::fs::write(&script, text).unwrap();
    let name = format!("live-{}", std::process::id());

    assert!(client.find(&name, 0).unwrap().surely_none());
    let job = client.submit(&script, &[format!("--job-name={name}")]).unwrap().job;
    assert_eq!(client.find(&name, 0).unwrap().jobs, [job]);

    let rows = client.queue(&[job]).unwrap();
    assert_eq!((rows.rows.len(), rows.unread.len()), (1, 0));
    let row = &rows.rows[0];
    assert_eq!((row.array_job, &row.state, &*row.reason), (job, &JobState::Pending, "JobHeldUser"));
    let Tasks::Set(set) = &row.tasks else { panic!("{row:?}") };
    assert_eq!(set.indices.to_string(), "0-3,7,9");

    let other = client.control(vec!["other".to_owned(), "names".to_owned()]);
    other.cancel(&[job.to_string()]).unwrap();
    assert_eq!(other.own(&[job.to_string()]).unwrap(), [""; 0]);
    let control = client.control(vec!["other".to_owned(), name]);
    control.release(&[format!("{job}_[1,3]")]).unwrap();
    control.hold(&[format!("{job}_[0,2]")]).unwrap();
    control.cancel(&[format!("{job}_[7-9]"), job.to_string()]).unwrap();
    let rows = client.queue(&[job]).unwrap();
    assert!(rows.rows.iter().all(|row| row.array_job == job), "{rows:?}");
    let shown = client.show(&job.to_string()).unwrap();
    assert_eq!(shown.unread, [], "{shown:?}");
    for unknown in [format!("{job}_99"), "66000000".to_owned(), "66000000_1".to_owned()] {
        assert!(client.show(&unknown).unwrap().rows.is_empty(), "{unknown}");
    }
    assert!(client.queue(&[nemo_slurm::slurm::JobId(66_000_000)]).unwrap().rows.is_empty());
    println!("{:?}", client.limits().unwrap());
    println!("{:?}", client.partitions().unwrap());
    println!("{:?}", client.accounting(&[job], 0).unwrap());
}
