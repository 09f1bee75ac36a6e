//! What a wrapped script looks like, does, and when it is refused.

use super::*;

fn needed(requeue: bool) -> Vec<String> {
    let lines = ["--requeue", "--open-mode=append", "--signal=B:USR1@120"];
    lines.iter().skip(usize::from(!requeue)).map(|own| format!("#SBATCH {own}")).collect()
}

fn with<'a>(options: &'a [String], needed: &'a [String]) -> WrapWith<'a> {
    WrapWith {
        harness: "/h/bin/nemo-harness",
        home: "/h",
        options,
        typed: &[],
        whole: None,
        needed,
    }
}

fn of(text: &str) -> Wrapped {
    let script = JobScript::read(text.as_bytes()).unwrap();
    wrap(&script, &with(&[], &needed(false))).unwrap()
}

#[test]
fn the_last_command_is_run_by_the_harness() {
    let own = of(
        "#!/bin/bash\n#SBATCH --time=1:00\nmodule load cuda\ncd a && A=1 srun python x \\\n  --b\necho done\n",
    );
    assert_eq!(
        own.text,
        "#!/bin/bash\n#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@120\n#SBATCH --time=1:00\ntrap '' USR1\n\
         module load cuda\ncd a && A=1 exec env NEMO_SLURM_HOME=/h /h/bin/nemo-harness wrap -- srun python x \\\n  --b\n"
    );
    assert_eq!((own.line, own.command.as_str()), (Some(4), "A=1 srun python x \\\n  --b"));
    assert_eq!(own.notes.len(), 1, "{:?}", own.notes);
}

#[test]
fn directives_that_are_there_stay_as_they_are() {
    let script = "#!/bin/sh\n#SBATCH --signal=B:USR2@60 --no-requeue\nx\n";
    let script = JobScript::read(script.as_bytes()).unwrap();
    let typed = super::super::options(0, &["--open-mode=truncate".to_owned()]);
    let needed = needed(true);
    let own = WrapWith { typed: &typed, ..with(&[], &needed) };
    let wrapped = wrap(&script, &own).unwrap();
    assert_eq!(wrapped.added, Vec::<String>::new());
    assert!(
        wrapped.text.contains("\n#SBATCH --signal=B:USR1@120 --no-requeue\n"),
        "{}",
        wrapped.text
    );
    assert!(wrapped.notes[0].text.contains("`--signal=B:USR2@60` becomes"), "{:?}", wrapped.notes);
    let bare = JobScript::read(b"#!/bin/sh\nx").unwrap();
    assert_eq!(wrap(&bare, &with(&[], &needed)).unwrap().added, needed);
}

#[test]
fn the_signal_of_a_script_becomes_options_of_wrap() {
    let check = |value: &str, typed: &[&str], expected: &[&str]| {
        let text = format!("#!/bin/sh\n#SBATCH --signal={value}\nx\n");
        let script = JobScript::read(text.as_bytes()).unwrap();
        let typed: Vec<String> = typed.iter().map(ToString::to_string).collect();
        assert_eq!(signal::signal_options(&script, &typed), expected, "{value}");
    };
    check("B:USR2@90", &[], &["--signal", "USR2", "--lead", "90s"]);
    check("SIGTERM", &["--lead", "5m"], &["--signal", "TERM"]);
    check("B:USR1@300", &["--profile", "lightning"], &["--lead", "300s"]);
    check("B:USR2@90", &["--signal", "none"], &["--lead", "90s"]);
    assert!(of("#!/bin/sh\n#SBATCH --signal=B:USR1@300\nx").text.contains("B:USR1@300\ntrap"));
}

#[test]
fn nothing_comes_between_the_lines_that_sbatch_reads() {
    let own = of("#!/bin/sh\n  # about it\n#SBATCH -n2\n#PBS -N x\n\nmake\nx\n");
    let expected = "  # about it\n#SBATCH -n2\n#PBS -N x\ntrap '' USR1\n\nmake\nexec ";
    assert!(own.text.contains(expected), "{}", own.text);
    assert_eq!(own.notes, Vec::new());
}

#[test]
fn a_signal_before_the_program_does_not_end_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let own = run(dir.path(), "#!/bin/sh\nkill -USR1 $$\nenv touch made\n");
    assert!(own.status.success(), "{own:?}");
    assert!(dir.path().join("made").exists());
}

#[test]
fn a_script_that_wraps_already_gets_directives_alone() {
    let own = of("#!/bin/sh\nexec nemo-harness wrap -- python x\n");
    assert!(own.text.ends_with("\nexec nemo-harness wrap -- python x\n"), "{}", own.text);
    assert!(own.notes[0].text.contains("already"));
}

#[test]
fn redirections_go_to_the_program() {
    let own = of("#!/bin/sh\npython x >\"$LOG\" 2>&1 <in\n");
    let last = own.text.lines().last().unwrap();
    assert_eq!(
        last,
        "{ nemo_f1=\"$LOG\"; nemo_f2=in; exec env NEMO_SLURM_HOME=/h /h/bin/nemo-harness wrap -- /bin/sh -c \
         'f1=$1; shift; [ \"$NEMO_ATTEMPT\" != 0 ] || : >\"$f1\" || exit; f2=$1; shift; exec \"$@\" >>\"$f1\" 2>&1 <\"$f2\"' sh \
         \"${nemo_f1:?line 2 redirects to a file without a name}\" \
         \"${nemo_f2:?line 2 redirects to a file without a name}\" python x; }"
    );
    assert!(own.notes[0].text.contains("`\"$LOG\"`"));
}

#[test]
fn a_script_may_be_run_as_a_whole() {
    let script = "#!/usr/bin/env python3\n#PBS -N x\n  # a\n#SBATCH -n1\nprint(1)\n";
    let script = JobScript::read(script.as_bytes()).unwrap();
    assert!(!script.is_for_a_shell());
    let options = ["--dir".to_owned(), "a b".to_owned()];
    let needed = needed(false);
    let own = WrapWith { whole: Some("/h/jobs/x.py"), ..with(&options, &needed) };
    assert_eq!(
        wrap(&script, &own).unwrap().text,
        "#!/bin/sh\n#PBS -N x\n  # a\n#SBATCH -n1\n#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@120\n\
         exec env NEMO_SLURM_HOME=/h /h/bin/nemo-harness wrap --dir 'a b' -- /h/jobs/x.py \"$@\"\n"
    );
}

#[test]
fn a_file_that_is_no_script_is_named_with_its_line() {
    for (text, line) in
        [(&b"python x\n"[..], 1), (b"#!/bin/sh\r\nx", 1), (b"#!/bin/sh\nx\n\xff", 3)]
    {
        assert_eq!(JobScript::read(text).unwrap_err().line, line);
    }
    assert!(JobScript::read(b"#!/usr/bin/env -S bash -l\n").unwrap().is_for_a_shell());
}

/// Runs a wrapped script with `sh`, without a job: `env` in place of the harness runs what is behind `--`.
fn run(dir: &std::path::Path, text: &str) -> std::process::Output {
    let own = of(text).text.replace("/h/bin/nemo-harness wrap --", "env NEMO_ATTEMPT=0");
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &own]).current_dir(dir).env_remove("LOG").output().unwrap()
}

#[test]
fn the_file_of_a_redirection_is_one_word_and_never_the_program() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("my run")).unwrap();
    let logged =
        run(dir.path(), "#!/bin/sh\nLOG=\"my run/log\"\nx=1 env printf '%s' \"a b\" >$LOG 2>&1\n");
    assert!(logged.status.success(), "{logged:?}");
    assert_eq!(std::fs::read(dir.path().join("my run/log")).unwrap(), b"a b");
    std::fs::write(dir.path().join("x.sh"), "exit 0\n").unwrap();
    let unset = run(dir.path(), "#!/bin/sh\n./x.sh > $LOG\n");
    assert!(!unset.status.success(), "{unset:?}");
    let said = String::from_utf8_lossy(&unset.stderr);
    assert!(said.contains("line 2 redirects to a file without a name"), "{said}");
    assert_eq!(std::fs::read(dir.path().join("x.sh")).unwrap(), b"exit 0\n");
}

#[test]
fn a_condition_before_the_program_keeps_its_say() {
    let dir = tempfile::tempdir().unwrap();
    for last in ["  env touch made", "  env touch made >log"] {
        let own = run(dir.path(), &format!("#!/bin/sh\ncd ./missing && \\\n{last}\n"));
        assert!(!own.status.success(), "{own:?}");
        assert!(!dir.path().join("made").exists(), "{last}");
    }
}

#[test]
fn what_can_not_be_kept_is_refused_with_its_line() {
    for (text, line, expected) in [
        ("trap 'rm -r tmp' EXIT\npython x", 2, "would never run"),
        (
            "clean() { trap - EXIT; }\nif a; then trap clean USR1; fi\npython x",
            3,
            "would never run",
        ),
        ("python x > out*.log", 2, "pattern"),
        ("python x > log.{a,b}", 2, "pattern"),
        ("python x >&$FD", 2, "which open file"),
        ("cat >c <<E && python x\na: 1\nE", 2, "stands a text"),
    ] {
        let text = format!("#!/bin/bash\n{text}\n");
        let script = JobScript::read(text.as_bytes()).unwrap();
        let error = wrap(&script, &with(&[], &[])).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error:?}");
        assert!(error.message.contains(expected), "{text:?}: {error:?}");
        assert!(error.hint.contains("--whole"), "{error:?}");
    }
    of("#!/bin/bash\ntrap 'echo no' ERR\ncat >c <<E\na\nE\npython x >\"${A[0]}*\"\n");
}
