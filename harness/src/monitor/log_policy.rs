//! Log policies: what a line of the program's output leads to, each policy once an attempt.

use nemo_core::rundir::LogPolicy;
use regex_lite::Regex;

/// The policies of a task.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    waiting: Vec<(LogPolicy, Regex)>,
}

impl Policies {
    pub(crate) fn new(policies: &[LogPolicy]) -> Result<Self, String> {
        Ok(Self { waiting: policies.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether there is anything to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The policies that a line is the first to match.
    pub(crate) fn line(&mut self, line: &str) -> Vec<LogPolicy> {
        let matched = self.waiting.extract_if(.., |(_, regex)| regex.is_match(line));
        matched.map(|(policy, _)| policy).collect()
    }
}

fn compile(policy: &LogPolicy) -> Result<(LogPolicy, Regex), String> {
    let LogPolicy { name, pattern, .. } = policy;
    match Regex::new(pattern) {
        Ok(regex) => Ok((policy.clone(), regex)),
        Err(error) => Err(format!("the pattern of log policy `{name}`, `{pattern}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemo_core::rundir::LogAction;

    #[test]
    fn a_policy_acts_once() {
        let policy = |name: &str, pattern: &str| LogPolicy {
            name: name.into(),
            pattern: pattern.into(),
            action: LogAction::Label,
        };
        let mut policies = Policies::new(&[policy("ecc", "ECC err"), policy("any", "e")]).unwrap();
        let names = |found: Vec<LogPolicy>| -> Vec<String> {
            found.into_iter().map(|policy| policy.name).collect()
        };
        assert_eq!(names(policies.line("fine")), ["any"]);
        assert_eq!(names(policies.line("an ECC error")), ["ecc"]);
        assert!(policies.line("an ECC error").is_empty());
        assert!(policies.is_empty());
        assert!(Policies::new(&[policy("bad", "(")]).unwrap_err().contains("`bad`"));
    }
}
