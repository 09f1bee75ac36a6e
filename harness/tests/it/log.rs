//! What the harness says: lines with a time and a level, and everything where somebody asked for it.

use std::fs;

use nemo_core::log_line;

use crate::support::Task;

const SAVES: &str = r"
def stop():
    save(step + 1)
    sys.exit(75)
on(signal.SIGUSR1, stop)
print('not the harness', file=sys.stderr)
ready()
pause()
";

#[test]
fn lines_have_a_time_and_a_level() {
    let task = Task::python(SAVES);
    assert_eq!(task.signalled(&["USR1"]), 75);
    let text = task.stderr(0);
    let own: Vec<&str> = text.lines().filter(|line| log_line::text(line).is_some()).collect();
    assert_eq!(own.len() + 1, text.lines().count(), "{text}");
    for line in &own {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[1].len(), words[2]), ("2026-11-28T19:31:02Z".len(), "info"), "{line}");
    }
    assert!(
        own.iter().any(|line| log_line::text(line).unwrap().starts_with("the program is asked"))
    );
    assert!(!task.dir().debug_log().exists(), "nobody asked for it");
}

#[test]
fn every_event_and_action_is_written_down_on_request() {
    for in_file in [true, false] {
        let mut task = Task::python(SAVES);
        if in_file {
            task.spec["env"] = serde_json::json!({"NEMO_LOG": "debug"});
        } else {
            task.env("NEMO_LOG", "DEBUG");
        }
        assert_eq!(task.signalled(&["USR1"]), 75);
        let text = fs::read_to_string(task.dir().debug_log()).unwrap();
        let expected = [
            "signals: [SIGUSR1]",
            "event: Usr1",
            "action: RequestSave",
            "event: Exited",
            "recorded: End(",
        ];
        assert!(text.contains(" debug commit: ") && text.contains("committed: Ok"), "{text}");
        let mut lines = text.lines();
        for wanted in expected {
            let found = lines.any(|line| log_line::text(line).unwrap().starts_with(wanted));
            assert!(found, "`{wanted}` in order: {text}");
        }
    }
}
