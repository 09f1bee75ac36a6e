//! `[notify]`: who is told when an experiment or a task of it is over.

use nemo_core::rundir::CommandSpec;
use nemo_core::shell::{self, QuoteContext, ShellPart};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::ResolvedConfig;
use super::problem_report::{ProblemReport, choices};
use super::reader::{Field, Section};
use super::toml_tree::TomlValue;

/// What is told of, and on which ways. Each way is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Which ends are told.
    pub on: Vec<NoticeKind>,
    /// Whose ends are told.
    pub of: Vec<NoticeScope>,
    /// A command that is run with the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandSpec>,
    /// Where the notice is posted as JSON. It may hold a token: it is shown only as far as its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whom the site's mailer sends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email: Vec<String>,
}

/// The end of an experiment, a task or a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the definition")]
pub enum NoticeKind {
    /// A trial failed or ran out of time, and is not retried by itself.
    Failed,
    Completed,
    /// What it waits for can never be.
    Blocked,
    Cancelled,
}

impl NoticeKind {
    /// As it is spelt in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whose ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the definition")]
pub enum NoticeScope {
    Experiment,
    Task,
    Trial,
}

const KINDS: [(&str, NoticeKind); 4] = [
    ("failed", NoticeKind::Failed),
    ("completed", NoticeKind::Completed),
    ("blocked", NoticeKind::Blocked),
    ("cancelled", NoticeKind::Cancelled),
];
/// Nobody has to be told of a cancel of their own.
const DEFAULT_KINDS: [NoticeKind; 3] =
    [NoticeKind::Failed, NoticeKind::Completed, NoticeKind::Blocked];
const SCOPES: [(&str, NoticeScope); 3] = [
    ("experiment", NoticeScope::Experiment),
    ("task", NoticeScope::Task),
    ("trial", NoticeScope::Trial),
];
/// Four hundred trials are no reason for four hundred mails.
const DEFAULT_SCOPES: [NoticeScope; 2] = [NoticeScope::Experiment, NoticeScope::Task];

/// What a command may name.
const PLACEHOLDERS: [&str; 9] =
    ["id", "event", "experiment", "name", "target", "task", "trial", "state", "subject"];

/// Reads the section.
pub(super) fn read(file: &mut Section<'_>, report: &mut ProblemReport) -> Option<Notify> {
    let mut section = file.take_section("notify", report)?;
    let on = section.take("on").map(|field| words(&field, &KINDS, report));
    let of = section.take("of").map(|field| words(&field, &SCOPES, report));
    let command = section.take("command").and_then(|field| command(&field, report));
    let url = section.take("url").and_then(|field| url(&field, report));
    let email = section.take("email").map(|field| field.one_or_more()).unwrap_or_default();
    let email: Vec<String> = email.iter().filter_map(|field| address(field, report)).collect();
    let place = section.place.clone();
    let has_way = ["command", "url", "email"].iter().any(|way| section.table.get(way).is_some());
    section.finish(report);
    if !has_way {
        report
            .problem(&place, "`notify` does not say how")
            .hint("add `command = \"…\"`, `url = \"https://…\"` or `email = \"…\"`");
    }
    let on = on.unwrap_or_else(|| DEFAULT_KINDS.to_vec());
    let of = of.unwrap_or_else(|| DEFAULT_SCOPES.to_vec());
    Some(Notify { on, of, command, url, email })
}

fn words<T: Copy + PartialEq>(
    field: &Field<'_>,
    known: &[(&str, T)],
    report: &mut ProblemReport,
) -> Vec<T> {
    let mut words: Vec<T> = Vec::new();
    for item in field.one_or_more() {
        let word = item.word(known, report);
        words.extend(word.filter(|word| !words.contains(word)));
    }
    words
}

/// A text for `sh` or a list, whose placeholders all mean something.
fn command(field: &Field<'_>, report: &mut ProblemReport) -> Option<CommandSpec> {
    let command = if let TomlValue::List(_) = field.value {
        CommandSpec::Exec(field.texts(report))
    } else {
        CommandSpec::Shell(field.text_as("a command: a string, or a list of words", report)?)
    };
    let texts = match &command {
        CommandSpec::Shell(text) => std::slice::from_ref(text),
        CommandSpec::Exec(words) => words,
    };
    if texts.iter().all(|text| text.trim().is_empty()) {
        report
            .problem(&field.place, "the command is empty")
            .hint("write for example `command = \"mail -s {subject} me\"`");
        return None;
    }
    for part in texts.iter().flat_map(|text| shell::parts(text)) {
        let ShellPart::Name { name, place, .. } = part else { continue };
        if !PLACEHOLDERS.contains(&name) {
            let message = format!("`{{{name}}}` means nothing in `notify`");
            let hint = choices(name, "the placeholders here are", PLACEHOLDERS);
            report.problem(&field.place, message).hint(hint);
        } else if let (Ok(QuoteContext::Arithmetic), CommandSpec::Shell(_)) = (place, &command) {
            let message = format!("`{{{name}}}` stands in `$((…))`, and is no number");
            report.problem(&field.place, message).hint("write it outside of the calculation");
        } else if let (Err(refusal), CommandSpec::Shell(_)) = (place, &command) {
            let message = format!("`{{{name}}}` {}", refusal.message());
            report.problem(&field.place, message).hint(refusal.hint());
        }
    }
    Some(command)
}

/// An address of the web. No problem repeats it: it may hold a token.
fn url(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let url = field.text(report)?;
    let is_plain = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let has_host =
        host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']));
    if is_plain && has_host {
        return Some(url);
    }
    report
        .problem(&field.place, "this is no address that a notice can be posted to")
        .hint("write one that begins with `https://` and has no blanks");
    None
}

fn address(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let text = field.text(report)?;
    // A mailer's arguments and headers: nothing may look like an option, or begin another line.
    let is_plain =
        text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, ',' | '<' | '>' | '"' | '\\'));
    if is_plain && text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some(text);
    }
    report
        .problem(&field.place, format!("{text:?} is no address of mail"))
        .hint("write one such as `email = \"me@example.org\"`, or a list of them");
    None
}

/// An address without what may be a password or a token: its scheme and host.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let more = if path.len() > 1 { "/…" } else { "" };
    format!("{scheme}://{host}{more}")
}

impl Notify {
    /// The variables that its command's placeholders become, in order: `{task}` is `NEMO_NOTICE_TASK`.
    #[must_use]
    pub fn variable(placeholder: &str) -> String {
        format!("NEMO_NOTICE_{}", placeholder.to_uppercase())
    }

    /// Keeps the address out of what is shown of a configuration.
    pub(super) fn hide_url(&self, config: &mut ResolvedConfig) {
        let Some(url) = &self.url else { return };
        let shown = shown_url(url);
        let key = "notify.url";
        let origin = config.origin.get(key).cloned().unwrap_or_default();
        let origin =
            if origin.contains(url.as_str()) { format!("--set {key}={shown}") } else { origin };
        config.set(&["notify", "url"], json!(shown), &origin);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::experiment::load;

    fn notify(text: &str) -> Result<Notify, String> {
        let text = format!("name = \"a\"\n[notify]\n{text}\n[task.t]\nrun = \"true\"\n");
        let loaded = load(&text, Path::new("exp.toml"), &[], None);
        loaded.map(|it| it.experiment.notify.unwrap()).map_err(|it| it.to_string())
    }

    #[test]
    fn what_is_told_by_default_are_the_ends_of_tasks_and_experiments() {
        let told = notify("email = \"me\"").unwrap();
        assert_eq!((told.on, told.of), (DEFAULT_KINDS.to_vec(), DEFAULT_SCOPES.to_vec()));
        let told =
            notify("on = \"failed\"\nof = [\"trial\"]\ncommand = [\"tell\", \"{id}\"]").unwrap();
        assert_eq!((told.on, told.of), (vec![NoticeKind::Failed], vec![NoticeScope::Trial]));
    }

    #[test]
    fn what_cant_be_told_is_refused() {
        let refused = |text: &str, expected: &str| {
            let error = notify(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        refused("on = [\"failed\"]", "does not say how");
        refused("on = [\"faild\"]\nemail = \"me\"", "failed");
        refused("command = \"mail {experimnt}\"", "did you mean `experiment`");
        refused("command = \"cat <<'X'\\n{id}\\nX\\n\"", "end mark is quoted");
        refused("command = \"echo $(({trial}))\"", "is no number");
        refused("command = \"\"", "empty");
        refused("email = \"-Xevil\"", "no address");
        refused("email = \"a\\nBcc: b\"", "no address");
        refused("url = \"ftp://x\"", "https://");
        refused("uri = \"x\"", "url");
        let error = notify("url = \"https://x/to ken\"").unwrap_err();
        assert!(error.contains("no blanks"), "{error}");
    }

    #[test]
    fn an_address_is_shown_without_its_tokens() {
        let check = |url: &str, expected: &str| assert_eq!(shown_url(url), expected, "{url}");
        check("https://hooks.example/T0/B0/secret", "https://hooks.example/…");
        check("https://me:word@x.example:8443?token=1", "https://x.example:8443/…");
        check("http://127.0.0.1:9/", "http://127.0.0.1:9");
        let text = "name = \"a\"\n[task.t]\nrun = \"true\"\n";
        let set = ["notify.url=\"https://x/secret\"".parse().unwrap()];
        let loaded = load(text, Path::new("exp.toml"), &set, None).unwrap();
        let shown = serde_json::to_string(&loaded.config).unwrap();
        assert!(shown.contains("https://x/…") && !shown.contains("secret"), "{shown}");
        assert_eq!(loaded.experiment.notify.unwrap().url.unwrap(), "https://x/secret");
    }
}
