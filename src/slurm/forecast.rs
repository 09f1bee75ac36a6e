//! Questions about starts that are still to come. Nothing is submitted.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::client::{Client, id_lists};
use super::command::block_on;
use super::environment::{FOR_QUESTIONS, is_for_sbatch};
use super::error::SlurmError;
use super::id::JobId;
use super::parse::forecast::{self, ForecastRow};
use super::parse::time::UnixTime;
use super::parse::{Parsed, queue};

impl Client {
    /// When Slurm expects the waiting jobs of these arrays to start. One `squeue`.
    pub fn forecasts(&self, jobs: &[JobId]) -> Result<Parsed<ForecastRow>, SlurmError> {
        let delimiter = char::from(queue::DELIMITER);
        let fields = forecast::FIELDS.map(|field| format!("{field}:{delimiter}")).join(",");
        let format = format!("--Format={fields}");
        let mut all = Vec::new();
        for list in id_lists(jobs) {
            let jobs = format!("--jobs={list}");
            let words = ["--noheader", "--states=PENDING", &format, &jobs];
            all.extend(self.call("squeue", &words)?.stdout);
        }
        Ok(forecast::parse(&all))
    }

    /// When a script would start if it were submitted now with these options besides its own: `sbatch --test-only`.
    /// Nothing if Slurm does not say.
    pub fn test_only(
        &self,
        script: &Path,
        options: &[String],
    ) -> Result<Option<UnixTime>, SlurmError> {
        let text = std::fs::read(script).unwrap_or_default(); // sbatch says it best if there is no such file
        let text = String::from_utf8_lossy(&text);
        let mut words = vec![OsString::from("--test-only")];
        words.extend(options.iter().map(OsString::from));
        words.push(script.into());
        let allow_env = |name: &OsStr| is_for_sbatch(name, &text, options);
        let output = block_on("sbatch", self.run("sbatch", &words, &allow_env, &FOR_QUESTIONS))?;
        Ok(forecast::test_only(&output.stderr))
    }
}
