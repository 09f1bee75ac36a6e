//! Which command of a script is its program, and which scripts have none.

use super::*;

fn of(text: &str) -> Result<Program, ScriptError> {
    program(&JobScript { text, interpreter: "/bin/bash" })
}

#[track_caller]
fn check(text: &str, line: usize, words: &[&str]) {
    let own = of(text).unwrap();
    assert_eq!((own.line, own.words), (line, words.iter().map(ToString::to_string).collect()));
}

#[test]
fn the_program_is_the_last_command() {
    check(
        "module load cuda\n\nsrun python train.py --lr \"$LR\"\n# end\n",
        3,
        &["srun", "python", "train.py", "--lr", "\"$LR\""],
    );
    check("A=1 B='2 3' exec python x > log 2>&1\n", 1, &["python", "x"]);
    check("cd out && time python x\nexit $?\n", 1, &["python", "x"]);
    check("srun \\\n  python x \\\n  --a\necho done\ndate", 1, &["srun", "python", "x", "--a"]);
    check(
        "exec nemo-harness wrap --lead 60 -- python x; echo",
        1,
        &["nemo-harness", "wrap", "--lead", "60", "--", "python", "x"],
    );
    assert!(of("\"$H/nemo-harness\" wrap -- x").unwrap().is_wrapped);
}

#[test]
fn a_farewell_is_never_the_program() {
    for farewell in [
        " && echo done",
        " && echo a && date",
        "\n[ $? -eq 0 ] && echo ok",
        "\n[ $? -eq 0 ] && echo ok || echo failed",
        "\ntest $? = 0 && { echo ok; }; echo no",
        "\n/bin/echo \"end: $(date) $((1 + 2)) `hostname`\" >&2",
        "\nsacct -j 1 2>/dev/null; seff 1; sleep 5\nexit 0",
        "\nconda deactivate",
        "\nwait\necho done",
    ] {
        let text = format!("cd a && time -p python x{farewell}\n");
        if farewell.contains('{') {
            assert!(of(&text).unwrap_err().message.contains("which of the commands"), "{text:?}");
        } else {
            check(&text, 1, &["python", "x"]);
        }
    }
}

#[test]
fn what_is_left_out_is_told() {
    let own = of("python x\necho done\nexit 0\n").unwrap();
    assert_eq!(own.notes.iter().map(|note| note.line).collect::<Vec<_>>(), [2, 3]);
    assert!(of("nvidia-smi -l > gpu.log &\npython x").unwrap().notes[0].text.contains("beside"));
}

#[test]
fn programs_before_the_last_command_are_named() {
    let check = |text: &str, lines: &[usize]| {
        let own = of(text).unwrap();
        let found: Vec<usize> = own.notes.iter().map(|note| note.line).collect();
        assert_eq!(found, lines, "{text:?}: {:?}", own.notes);
    };
    check("python prepare.py\npython train.py\npython test.py\n", &[1, 2]);
    check("if A=1 ./look; then\n  exec python a\nfi\npython x", &[1, 2]);
    check("(cd a; srun b) | tee log\npython x", &[1]);
    check("python a &\npython b &\npython x", &[1, 2]);
    check("f() {\n  gmx grompp\n}\nf\npython x", &[2]);
    for setup in [
        "module load a; . env/bin/activate; set -eu; export A=$(nproc); mkdir -p out",
        "DIRS=(a b)\n[[ -f a && -f b ]] || exit 1\n((i > 2)) && echo no",
        "LIST=(\n a\n b\n)",
        "for f in *.tar; do tar xf $f; done\nwhile read x; do echo $x; done <in",
        "case $A in\n a) B=1 ;;\nesac",
        "python -c 'import torch' && python3 -m pip install x; conda activate y",
        "echo $(python a)",
    ] {
        check(&format!("{setup}\npython x"), &[]);
    }
}

#[test]
fn a_program_in_a_loop_is_refused_whatever_follows() {
    for (text, line) in [
        ("for seed in 1 2\ndo\n  srun python train.py\ndone\npython sum.py\n", 3),
        ("while a; do for i in 1; do echo; done; ./x & done\npython y", 1),
        ("for i in 1 2; do gmx mdrun; done\ngmx energy", 1),
    ] {
        let error = of(text).unwrap_err();
        assert!(error.line == line && error.message.contains("in a loop"), "{text:?}: {error:?}");
    }
    assert!(of("for i in 1 2; do echo; done\npython a\npython b").unwrap().notes.len() == 1);
}

#[test]
fn where_there_is_no_single_program_the_line_is_named() {
    for (text, line, expected) in [
        ("#!/bin/sh\n#SBATCH -n1\n", 1, "no command"),
        ("echo hello\n", 1, "only commands such as `echo`"),
        ("a\nfor i in 1 2; do\n  python x $i\ndone\n", 4, "which of the commands"),
        ("python x | tee log", 1, "reads from a pipe"),
        ("python x &\npython y &\nwait\n", 3, "in the background"),
        ("python x || exit 3", 1, "only if the one before it fails"),
        ("main() {\n python x\n}\nmain \"$@\"\n", 4, "a function"),
        ("source run.sh", 1, "the shell's own"),
        ("python x\ncp -r out /archive\n", 2, "no program that is trained"),
        ("python - <<E\nprint(1)\nE\n", 1, "reads a text"),
        ("a\n(cd x; python y)\n", 2, "which of the commands"),
        ("python x\nA=3\n", 2, "only sets a variable"),
        ("python x\necho finished >> log\n", 2, "writes a file"),
        ("python x\necho done | mail -s x me\n", 2, "reads from a pipe"),
        ("python x\nmail -s done me </dev/null\n", 2, "no program that is trained"),
        ("python x\n/usr/bin/curl -d ok host && sleep 3\n", 2, "no program that is trained"),
        ("python x && touch done\n", 1, "no program that is trained"),
        ("python x\n[ -f model ]\n", 2, "no program that is trained"),
        ("python x\n[[ -f a && -f b ]] && echo ok\n", 2, "which of the commands"),
        ("! python x\n", 1, "no program that is trained"),
        ("python x\nconda activate b\n", 2, "no program that is trained"),
        ("python x &\necho started\n", 2, "no program that is trained"),
        ("a\necho \"$(python x)\"\n", 2, "runs another one"),
        ("python x && echo ok || echo failed\n", 1, "only if the one before it fails"),
        ("a\nexec -a n python x\n", 2, "gives options to `exec`"),
        ("exec > log\n", 1, "runs no program"),
        ("main() {\n python x\n}\ntime main\n", 4, "a function"),
        ("python x > >(tee log) 2>&1\n", 1, "to a command"),
        ("cat >c <<E && python x\na\nE\n", 1, "stands a text"),
    ] {
        let error = of(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error:?}");
        assert!(error.message.contains(expected), "{text:?}: {error:?}");
    }
}

#[test]
fn a_text_behind_an_end_mark_belongs_to_its_line() {
    let text = "cat >c <<E\na: 1\nE\npython x\n";
    let script = JobScript { text, interpreter: "/bin/bash" };
    let own = program(&script).unwrap();
    assert_eq!(setup_lines(&script, &own), [(1, "cat >c <<E\na: 1\nE")]);
}

#[test]
fn what_comes_before_it_is_its_setup() {
    let text = "#!/bin/bash\n#SBATCH -n1\nmodule load cuda # 12\nsource venv/bin/activate; export A=1\n\nif x; then\n  y\nfi\ncd a && python x\n";
    let script = JobScript { text, interpreter: "/bin/bash" };
    let own = program(&script).unwrap();
    let lines = setup_lines(&script, &own);
    assert_eq!(
        lines,
        [
            (3, "module load cuda # 12"),
            (4, "source venv/bin/activate; export A=1"),
            (6, "if x; then"),
            (7, "y"),
            (8, "fi"),
            (9, "cd a &&"),
        ]
    );
}
