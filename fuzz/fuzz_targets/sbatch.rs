//! What `sbatch --parsable` prints: an id only where one line holds nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_slurm::slurm::SlurmError;
use nemo_slurm::slurm::parse::submit;

fuzz_target!(|output: &[u8]| {
    if let Some((job, _)) = submit::parse(output) {
        let number = job.to_string();
        assert!(String::from_utf8_lossy(output).contains(&number) && job.0 > 0);
    }
    for program in ["sbatch", "squeue", "sacct", "scontrol", "scancel"] {
        let error = SlurmError::from_output(program, output, Some(1));
        assert!(!error.to_string().is_empty());
    }
});
