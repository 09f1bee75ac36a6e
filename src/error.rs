//! What goes wrong, as a user meets it: a message, its causes, hints to type next, and an exit code.

use std::error::Error;

use crate::executor::local::{RunnerError, SpawnError};
use crate::executor::slurm::SubmitError;
use crate::experiment::Problems;
use crate::file_error::FileError;
pub use crate::file_error::IoResultExt;
use crate::git::GitError;
use crate::plan::PlanError;
use crate::report::own_commands::with_home;
use crate::slurm::SlurmError;
use crate::store::{ClaimError, StoreError, TargetError};

/// What the program's exit code means. Part of the contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All is well.
    Fine = 0,
    /// The experiment failed, or this command could not do its work.
    Failed = 1,
    /// Wrong use, or a wrong file.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Slurm did not answer; nothing is assumed.
    NoAnswer = 4,
    /// Refused for safety.
    Refused = 5,
}

/// Why a command could not do its work.
#[derive(Debug)]
pub struct CommandError {
    /// The program's exit code.
    pub code: ExitCode,
    /// What happened.
    pub error: Box<dyn Error + Send + Sync>,
    /// What to type next.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error with a text of its own.
    pub fn new(code: ExitCode, text: impl Into<String>) -> Self {
        Self { code, error: text.into().into(), hints: Vec::new() }
    }

    /// An error that something else caused.
    pub fn from_error(code: ExitCode, error: impl Error + Send + Sync + 'static) -> Self {
        Self { code, error: Box::new(error), hints: Vec::new() }
    }

    /// Adds what to type next.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn hinted_by(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hints.extend(hint.map(Into::into));
        self
    }

    /// Whether the reader of our output has gone, which is no error.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let file = self.error.downcast_ref::<FileError>();
        file.is_some_and(|error| error.source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The message and its causes in one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut parts = vec![self.error.to_string()];
        let mut cause = self.error.source();
        while let Some(error) = cause {
            parts.push(error.to_string());
            cause = error.source();
        }
        parts.join(": ")
    }

    /// The whole text for stderr. [`Problems`] bring their own form.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(problems) = self.error.downcast_ref::<Problems>() {
            let count = crate::humanize::count(problems.0.len() + problems.1, "problem");
            let told = format!("{}\n\n{count}\n", problems.to_string().trim_end());
            let hint = |text: String, hint: &String| text + "\nhint: " + hint + "\n";
            return self.hints.iter().fold(told, hint);
        }
        let mut lines = vec![format!("error: {}", self.error)];
        let mut cause = self.error.source();
        while let Some(error) = cause {
            lines.push(format!("  caused by: {error}"));
            cause = error.source();
        }
        lines.extend(self.hints.iter().map(|hint| format!("\nhint: {hint}")));
        lines.join("\n") + "\n"
    }

    /// The same for a script.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let (message, hints) = match self.error.downcast_ref::<Problems>() {
            Some(problems) => (messages(problems), hints(problems)),
            None => (self.one_line(), self.hints.clone()),
        };
        error_json(&message, &hints, self.code)
    }
}

/// What is printed for a script where something went wrong.
#[must_use]
pub fn error_json(message: &str, hints: &[String], code: ExitCode) -> serde_json::Value {
    let hints: Vec<_> = hints.iter().map(|hint| with_home(hint)).collect();
    let message = with_home(message);
    let error = serde_json::json!({ "message": message, "hints": hints, "exit_code": code as u8 });
    serde_json::json!({ "schema": 1, "error": error })
}

fn messages(problems: &Problems) -> String {
    problems.0.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

fn hints(problems: &Problems) -> Vec<String> {
    problems.0.iter().filter_map(|problem| problem.hint.clone()).collect()
}

impl From<FileError> for CommandError {
    fn from(error: FileError) -> Self {
        Self::from_error(ExitCode::Failed, error)
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Distrust(why) = error {
            let hint = why.hint();
            return Self::from_error(ExitCode::Refused, why).hinted(hint);
        }
        Self::from_error(ExitCode::Failed, error)
    }
}

impl From<TargetError> for CommandError {
    fn from(error: TargetError) -> Self {
        let code = match error {
            TargetError::NotFound { .. }
            | TargetError::NoJob { .. }
            | TargetError::WrappedJob { .. }
            | TargetError::OnlyJobs
            | TargetError::AllArchived => ExitCode::NotFound,
            TargetError::Malformed { .. } | TargetError::Ambiguous { .. } => ExitCode::Usage,
            TargetError::Store(_) => ExitCode::Failed,
        };
        let hint = error.hint();
        Self::from_error(code, error).hinted_by(hint)
    }
}

impl From<Problems> for CommandError {
    fn from(problems: Problems) -> Self {
        Self::from_error(ExitCode::Usage, problems)
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        let hint = error.hint();
        Self::from_error(ExitCode::Usage, error).hinted(hint)
    }
}

impl From<GitError> for CommandError {
    fn from(error: GitError) -> Self {
        Self::from_error(ExitCode::Failed, error)
            .hinted("ship nothing with `--set package.from=none`, or all of the folder with `--set package.from=folder`")
    }
}

impl From<SpawnError> for CommandError {
    fn from(error: SpawnError) -> Self {
        Self::from_error(ExitCode::Failed, error)
    }
}

impl From<RunnerError> for CommandError {
    fn from(error: RunnerError) -> Self {
        match error {
            RunnerError::Claim(error) => error.into(),
            error => Self::from_error(ExitCode::Failed, error),
        }
    }
}

impl From<SlurmError> for CommandError {
    fn from(error: SlurmError) -> Self {
        let hint = error.hint();
        Self::from_error(slurm_code(&error), error).hinted_by(hint)
    }
}

fn slurm_code(error: &SlurmError) -> ExitCode {
    match error {
        error if error.is_no_answer() => ExitCode::NoAnswer,
        // What was asked for is wrong.
        SlurmError::Refused { .. } => ExitCode::Usage,
        _ => ExitCode::Failed,
    }
}

impl From<ClaimError> for CommandError {
    fn from(error: ClaimError) -> Self {
        Self::from_error(claim_code(&error), error)
    }
}

fn claim_code(error: &ClaimError) -> ExitCode {
    match error {
        ClaimError::Held { .. } | ClaimError::Lost { .. } => ExitCode::Refused,
        ClaimError::Io { .. } => ExitCode::Failed,
    }
}

impl From<SubmitError> for CommandError {
    fn from(error: SubmitError) -> Self {
        let code = match &error {
            SubmitError::Refused { .. } => ExitCode::Usage,
            SubmitError::Journal(_) => ExitCode::Failed,
            SubmitError::Claim(source) => claim_code(source),
            SubmitError::Slurm { source, .. }
            | SubmitError::NotAsked { source, .. }
            | SubmitError::NotTakenBack { source, .. }
            | SubmitError::Held(source) => slurm_code(source),
        };
        let hint = match &error {
            SubmitError::Refused { cancelled: 0, .. } => None,
            SubmitError::Refused { cancelled: 1, .. } => Some(
                "the job array that Slurm had accepted already is cancelled: it will not run"
                    .to_owned(),
            ),
            SubmitError::Refused { cancelled, .. } => Some(format!(
                "the {cancelled} job arrays that Slurm had accepted already are cancelled: they will not run"
            )),
            // Without an answer, what comes next is `submit --continue`, which the command says.
            SubmitError::NotAsked { source, .. }
            | SubmitError::Slurm { source, .. }
            | SubmitError::Held(source)
                if !source.is_no_answer() =>
            {
                source.hint().map(str::to_owned)
            }
            SubmitError::NotAsked { .. }
            | SubmitError::Slurm { .. }
            | SubmitError::Held(_)
            | SubmitError::NotTakenBack { .. }
            | SubmitError::Journal(_)
            | SubmitError::Claim(_) => None,
        };
        Self::from_error(code, error).hinted_by(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[track_caller]
    fn check(error: impl Into<CommandError>, code: ExitCode, hint: Option<&str>) {
        let error = error.into();
        assert_eq!(error.code, code, "{error:?}");
        let hints = error.hints.join(" ");
        assert!(hint.map_or(hints.is_empty(), |hint| hints.contains(hint)), "{error:?}");
    }

    #[test]
    fn an_exit_code_means_what_the_documentation_says() {
        let full = || io::ErrorKind::StorageFull.into();
        let io = || ClaimError::Io { folder: "/home".to_owned(), source: full() };
        check(io(), ExitCode::Failed, None);
        check(SubmitError::Claim(io()), ExitCode::Failed, None);
        check(ClaimError::Held { holder: None }, ExitCode::Refused, None);
        check(SubmitError::Claim(ClaimError::Lost { holder: None }), ExitCode::Refused, None);
        let missing = || SlurmError::MissingProgram { program: "sbatch", path: "/bin".into() };
        check(missing(), ExitCode::Failed, Some("load the module"));
        check(SubmitError::Held(missing()), ExitCode::Failed, Some("load the module"));
        check(SlurmError::AccountingOff, ExitCode::Failed, None);
        let field = || SlurmError::UnknownField { program: "squeue", reason: "Foo".to_owned() };
        check(field(), ExitCode::Failed, Some("-vv"));
        let waited = std::time::Duration::ZERO;
        let silent = || SlurmError::NoAnswer { program: "sbatch", waited };
        check(silent(), ExitCode::NoAnswer, Some("again in a minute"));
        let token = "a.b.0".to_owned();
        check(SubmitError::Slurm { token, source: silent() }, ExitCode::NoAnswer, None);
    }
}
