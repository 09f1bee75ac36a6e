//! What names may look like.

use nemo_core::placeholder::BuiltIn;

use super::units::UnitError;

const MAX_NAME_LENGTH: usize = 64;

/// Checks the name of an experiment, a task, an executor or a tag: it becomes a folder, a part of a target and a word
/// on command lines.
pub(super) fn check(name: &str) -> Result<(), UnitError> {
    let refuse = |why: &str| {
        let shown: String = name.chars().take(MAX_NAME_LENGTH).collect();
        let message = format!("{shown:?} can't be a name: {why}");
        Err(UnitError::hinted(message, "use letters, digits, `.`, `_` and `-`, such as `lr-sweep`"))
    };
    let Some(first) = name.chars().next() else { return refuse("it is empty") };
    if let Some(stray) = name.chars().find(|c| !is_allowed(*c)) {
        return refuse(&match stray {
            ' ' => "it contains a space".to_owned(),
            '/' => "`/` separates the parts of a target (EXPERIMENT/TASK/TRIAL)".to_owned(),
            stray => format!("it contains {stray:?}"),
        });
    }
    if !first.is_ascii_alphanumeric() {
        return refuse("it must begin with a letter or a digit");
    }
    if name.len() > MAX_NAME_LENGTH {
        return refuse(&format!("it is longer than {MAX_NAME_LENGTH} characters"));
    }
    Ok(())
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Checks a tag that is given on the command line.
pub fn check_tag(name: &str) -> Result<(), String> {
    check(name).map_err(|refusal| format!("{}: {}", refusal.message, refusal.hint))
}

/// Checks the name of an environment variable.
pub(super) fn check_variable(name: &str) -> Result<(), UnitError> {
    if is_identifier(name) && !name.contains('-') {
        return Ok(());
    }
    let message = format!("{name:?} can't be the name of an environment variable");
    Err(UnitError::hinted(message, "use letters, digits and `_`, such as `OMP_NUM_THREADS`"))
}

/// Checks the name of a parameter, which must be good for a placeholder.
pub(super) fn check_parameter(name: &str) -> Result<(), UnitError> {
    if !is_identifier(name) {
        let message = format!("{name:?} can't be the name of a parameter");
        let hint =
            "use letters, digits, `_` and `-`, and a letter first: `{name}` must work in `run`";
        return Err(UnitError::hinted(message, hint));
    }
    if name != "seed" && BuiltIn::of(name).is_some() {
        let message = format!("a parameter can't be named `{name}`");
        let hint = format!("`{{{name}}}` in `run` is reserved; use another name");
        return Err(UnitError::hinted(message, hint));
    }
    Ok(())
}

/// `[A-Za-z_][A-Za-z0-9_-]*`: one part of a placeholder.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(name: &str, expected: &str) {
        let found = check(name).map_or_else(|refusal| refusal.message, |()| "fine".to_owned());
        assert_eq!(found, expected);
    }

    #[test]
    fn names_are_good_for_folders_targets_and_command_lines() {
        check_name("digits", "fine");
        check_name("lr-sweep_2.1", "fine");
        check_name("7", "fine");
        check_name(&"a".repeat(64), "fine");
        check_name("", "\"\" can't be a name: it is empty");
        check_name("a b", "\"a b\" can't be a name: it contains a space");
        check_name("-a", "\"-a\" can't be a name: it must begin with a letter or a digit");
        check_name("..", "\"..\" can't be a name: it must begin with a letter or a digit");
        check_name("a\n", "\"a\\n\" can't be a name: it contains '\\n'");
        check_name("é", "\"é\" can't be a name: it contains 'é'");
        check_name(
            "a/b",
            "\"a/b\" can't be a name: `/` separates the parts of a target (EXPERIMENT/TASK/TRIAL)",
        );
        let long = "a".repeat(65);
        let shown = format!("{:?} can't be a name: it is longer than 64 characters", &long[1..]);
        check_name(&long, &shown);
    }

    #[test]
    fn variables_are_shell_names() {
        assert!(check_variable("WANDB_API_KEY").is_ok());
        assert!(check_variable("_x1").is_ok());
        for bad in ["", "1A", "A-B", "A=B", "A B"] {
            assert!(check_variable(bad).is_err(), "{bad:?}");
        }
    }
}
