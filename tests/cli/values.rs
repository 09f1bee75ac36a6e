//! Values that pass between tasks: `{prepare.result.KEY}`, `{train.best.checkpoint}` and the like.

use crate::support::{World, states, text, trials};

const FILE: &str = r#"
name = "values"
[executor.here]
kind = "local"
env.FROM_ENV = "size {prepare.result.size}"
setup = ["SET_UP='of {task} {train.best.result.lr}'", "export SET_UP"]
[executor.plain]
kind = "local"
[task.prepare]
executor = "plain"
run = '''echo '{"size": 41, "name": "a b; echo X", "deep": {"er": [1]}}' >"$NEMO_RESULT"'''
[task.train]
executor = "plain"
after = ["prepare"]
run = '''
test {prepare.result.size} = 41 || exit 3
for step in 1 2; do
  mkdir "$NEMO_CHECKPOINT_DIR/step-$step.tmp"
  echo {lr} $step >"$NEMO_CHECKPOINT_DIR/step-$step.tmp/model"
  mv "$NEMO_CHECKPOINT_DIR/step-$step.tmp" "$NEMO_CHECKPOINT_DIR/step-$step"
  echo step $step loss {lr}.$step
done
echo '{"lr": {lr}}' >"$NEMO_RESULT"
'''
params.lr = [7, 3, 5]
metrics = { step = 'step (\d+)', loss = 'loss (\S+)' }
search.metric = "loss"
checkpoint.keep = { trial_latest = 2 }
[task.last]
executor = "here"
after = ["train"]
run = ["sh", "-c", '''printf '%s|' "$@" "$FROM_ENV" "$SET_UP"; cat "$2/model"''', "sh", "{train.best.dir}", "{train.best.checkpoint}", "{train.best.result.lr}", "{prepare.result.name}", "{prepare.result.deep.er}"]
"#;

#[test]
fn results_and_the_best_trial_reach_the_tasks_after() {
    let world = World::new();
    world.write("exp.toml", FILE);
    let printed = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(printed.code, 0, "{printed:?} {}", world.ok(&["logs", "@"]));
    let id = printed.stdout.trim();
    let best = std::fs::canonicalize(world.experiment(id)).unwrap().join("tasks/train/trials/1");
    let logs = world.ok(&["logs", &format!("{id}/last"), "--stream", "out"]);
    let best = best.display();
    // Of its two checkpoints the one with the lower loss.
    let expected =
        format!("{best}|{best}/checkpoints/step-1|3|a b; echo X|[1]|size 41|of last 3|3 1");
    assert!(logs.ends_with(&expected), "{logs}");
    let train = &world.status(id)["tasks"][1];
    assert_eq!(train["best"], 1, "the one that status shows: {train:#}");
}

/// What is missing is said by the child that needs it, with its name and what there is instead.
#[test]
fn a_value_that_is_not_there_fails_the_child_and_says_which() {
    let world = World::new();
    let check = |parent: &str, named: &str, expected: &str| {
        let file = format!(
            "name = \"missing\"\n[task.prepare]\nrun = '''{parent}'''\nsearch.metric = \"loss\"\n\
             params.n = [1, 2]\n[task.one]\nrun = '''{parent}'''\n\
             [task.child]\nafter = [\"prepare\", \"one\"]\nrun = [\"echo\", \"{named}\"]\n"
        );
        world.write("exp.toml", &file);
        let printed = world.run(&["submit", "exp.toml", "--wait"]);
        assert_eq!(printed.code, 1, "{printed:?}");
        let status = world.status("@");
        assert_eq!(states(&status, "child"), ["failed"], "{status:#}");
        let reason = text(&trials(&status, "child")[0]["reason"]);
        assert!(reason.contains(expected), "{reason}");
        assert!(reason.contains(named), "{reason}");
    };
    check("true", "{one.result.size}", "trial 0 of `one` left no result in `");
    let wrong = r#"echo '{"sizes": 1, "n": 2}' >"$NEMO_RESULT""#;
    check(
        wrong,
        "{one.result.size}",
        "the result of trial 0 of `one` has no `size`, but `sizes`, `n`",
    );
    check("echo x >\"$NEMO_RESULT\"", "{one.result.size}", "is no JSON object");
    let endless = "truncate -s 20G \"$NEMO_RESULT\"";
    check(endless, "{one.result.size}", "it has more than 16 MiB");
    check("true", "{prepare.best.dir}", "no trial of `prepare` reported `loss`");
    check("true", "{prepare.best.result.x}", "no trial of `prepare` reported `loss`");
}

#[test]
fn check_says_what_can_not_be_passed() {
    let world = World::new();
    let check = |run: &str, message: &str, hint: &str| {
        let file = format!(
            "name = \"bad\"\n[task.many]\nrun = \"true\"\nparams.n = [1, 2]\n[task.other]\nrun = \"true\"\n\
             [task.child]\nafter = [\"many\"]\nrun = \"echo {run}\"\n"
        );
        world.write("exp.toml", &file);
        for command in ["check", "plan"] {
            let printed = world.run(&[command, "exp.toml"]);
            assert_eq!(printed.code, 2, "{printed:?}");
            assert!(printed.stderr.contains(message), "{printed:?}");
            assert!(printed.stderr.contains(hint), "{printed:?}");
        }
    };
    check("{many.result.lr}", "has 2 trials", "{many.best.result.lr}");
    check("{many.best.dir}", "needs a metric", "search.metric");
    check("{other.result.x}", "does not wait for `other`", "add `after");
    check("{nope.best.checkpoint}", "unknown placeholder", "literal");
}
