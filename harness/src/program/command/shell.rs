//! Puts values into a text for `sh` so that they are only ever data.
//!
//! A placeholder becomes a reference to a variable, never its value, in the form that its place between the quotes
//! wants. The shell doesn't parse what it expands, so no value can end a quote or begin a command.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nemo_core::shell::{self, PlaceholderRefusal, QuoteContext};

use super::{Lookup, PlaceholderValue, ProgramCommand, Shells};

/// What stands before every text. Slurm sends TERM to each process of a job: the shell must not die of it while the
/// program that it waits for saves. It ends after that one, and as that one did; the program itself has no such trap.
const OUTLIVE_TERM: &str = "trap 'exit $?' TERM\n";

/// The text of a shell of ours, if these are its arguments: what it runs is the program.
pub(crate) fn own_text<S: AsRef<OsStr>>(argv: &[S]) -> Option<Cow<'_, str>> {
    let text = argv.iter().skip_while(|word| word.as_ref() != "-c").nth(1)?;
    let text = text.as_ref().as_bytes().strip_prefix(OUTLIVE_TERM.as_bytes())?;
    Some(String::from_utf8_lossy(text))
}

/// Builds `sh -c TEXT sh FOLDERS…` and the variables that the text refers to.
pub(super) fn fill(
    text: &str,
    shells: Shells,
    meaning: &Lookup<'_>,
) -> Result<ProgramCommand, String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut folders: Option<(String, Vec<String>)> = None;
    let mut many = |name: &str, values, place| {
        let (known, _) = folders.get_or_insert_with(|| (name.to_owned(), values));
        if known != name {
            return Err(format!(
                "a shell command can take the folders of one task only, not of `{{{known}}}` and `{{{name}}}`; write the command as a list"
            ));
        }
        Ok(all_arguments(place))
    };
    let filled = OUTLIVE_TERM.to_owned() + &fill_text(text, &mut env, meaning, &mut many)?;
    let words = shells.for_text().iter().copied().chain(["-c", &filled, "sh"]);
    let argv = words.map(OsString::from);
    let folders = folders.into_iter().flat_map(|(_, values)| values).map(OsString::from);
    Ok(ProgramCommand { argv: argv.chain(folders).collect(), env })
}

/// The lines of `setup`. What they refer to comes behind the variables of the command.
pub(super) fn fill_setup(
    lines: &[String],
    env: &mut Vec<(String, String)>,
    meaning: &Lookup<'_>,
) -> Result<String, String> {
    let mut many = |name: &str, _, _| Err(format!("`{{{name}}}` in `setup` is several folders"));
    fill_text(&lines.join("\n"), env, meaning, &mut many)
}

/// What a list of folders becomes, by its name and its place.
type ListText<'a> = dyn FnMut(&str, Vec<String>, QuoteContext) -> Result<&'static str, String> + 'a;

fn fill_text(
    text: &str,
    env: &mut Vec<(String, String)>,
    meaning: &Lookup<'_>,
    many: &mut ListText<'_>,
) -> Result<String, String> {
    shell::fill(text, |name, place| {
        let refused =
            |why: PlaceholderRefusal| format!("`{{{name}}}` {}; {}", why.message(), why.hint());
        let place = place.map_err(refused)?;
        match meaning(name)? {
            PlaceholderValue::One(value) => {
                let variable = format!("NEMO_ARG_{}", env.len() + 1);
                let reference = reference(place, &variable, name, &value)?;
                env.push((variable, value));
                Ok(reference)
            }
            PlaceholderValue::Many(values) => many(name, values, place).map(str::to_owned),
        }
    })
}

fn reference(
    place: QuoteContext,
    variable: &str,
    name: &str,
    value: &str,
) -> Result<String, String> {
    // Some shells run what stands in `a[$(…)]` when they calculate with a variable that holds it.
    if place == QuoteContext::Arithmetic && value.parse::<i64>().is_err() {
        return Err(format!(
            "`{{{name}}}` stands in `$((…))` and must be a whole number, but it is `{value}`"
        ));
    }
    Ok(place.reference(variable))
}

fn all_arguments(place: QuoteContext) -> &'static str {
    match place {
        QuoteContext::Word => "\"$@\"",
        QuoteContext::Double | QuoteContext::Arithmetic | QuoteContext::Heredoc => "$*",
        QuoteContext::Single => "'\"$*\"'",
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests ask a real shell")]
mod tests {
    use super::*;

    /// Runs a text with a real `sh`, and with bash where that is another; `{v}` is the value, `{w.dirs}` are two folders.
    fn run(text: &str, value: &str) -> String {
        let by_bash = run_by(Shells { bash: true, functions: true }, text, value);
        assert_eq!(run_by(Shells::default(), text, value), by_bash, "{text:?} {value:?}");
        by_bash
    }

    fn run_by(shells: Shells, text: &str, value: &str) -> String {
        let meaning = |name: &str| {
            Ok(match name {
                "v" => PlaceholderValue::One(value.to_owned()),
                _ => PlaceholderValue::Many(vec!["a b".to_owned(), "*".to_owned()]),
            })
        };
        let command = fill(text, shells, &meaning).unwrap();
        let mut process = std::process::Command::new(&command.argv[0]);
        let output = process.args(&command.argv[1..]).envs(command.env).output().unwrap();
        assert!(output.status.success(), "{text:?} with {value:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    const HOSTILE: [&str; 16] = [
        "plain",
        "",
        "a b  c",
        "'; echo OWNED; '",
        "\"; echo OWNED; \"",
        "line\nbreak",
        "$(echo OWNED)",
        "`echo OWNED`",
        "*",
        "-rf",
        "~",
        "ünïcödé ☃",
        "\\",
        "trailing\\",
        "${HOME} $1 #no",
        "' \" $(( a[$(echo OWNED)] ))",
    ];

    #[test]
    fn a_value_is_only_ever_data() {
        let show = "printf '<%s>'";
        for value in HOSTILE {
            for (place, expected) in [
                ("{v}", format!("<{value}>")),
                ("\"{v}\"", format!("<{value}>")),
                ("'{v}'", format!("<{value}>")),
                ("a{v}b", format!("<a{value}b>")),
                ("--x='a {v} b'\"c {v}\"{v}", format!("<--x=a {value} bc {value}{value}>")),
                ("\"it's {v}\"", format!("<it's {value}>")),
                ("'say \"{v}\"'", format!("<say \"{value}\">")),
                ("\\'{v}", format!("<'{value}>")),
                ("\"\\\"{v}\"", format!("<\"{value}>")),
                ("\\{v}", format!("<\\{value}>")),
                ("\"\\{v}\"", format!("<\\{value}>")),
                ("a#'{v}'", format!("<a#{value}>")),
                ("x # it's {v}\n", "<x>".to_owned()),
                ("x # it's\n printf '<%s>' {v}", format!("<x><{value}>")),
                ("'$(' {v} ')'", format!("<$(><{value}><)>")),
            ] {
                assert_eq!(run(&format!("{show} {place}"), value), expected, "{place:?}");
            }
        }
    }

    #[test]
    fn a_value_in_a_substitution_is_data_too() {
        for value in HOSTILE {
            let value = value.trim_end_matches('\\'); // kept simple: no trailing line breaks to lose
            for text in [
                "printf '<%s>' \"$(printf %s {v})\"",
                "printf '<%s>' \"$(printf %s '{v}')\"",
                "printf '<%s>' \"$(printf %s \"{v}\")\"",
                "printf '<%s>' \"x\"\"$( (printf %s {v}) )\"",
                "X={v}; printf '<%s>' \"$X\"",
            ] {
                assert!(run(text, value).ends_with(&format!("{value}>")), "{text:?} {value:?}");
            }
        }
    }

    #[test]
    fn a_value_in_backticks_and_behind_an_end_mark_is_data_too() {
        for value in HOSTILE {
            let value = value.trim_end_matches('\\');
            for (text, expected) in [
                ("printf '<%s>' \"`printf %s {v}`\"", format!("<{value}>")),
                ("X=`printf %s \"{v}\"`; printf '<%s>' \"$X\"", format!("<{value}>")),
                ("cat <<E\n'{v}' \"{v}\" \\{v}\nE\n", format!("'{value}' \"{value}\" \\{value}\n")),
                (
                    "cat <<-E; printf '<%s>' {v}\n\t$(printf %s {v})\n\tE\n",
                    format!("{value}\n<{value}>"),
                ),
            ] {
                assert_eq!(run(text, value), expected, "{text:?} {value:?}");
            }
        }
        let meaning = |_: &str| Ok(PlaceholderValue::One(String::new()));
        let refused = |text| fill(text, Shells::default(), &meaning).unwrap_err();
        assert!(refused("cat <<'E'\n{v}\nE\n").contains("end mark is quoted"));
        assert!(refused("echo `echo \\`{v}\\``").contains("backticks"));
    }

    #[test]
    fn arithmetic_takes_whole_numbers_only() {
        assert_eq!(run("echo $(( {v} + (1) )) '{v}'", "41"), "42 41\n");
        let meaning = |_: &str| Ok(PlaceholderValue::One("a[$(id)]".to_owned()));
        assert!(
            fill("echo $(( {v} ))", Shells::default(), &meaning)
                .unwrap_err()
                .contains("whole number")
        );
    }

    #[test]
    fn folders_are_arguments() {
        assert_eq!(run("printf '<%s>' {w.dirs}", ""), "<a b><*>");
        assert_eq!(run("printf '<%s>' \"d: {w.dirs}\" '{w.dirs}'", ""), "<d: a b *><a b *>");
        let meaning = |_: &str| Ok(PlaceholderValue::Many(Vec::new()));
        assert!(
            fill("{a.dirs} {b.dirs}", Shells::default(), &meaning)
                .unwrap_err()
                .contains("one task only")
        );
    }
}
