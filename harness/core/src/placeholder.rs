//! Finds the placeholders of a command: `{name}`, `{name.inner}`. Pure; it lists the names that every command has
//! ([`BuiltIn`]) and those of tasks before it ([`TaskValue`]), and doesn't know their values.
//!
//! A name is identifiers joined by dots, an identifier is `[A-Za-z_][A-Za-z0-9_-]*`. Behind a `$` nothing is a
//! placeholder (`${HOME}` is the shell's). `{{name}}` always stands for `{name}` itself. All other braces are only text.

/// A part of a command's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplatePart<'a> {
    /// Text as it is.
    Text(&'a str),
    /// A placeholder's name, without its braces.
    Name(&'a str),
}

/// The names that mean the same in every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// The trial's folder.
    Dir,
    /// The trial's index.
    Trial,
    /// The trial's seed.
    Seed,
    /// The task's name.
    Task,
    /// The experiment's name.
    Experiment,
    /// Where the attempt saves.
    CheckpointDir,
    /// The checkpoint that the attempt resumes from.
    ResumeFrom,
}

impl BuiltIn {
    /// All of them, each with its name.
    pub const ALL: [(&str, Self); 7] = [
        ("dir", Self::Dir),
        ("trial", Self::Trial),
        ("seed", Self::Seed),
        ("task", Self::Task),
        ("experiment", Self::Experiment),
        ("checkpoint_dir", Self::CheckpointDir),
        ("resume_from", Self::ResumeFrom),
    ];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(own, _)| *own == name).map(|(_, meaning)| *meaning)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(name, _)| *name)
    }
}

/// What a command may name of a task that runs before its own: `{prepare.dir}`, `{train.best.checkpoint}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskValue<'a> {
    /// The folder of its one trial, or of its trial of the same index.
    Dir,
    /// The folders of all of its trials.
    Dirs,
    /// What its one trial, or its trial of the same index, left under this key in its result.
    Result(&'a str),
    /// The folder of its best trial.
    BestDir,
    /// The best checkpoint of its best trial.
    BestCheckpoint,
    /// What its best trial left under this key in its result.
    BestResult(&'a str),
}

impl<'a> TaskValue<'a> {
    /// How each is written behind the name of the task and a dot.
    pub const ALL: [&'static str; 6] =
        ["dir", "dirs", "result.KEY", "best.dir", "best.checkpoint", "best.result.KEY"];

    /// The task that a name is about, and what is wanted of it. Names of tasks may have dots: of several the longest counts.
    pub fn of(name: &'a str, is_task: impl Fn(&str) -> bool) -> Option<(&'a str, Self)> {
        let dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
        dots.filter(|(task, _)| is_task(task)).find_map(|(task, what)| Some((task, parse(what)?)))
    }

    /// Whether it is about the best trial.
    #[must_use]
    pub fn is_of_best(self) -> bool {
        match self {
            Self::BestDir | Self::BestCheckpoint | Self::BestResult(_) => true,
            Self::Dir | Self::Dirs | Self::Result(_) => false,
        }
    }
}

fn parse(what: &str) -> Option<TaskValue<'_>> {
    match what {
        "dir" => Some(TaskValue::Dir),
        "dirs" => Some(TaskValue::Dirs),
        "best.dir" => Some(TaskValue::BestDir),
        "best.checkpoint" => Some(TaskValue::BestCheckpoint),
        other => match other.strip_prefix("best.result.") {
            Some(key) => Some(TaskValue::BestResult(key)),
            None => other.strip_prefix("result.").map(TaskValue::Result),
        },
    }
}

/// Cuts a text into its pieces, in order.
pub fn scan(text: &str) -> Vec<TemplatePart<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('{') {
        let open = at + found;
        let Some((piece, end)) = piece_at(text, open) else {
            at = open + 1;
            continue;
        };
        if start < open {
            pieces.push(TemplatePart::Text(&text[start..open]));
        }
        pieces.push(piece);
        (start, at) = (end, end);
    }
    if start < text.len() {
        pieces.push(TemplatePart::Text(&text[start..]));
    }
    pieces
}

/// A text in which nothing is a placeholder any more: each `{name}` becomes `{{name}}`.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, inner) = (&rest[..open], &rest[open + 1..]);
        escaped.push_str(before);
        let length = name_length(inner).filter(|length| inner[*length..].starts_with('}'));
        if let Some(length) = length {
            escaped.extend(["{{", &inner[..length], "}}"]);
            rest = &inner[length + 1..];
        } else {
            escaped.push('{');
            rest = inner;
        }
    }
    escaped + rest
}

/// The names that a text asks for, in order, repeats included.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    scan(text).into_iter().filter_map(|piece| match piece {
        TemplatePart::Name(name) => Some(name),
        TemplatePart::Text(_) => None,
    })
}

/// The placeholder, or the escaped one, that begins at an opening brace, and where it ends.
fn piece_at(text: &str, open: usize) -> Option<(TemplatePart<'_>, usize)> {
    let inner = &text[open + 1..];
    if let Some(escaped) = inner.strip_prefix('{') {
        let length = name_length(escaped)?;
        let end = open + 2 + length + 2;
        let closed = escaped[length..].starts_with("}}");
        return closed.then(|| (TemplatePart::Text(&text[open + 1..end - 1]), end));
    }
    let length = name_length(inner)?;
    let is_name = inner[length..].starts_with('}') && !text[..open].ends_with('$');
    is_name.then(|| (TemplatePart::Name(&inner[..length]), open + 1 + length + 1))
}

/// The length of the name that a text begins with.
fn name_length(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.'));
    let length = end.unwrap_or(text.len());
    is_name(&text[..length]).then_some(length)
}

/// Whether a text may stand between the braces.
pub fn is_name(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown: Vec<String> = scan(text)
            .into_iter()
            .map(|piece| match piece {
                TemplatePart::Text(text) => text.to_owned(),
                TemplatePart::Name(name) => format!("<{name}>"),
            })
            .collect();
        assert_eq!(shown.join("|"), expected, "{text:?}");
    }

    #[test]
    fn only_names_in_braces_are_placeholders() {
        check("", "");
        check("--lr={lr}", "--lr=|<lr>");
        check("{a}{b-c_d}", "<a>|<b-c_d>");
        check("{prep.dir}/x", "<prep.dir>|/x");
        check("${HOME} {a}", "${HOME} |<a>");
        check("{{a}}", "{a}");
        check("x{{a}}y", "x|{a}|y");
        check("{{a}", "{|<a>");
        check("${{a}}", "$|{a}");
        check("{{{a}}}", "{|{a}|}");
        check("{{a.b}} {c}", "{a.b}| |<c>");
        check("$ {a}", "$ |<a>");
        check("awk '{print $1}'", "awk '{print $1}'");
        check("{a,b} { a } {a..b} {é} {a", "{a,b} { a } {a..b} {é} {a");
        check("{opt.adam.beta-1}{_x9}", "<opt.adam.beta-1>|<_x9>");
        check("{a}}", "<a>|}");
        check("{} {1a} {a b} {a.} {.a} {a", "{} {1a} {a b} {a.} {.a} {a");
        check("{\"k\": {v}}", "{\"k\": |<v>|}");
        check("é{a}ü", "é|<a>|ü");
    }

    #[test]
    fn what_is_wanted_of_a_task_stands_behind_its_name() {
        let of = |name| TaskValue::of(name, |task| ["a", "a.best", "x.y"].contains(&task));
        assert_eq!(of("a.dir"), Some(("a", TaskValue::Dir)));
        assert_eq!(of("x.y.dirs"), Some(("x.y", TaskValue::Dirs)));
        assert_eq!(of("a.result.lr"), Some(("a", TaskValue::Result("lr"))));
        assert_eq!(of("a.result.opt.lr"), Some(("a", TaskValue::Result("opt.lr"))));
        assert_eq!(of("a.best.dir"), Some(("a.best", TaskValue::Dir)));
        assert_eq!(of("a.best.checkpoint"), Some(("a", TaskValue::BestCheckpoint)));
        assert_eq!(of("a.best.result.dir"), Some(("a.best", TaskValue::Result("dir"))));
        assert_eq!([of("a.result"), of("a.best"), of("b.dir"), of("a"), of("a.nope")], [None; 5]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_escaped_is_a_placeholder(text in "[{}$a-c. ]{0,20}") {
            let whole: String = scan(&escape(&text)).into_iter().map(|piece| match piece {
                TemplatePart::Text(text) => text.to_owned(),
                TemplatePart::Name(name) => panic!("{name} in {text}"),
            }).collect();
            proptest::prop_assert_eq!(whole, text);
        }
        #[test]
        fn a_text_without_names_is_kept(text in "[^{]{0,40}") {
            let whole: String = scan(&text).into_iter().map(|piece| match piece {
                TemplatePart::Text(text) | TemplatePart::Name(text) => text,
            }).collect();
            proptest::prop_assert_eq!(whole, text);
        }
        #[test]
        fn nothing_is_lost_but_the_braces_of_escapes(text in "[{}$a-c.é ]{0,30}") {
            let whole: String = scan(&text).into_iter().map(|piece| match piece {
                TemplatePart::Text(text) | TemplatePart::Name(text) => text,
            }).collect();
            let plain = |text: &str| text.replace(['{', '}'], "");
            proptest::prop_assert_eq!(plain(&whole), plain(&text));
        }
    }
}
