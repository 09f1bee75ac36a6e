//! The documentation is held against the sources: keys, variables, commands, messages, links and examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use nemo_slurm::cli::Cli;

use crate::support::World;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every file below a folder that ends so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path, end) } else { vec![path] });
    all.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

/// The pages that people read, by their paths from the root.
fn pages() -> Vec<String> {
    let docs = files(&root().join("docs"), ".md");
    let docs = docs.iter().map(|path| format!("docs/{}", path.file_name().unwrap().display()));
    docs.chain(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned)).collect()
}

/// Both programs' sources as one text, in which a string that goes over several lines is in one piece.
fn sources() -> String {
    let folders = ["src", "harness/src", "harness/core/src"];
    let paths = folders.iter().flat_map(|folder| files(&root().join(folder), ".rs"));
    let text: String = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |whole, line| whole + line.trim_start())
}

/// What stands between backticks, code blocks included.
fn code(page: &str) -> String {
    page.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect()
}

/// The first words that follow each occurrence of a text.
fn after<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(start)
        .skip(1)
        .map(move |rest| rest.split(|c| !is_part(c)).next().unwrap_or_default())
}

#[test]
fn every_key_of_the_file_is_in_its_reference() {
    let reference = code(&read("docs/exp-toml.md"));
    let known = words(&reference);
    let mut seen = BTreeSet::new();
    for path in files(&root().join("src/experiment"), ".rs") {
        let text = fs::read_to_string(path).unwrap();
        for call in ["take(\"", "take_section(\"", "take_fields(\"", "number(\""] {
            seen.extend(after(&text, call).map(str::to_owned));
        }
    }
    assert!(seen.len() > 40, "the keys are found: {seen:?}");
    let missing: Vec<_> = seen.iter().filter(|key| !known.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/exp-toml.md lacks {missing:?}");
}

#[test]
fn every_variable_of_the_sources_is_documented() {
    let sources = sources();
    let pages: String = pages().iter().map(|page| read(page)).collect();
    let documented = words(&pages);
    let is_numbered =
        |name: &&str| ["NEMO_PARAM_", "NEMO_ARG_"].iter().any(|own| name.starts_with(own));
    let used = words(&sources).into_iter().filter(|word| word.starts_with("NEMO_"));
    let used: Vec<&str> = used.filter(|name| !is_numbered(name)).collect();
    assert!(used.len() > 15, "the variables are found: {used:?}");
    let missing: Vec<_> = used.iter().filter(|name| !documented.contains(**name)).collect();
    assert!(missing.is_empty(), "no page tells of {missing:?}");
}

#[test]
fn every_command_and_option_is_described() {
    let page = read("docs/commands.md");
    let (common, _) = page.split_once("## Exit codes").unwrap();
    let mut cli = Cli::command();
    cli.build();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    for command in commands.filter(|command| command.get_name() != "help") {
        let verb = command.get_name();
        let start =
            page.find(&format!("\n### {verb}")).unwrap_or_else(|| panic!("no `### {verb}`"));
        let section = page[start + 4..].split("\n###").next().unwrap();
        let options = command.get_arguments().filter(|option| !option.is_hide_set());
        for option in options.filter_map(|option| option.get_long()) {
            let name = format!("--{option}");
            let is_described =
                section.contains(&name) || common.contains(&name) || option == "help";
            assert!(is_described || option == "version", "`### {verb}` lacks {name}");
        }
    }
}

/// The commands of console blocks and of inline code that begin with `nemo-slurm VERB`.
fn typed(page: &str) -> Vec<String> {
    let is_typed = |line: &&str| line.starts_with("nemo-slurm ");
    let console = page.lines().filter_map(|line| line.strip_prefix("$ "));
    let inline = page.split('`').skip(1).step_by(2).filter(|part| !part.contains('\n'));
    console.chain(inline).filter(is_typed).map(str::to_owned).collect()
}

#[test]
fn what_the_pages_tell_to_type_exists() {
    let mut cli = Cli::command();
    cli.build();
    let mut n_seen = 0;
    for page in pages().iter().filter(|page| *page != "CHANGELOG.md") {
        for line in typed(&read(page)) {
            let line_words: Vec<&str> = line.split([' ', '#', '>']).skip(1).collect();
            let verb = line_words[0];
            if !verb.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            n_seen += 1;
            let command = cli.find_subcommand(verb);
            let command = command.unwrap_or_else(|| panic!("{page}: no such command: {line}"));
            let options = line_words.iter().filter_map(|word| word.strip_prefix("--"));
            for name in options.filter_map(|option| option.split(['=', ']', '[']).next()) {
                let is_known = command.get_arguments().any(|own| own.get_long() == Some(name));
                assert!(is_known || name == "help", "{page}: no such option: {line}");
            }
        }
    }
    assert!(n_seen > 30, "the commands are found: {n_seen}");
}

#[test]
fn the_messages_of_the_troubleshooting_page_are_printed() {
    // What a source fills in, as in `{name}`, is a `…` on the page.
    let (sources, page) = (sources(), read("docs/troubleshooting.md"));
    let messages: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    assert!(messages.len() > 20, "the messages are found: {messages:?}");
    for message in messages {
        let message = message.strip_prefix("hint: ").unwrap_or(message);
        let parts = message.split(['…', '`']).map(|part| part.trim_matches([' ', ':', ';', ',']));
        for part in parts.filter(|part| part.len() > 4) {
            assert!(sources.contains(part), "no source has {part:?} of: {message}");
        }
    }
}

/// The long options of the commands in a row of such a page.
fn options_of_commands(row: &str) -> impl Iterator<Item = &str> {
    let commands = row.split('`').filter(|text| text.starts_with("nemo-slurm "));
    commands.flat_map(str::split_whitespace).filter(|word| word.starts_with("--"))
}

/// What the pages for those who come from elsewhere promise is run by the tests that they name.
#[test]
fn the_tests_that_pages_name_exist() {
    let mut count = 0;
    for page in ["docs/coming-from-nemo-run.md", "docs/coming-from-determined.md"] {
        let content = read(page);
        let rows =
            content.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() > 3);
        for row in rows.filter(|row| !row.ends_with("| test |")) {
            let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
            let Some((file, test)) = cell.trim_matches('`').rsplit_once("::") else {
                assert!(cell.is_empty() && row.contains("not there"), "{page}: {row}");
                continue;
            };
            let source = match file.strip_prefix("it::") {
                Some(file) => read(&format!("harness/tests/it/{file}.rs")),
                None => read(&format!("tests/cli/{file}.rs")),
            };
            assert!(source.contains(&format!("fn {test}()")), "{page}: {cell}");
            for option in options_of_commands(row) {
                assert!(source.contains(option), "{page}: {cell} never says {option}");
            }
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let folder = root().join(&page);
        // What looks like a link within `…` is none.
        let text = read(&page);
        let text: Vec<String> =
            text.lines().map(|line| line.split('`').step_by(2).collect()).collect();
        let text = text.join("\n");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") {
                continue;
            }
            let path = if file.is_empty() { folder.clone() } else { folder.with_file_name(file) };
            assert!(path.exists(), "{page}: {target}");
            if !anchor.is_empty() {
                let other = fs::read_to_string(&path).unwrap();
                let headings = other.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.into_iter().any(|own| own == anchor), "{page}: {target}");
            }
        }
    }
}

#[test]
fn the_places_of_the_architecture_exist() {
    for page in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = read(page);
        let places = text.split('`').skip(1).step_by(2);
        let starts = ["src/", "harness/", "tests/", "scripts/", "docs/", "fuzz/"];
        let places = places.filter(|place| starts.iter().any(|start| place.starts_with(start)));
        let places = places.filter_map(|place| place.split([' ', '*', '{']).next());
        for place in places.filter(|place| !place.contains("VERB")) {
            let is_start = place.ends_with('_');
            assert!(is_start || root().join(place).exists(), "{page}: `{place}` is not there");
        }
    }
}

/// As GitHub makes it of a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_first_experiment_is_the_one_of_the_readme() {
    let readme = read("README.md");
    let lines = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(lines.lines().count(), 8, "the README promises eight lines");
    let world = World::new();
    world.ok(&["init", "first"]);
    let written = fs::read_to_string(world.path("first/exp.toml")).unwrap();
    assert!(written.starts_with(lines), "`init` writes something else:\n{written}");
    world.write("exp.toml", lines);
    fs::copy(world.path("first/train.py"), world.path("train.py")).unwrap();
    let set = ["--set", "task.train.run=python3 train.py --lr {lr} --width {width} --steps 20"];
    let id = world.ok(&["submit", set[0], set[1], "--wait"]);
    let status = world.status(&id);
    assert_eq!(status["tasks"][0]["counts"]["completed"], 6, "{status:#}");
    assert_eq!(status["tasks"][0]["trials"][0]["step"], 20, "{status:#}");
    assert_eq!(status["tasks"][0]["best"], 4, "{status:#}");
}
