//! One datagram: lines `KEY=VALUE`. An unreadable line is skipped. Pure.

use std::path::PathBuf;
use std::time::Duration;

use nemo_core::rundir::metric_value;
use serde_json::{Map, Value};

use crate::protocol::workload::{Workload, WorkloadPlan};

/// One message of a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProgramMessage {
    /// The sender and the number of this message. A second message with that number is a repeat.
    pub(crate) source: Option<(String, u64)>,
    /// Completed steps.
    pub(crate) step: Option<u64>,
    pub(crate) lines: Vec<MessageLine>,
}

/// One line of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MessageLine {
    Ready,
    /// The next sign of life may take this long.
    Extend(Duration),
    Status(String),
    Progress(f64),
    Total(u64),
    Report {
        values: Map<String, Value>,
        validation: bool,
    },
    /// These were reported with a text, a list or a table.
    NoMetrics(Vec<String>),
    /// Values for the tasks that run after it.
    Result(Map<String, Value>),
    /// A text for people, which stays with the experiment.
    Note(String),
    /// New values of the experiment's metadata.
    Metadata(Map<String, Value>),
    /// A file to keep.
    Artifact(PathBuf),
    SaveBegin,
    SaveEnd,
    /// This name in the checkpoint folder is complete.
    CheckpointDone(Vec<u8>),
    Finished,
    InvalidParameters(String),
    Requeue,
    Ask,
    Next,
    Workloads(WorkloadPlan),
    Did(Workload),
}

/// The longest text that is kept.
const MAX_TEXT_LENGTH: usize = 500;
const LONGEST_NOTE: usize = 4000;

/// Parses a datagram.
pub(crate) fn parse(bytes: &[u8]) -> ProgramMessage {
    let text = String::from_utf8_lossy(bytes);
    let mut message = ProgramMessage::default();
    let (mut id, mut number) = (None, None);
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match key {
            "ID" => id = Some(short(value)),
            "SEQ" => number = value.parse().ok(),
            "STEP" => message.step = value.parse().ok().or(message.step),
            "METRICS" => message.lines.extend(report(value, false)),
            "VALIDATION" => message.lines.extend(report(value, true)),
            _ => message.lines.extend(line(key, value)),
        }
    }
    message.source = id.zip(number);
    message
}

fn line(key: &str, value: &str) -> Option<MessageLine> {
    let is_set = value == "1";
    Some(match key {
        "READY" if is_set => MessageLine::Ready,
        "EXTEND_TIMEOUT_USEC" => MessageLine::Extend(Duration::from_micros(value.parse().ok()?)),
        "STATUS" => MessageLine::Status(short(value)),
        "PROGRESS" => {
            MessageLine::Progress(value.parse().ok().filter(|part| (0.0..=1.0).contains(part))?)
        }
        "TOTAL" => MessageLine::Total(value.parse().ok()?),
        "RESULT" => MessageLine::Result(object(value)?),
        "NOTE" => MessageLine::Note(Some(note(value)).filter(|text| !text.is_empty())?),
        "METADATA" => MessageLine::Metadata(object(value).filter(|metadata| !metadata.is_empty())?),
        "ARTIFACT" => {
            MessageLine::Artifact(Some(PathBuf::from(value)).filter(|path| path.is_absolute())?)
        }
        "SAVE" if value == "begin" => MessageLine::SaveBegin,
        "SAVE" if value == "end" => MessageLine::SaveEnd,
        "CKPT_DONE" => MessageLine::CheckpointDone(name(value)?),
        "FINISHED" if is_set => MessageLine::Finished,
        "INVALID_HP" => MessageLine::InvalidParameters(short(value)),
        "REQUEUE" if is_set => MessageLine::Requeue,
        "ASK" if is_set => MessageLine::Ask,
        "NEXT" if is_set => MessageLine::Next,
        "WORKLOADS" => MessageLine::Workloads(serde_json::from_str(value).ok()?),
        "DID" => MessageLine::Did(Workload::parse(value)?),
        _ => return None, // a sign of life, as every message is
    })
}

/// A name in the checkpoint folder. Paths that leave the folder are rejected.
fn name(value: &str) -> Option<Vec<u8>> {
    let value = value.trim_end_matches('/');
    let is_name =
        !value.is_empty() && !value.contains(['/', '\0']) && value != "." && value != "..";
    is_name.then(|| value.as_bytes().to_vec())
}

/// A note may be longer than a status; `\n` in it stands for the end of a line, which a value can't have.
fn note(value: &str) -> String {
    let text = value.replace("\\n", "\n");
    let kept = text.chars().filter(|c| *c == '\n' || !c.is_control());
    kept.take(LONGEST_NOTE).collect::<String>().trim().to_owned()
}

fn short(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT_LENGTH).collect()
}

/// A table. Python writes `NaN` and `Infinity`, which are not JSON.
fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&finite(text))).ok()
}

/// The metrics of a report, and the names of what is none.
fn report(text: &str, validation: bool) -> impl Iterator<Item = MessageLine> {
    let (mut values, mut others) = (Map::new(), Vec::new());
    for (name, value) in object(text).unwrap_or_default() {
        match metric_value(value) {
            Some(value) => drop(values.insert(name, value)),
            None => others.push(short(&name)),
        }
    }
    let report = (!values.is_empty()).then_some(MessageLine::Report { values, validation });
    let others = (!others.is_empty()).then_some(MessageLine::NoMetrics(others));
    report.into_iter().chain(others)
}

/// Puts `null` in the place of `NaN`, `Infinity` and `-Infinity` outside of strings.
fn finite(text: &str) -> String {
    let mut written = String::new();
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let odd = ["NaN", "-Infinity", "Infinity"].iter().find(|odd| rest.starts_with(**odd));
        if let Some(odd) = odd.filter(|_| !in_string) {
            written.push_str("null");
            rest = &rest[odd.len()..];
            continue;
        }
        in_string ^= first == '"' && !escaped;
        escaped = first == '\\' && !escaped;
        written.push(first);
        rest = &rest[first.len_utf8()..];
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, step: Option<u64>, lines: &[MessageLine]) {
        let message = parse(text.as_bytes());
        assert_eq!((message.step, &message.lines[..]), (step, lines), "{text:?}");
    }

    fn report_of(json: &str, validation: bool) -> MessageLine {
        let Value::Object(values) = serde_json::from_str(json).unwrap() else { panic!("{json}") };
        MessageLine::Report { values, validation }
    }

    #[test]
    fn lines_are_read_and_unknown_ones_are_not() {
        check(
            "READY=1\nSTATUS=warm up\nX_OTHER=1\n",
            None,
            &[MessageLine::Ready, MessageLine::Status("warm up".into())],
        );
        check("STEP=7\nMETRICS={\"loss\":0.5}", Some(7), &[report_of(r#"{"loss":0.5}"#, false)]);
        check("VALIDATION={\"acc\":1}\nSTEP=7", Some(7), &[report_of(r#"{"acc":1}"#, true)]);
        let Value::Object(result) = serde_json::json!({"a": [1], "b": null}) else { panic!() };
        check("RESULT={\"a\":[1],\"b\":NaN}\nRESULT=3", None, &[MessageLine::Result(result)]);
        check("SAVE=begin\nSTEP=3", Some(3), &[MessageLine::SaveBegin]);
        check("SAVE=perhaps", None, &[]);
        check("NOTE=a\\nb\x07\nNOTE= ", None, &[MessageLine::Note("a\nb".into())]);
        let Value::Object(metadata) = serde_json::json!({"a.b": 1}) else { panic!() };
        check("METADATA={\"a.b\":1}\nMETADATA={}", None, &[MessageLine::Metadata(metadata)]);
        check("ARTIFACT=/a/b.png\nARTIFACT=b", None, &[MessageLine::Artifact("/a/b.png".into())]);
        check("CKPT_DONE=step-3/", None, &[MessageLine::CheckpointDone(b"step-3".to_vec())]);
        check("ASK=1\nNEXT=1", None, &[MessageLine::Ask, MessageLine::Next]);
        check("DID=train:100\nSTEP=100", Some(100), &[MessageLine::Did(Workload::Train(100))]);
        check("WATCHDOG=1", None, &[]);
    }

    #[test]
    fn what_is_malformed_costs_its_line_only() {
        check("", None, &[]);
        check("STEP=many\nSTEP=4\nSTEP=-1\nREADY", Some(4), &[]);
        check("METRICS={\"a\":\nREADY=1", None, &[MessageLine::Ready]);
        check("METRICS=[1]\nMETRICS={}", None, &[]);
        check("PROGRESS=2\nPROGRESS=nan\nPROGRESS=0.25", None, &[MessageLine::Progress(0.25)]);
        check("CKPT_DONE=../step-1\nCKPT_DONE=\nCKPT_DONE=..", None, &[]);
        check("EXTEND_TIMEOUT_USEC=99999999999999999999", None, &[]);
        assert_eq!(parse(b"\xff\xfe=1\nREADY=1\n").lines, [MessageLine::Ready]);
    }

    #[test]
    fn what_is_not_finite_is_null() {
        let text = r#"METRICS={"a":NaN,"b":-Infinity,"NaN":1,"c\"NaN":Infinity}"#;
        check(text, None, &[report_of(r#"{"a":null,"b":null,"NaN":1,"c\"NaN":null}"#, false)]);
    }

    #[test]
    fn texts_are_no_metrics_and_yes_is_1() {
        let text = r#"METRICS={"a":"text","flag":true,"b":[1]}"#;
        let others = MessageLine::NoMetrics(vec!["a".into(), "b".into()]);
        check(text, None, &[report_of(r#"{"flag":1}"#, false), others]);
        check(r#"VALIDATION={"a":{}}"#, None, &[MessageLine::NoMetrics(vec!["a".into()])]);
    }

    #[test]
    fn a_source_needs_a_name_and_a_number() {
        assert_eq!(parse(b"ID=a\nSEQ=3").source, Some(("a".into(), 3)));
        assert_eq!(parse(b"SEQ=3").source, None);
        assert_eq!(parse(b"ID=a\nSEQ=x").source, None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            parse(&bytes);
        }

        #[test]
        fn any_text_with_keys_is_read(text in "((READY|STEP|METRICS|DID|WORKLOADS|CKPT_DONE)=[ -~]{0,20}\n){0,5}") {
            parse(text.as_bytes());
        }
    }
}
