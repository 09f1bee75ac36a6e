//! Notifications: who is told what, once, and again until it came; on this machine, a scripted and a real Slurm.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::cluster;
use crate::fake::FakeSlurm;
use crate::retry_rules::end;
use crate::support::{PATIENCE, World, printed, states};

/// Calls that change something, or that could come between two that do.
const CALLS: &str = "write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,openat,clone,clone3,vfork,wait4,waitid,close";

/// Writes each message to a file, a line each.
const TELL: &str = "cat >>told";

/// Two tasks, of which the second waits for the first; trial 1 of the first fails.
fn write(world: &World, executor: &str, notify: &str) {
    let text = format!(
        "name = \"n\"\n[notify]\n{notify}\n[executor.it]\n{executor}\n\
         [task.a]\nrun = \"test {{n}} = 0 || (echo no luck >&2; exit 3)\"\nparams = {{ n = [0, 1] }}\n\
         [task.b]\nrun = \"true\"\nafter = [\"a\"]\n"
    );
    world.write("exp.toml", &text);
}

fn told(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids without the experiment's, in order.
fn ids(messages: &[Value], id: &str) -> Vec<String> {
    let of = |message: &Value| message["id"].as_str().unwrap().strip_prefix(id).unwrap().to_owned();
    let mut ids: Vec<String> = messages.iter().map(of).collect();
    ids.sort();
    ids
}

#[track_caller]
fn until_told(world: &World, n: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(world.path("told")).unwrap_or_default();
        if text.lines().count() >= n && text.ends_with('\n') {
            return told(world);
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {n} messages: {text}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

pub(crate) const ALL: [&str; 3] = ["#0:failed", "/a#0:failed", "/b#0:blocked"];

#[test]
fn the_local_runner_tells_what_failed_why_and_what_to_type() {
    let world = World::new();
    write(
        &world,
        "kind = \"local\"",
        &format!("command = '{TELL}; echo {{event}} {{task}} >>words'"),
    );
    let id = world.ok(&["submit", "exp.toml"]);
    let messages = until_told(&world, 3);
    assert_eq!(ids(&messages, &id), ALL);
    let whole = messages.iter().find(|it| it["task"].is_null()).unwrap();
    assert_eq!(whole["trials"]["failed"], 1, "{whole:#}");
    assert_eq!(whole["errors"][0]["trials"], "a/1", "{whole:#}");
    assert_eq!(whole["errors"][0]["lines"][0], "no luck", "{whole:#}");
    assert_eq!(whole["repair"], format!("nemo-slurm retry {id} --advise"));
    let text = whole["text"].as_str().unwrap();
    assert!(text.contains("no luck") && text.contains("nemo-slurm retry"), "{text}");
    let words = std::fs::read_to_string(world.path("words")).unwrap();
    assert!(words.contains("failed a\n") && words.contains("blocked b\n"), "{words}");
    let polled = world.run(&["poll"]);
    assert!(polled.stderr.contains("Nothing to do"), "{polled:?}");
    assert_eq!(told(&world).len(), 3, "nothing is told twice");
    // What was retried may end once more.
    world.ok(&["retry", &id]);
    world.run(&["wait", &id, "--timeout", "1m"]);
    let again =
        ["#0:failed", "#1:failed", "/a#0:failed", "/a#1:failed", "/b#0:blocked", "/b#1:blocked"];
    assert_eq!(ids(&until_told(&world, 6), &id), again);
    let shown: Value = serde_json::from_str(&world.ok(&["show", &id, "--json"])).unwrap();
    assert_eq!(shown["notifications"].as_array().unwrap().len(), 6, "{shown:#}");
}

#[test]
fn what_succeeds_is_told_once_and_only_what_the_file_asks_for() {
    let world = World::new();
    let write = |on: &str| {
        let text = format!(
            "name = \"n\"\n[notify]\n{on}command = [\"sh\", \"-c\", \"{TELL}\"]\n[task.a]\nrun = \"true\"\n"
        );
        world.write("exp.toml", &text);
    };
    write("");
    let id = world.ok(&["submit", "exp.toml"]);
    let messages = until_told(&world, 1);
    assert_eq!(ids(&messages, &id), ["#0:completed"], "the only task is the experiment");
    assert_eq!(messages[0]["repair"], format!("nemo-slurm results {id}"));
    write("on = [\"failed\"]\n");
    world.ok(&["submit", "exp.toml", "--wait"]);
    assert!(world.run(&["poll"]).stderr.contains("Nothing to do"));
    assert_eq!(told(&world).len(), 1);
    write("of = [\"trial\"]\n");
    world.ok(&["submit", "exp.toml"]);
    assert_eq!(until_told(&world, 2)[1]["trial"], 0);
}

/// Takes one message of HTTP, and answers.
fn take_post(listener: &TcpListener) -> (String, Value) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            return (head.to_owned(), serde_json::from_str(body).unwrap());
        }
    }
}

/// A webhook that nobody answers is tried again by `poll`, with the same id; nothing shows its token.
#[test]
fn a_webhook_that_was_away_hears_of_it_later() {
    let (fake, id) = failed("url = \"http://127.0.0.1:PORT/T/secret?token=xyz\"");
    let world = &fake.world;
    let polled = world.run(&["poll"]);
    assert_eq!(polled.code, 0, "that nobody listens is no failure of a trial: {polled:?}");
    assert!(polled.stderr.contains("was not sent by http://127.0.0.1:"), "{polled:?}");
    let status = world.ok(&["status", &id, "--json"]);
    let shown = world.ok(&["show", &id, "--json"]);
    let text = world.run(&["status", &id]);
    for printed in [&status, &shown, &text.stdout, &polled.stderr] {
        assert!(printed.contains("127.0.0.1") && printed.contains("tries again"), "{printed}");
        assert!(!printed.contains("secret") && !printed.contains("xyz"), "{printed}");
    }
    let port: u16 = std::fs::read_to_string(world.path("port")).unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut polling = world.command(&["poll", "--json"]);
    let polling = polling.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let posts: Vec<(String, Value)> = (0..3).map(|_| take_post(&listener)).collect();
    let told: Value = serde_json::from_slice(&polling.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(told["notifications"].as_array().unwrap().len(), 3, "{told:#}");
    let messages: Vec<Value> = posts.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(ids(&messages, &id), ALL);
    for (head, message) in &posts {
        assert!(head.starts_with("POST /T/secret?token=xyz "), "{head}");
        assert!(head.contains("Content-Type: application/json"), "{head}");
        let key = format!("Idempotency-Key: {}", message["id"].as_str().unwrap());
        assert!(head.contains(&key), "{head}");
    }
    let status = world.status(&id);
    let warnings = status["warnings"].to_string();
    assert!(!warnings.contains("127.0.0.1"), "all is told: {warnings}");
}

/// `a` has failed in its trial 1, and `b` waits for it in vain, as their records say.
pub(crate) fn failed(notify: &str) -> (FakeSlurm, String) {
    let fake = FakeSlurm::new(1001);
    // A port that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fake.world.write("port", &port.to_string());
    write(&fake.world, "kind = \"slurm\"", &notify.replace("PORT", &port.to_string()));
    let id = fake.world.ok(&["submit", "exp.toml"]);
    end(&fake, &id, "a/0", "101_0", 0, "done");
    end(&fake, &id, "a/1", "101_1", 0, "failed");
    (fake, id)
}

#[test]
fn many_polls_at_once_tell_each_end_once() {
    let (fake, id) = failed(&format!("command = '{TELL}; sleep 0.2'"));
    let mut all: Vec<_> = (0..4).map(|_| fake.world.command(&["poll"]).spawn().unwrap()).collect();
    for child in &mut all {
        child.wait().unwrap();
    }
    fake.world.run(&["poll"]);
    assert_eq!(ids(&told(&fake.world), &id), ALL);
}

/// Who has only looked at it may not forget that it is to be told.
#[test]
fn an_end_that_was_only_looked_at_is_still_told() {
    let (fake, id) = failed(&format!("command = '{TELL}'"));
    fake.world.ok(&["status", &id]);
    fake.world.ok(&["list"]);
    fake.world.run(&["poll"]);
    assert_eq!(ids(&told(&fake.world), &id), ALL);
}

/// As after a kill between two messages. The folders of trials that were over at the last look are not read at first.
#[test]
fn what_is_over_is_told_while_slurm_still_shows_its_job() {
    let (fake, id) = failed(&format!("command = '{TELL}'"));
    fake.world.run(&["poll"]);
    std::fs::remove_file(fake.world.experiment(&id).join("notices/0-failed.json")).unwrap();
    std::fs::remove_file(fake.world.experiment(&id).join("summary.json")).unwrap();
    std::fs::remove_file(fake.world.path("told")).unwrap();
    fake.world.run(&["poll"]);
    assert_eq!(ids(&told(&fake.world), &id), ["#0:failed"]);
}

/// Kills a `poll` before its `n`-th call; the next one goes on. False when the first ended before that.
fn kill_and_poll_again(n: usize) -> bool {
    let (fake, id) = failed(&format!("command = '{TELL}'"));
    let mut strace = Command::new("strace");
    fake.world.surround(&mut strace);
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={n}");
    strace.arg("-o").arg(fake.world.path("strace.log"));
    strace.args(["-e", &format!("trace={CALLS}"), "-e", &inject]);
    strace.arg(env!("CARGO_BIN_EXE_nemo-slurm")).arg("poll");
    let first = strace.output().expect("strace is needed: apt-get install strace");
    let second = printed(&fake.world.command(&["poll"]).output().unwrap());
    assert_eq!(second.code, 0, "killed at {n}: {second:?}");
    let mut ids = ids(&until_told(&fake.world, 3), &id);
    assert!(ids.len() <= 4, "killed at {n}: at most the one on its way comes again: {ids:?}");
    ids.dedup();
    assert_eq!(ids, ALL, "killed at {n}: {second:?}");
    let third = fake.world.run(&["poll"]);
    assert!(third.stderr.contains("Nothing to do"), "killed at {n}: {third:?}");
    !first.status.success()
}

#[test]
fn kill_9_of_poll_loses_no_notification() {
    let mut points = (1..).step_by(17).take_while(|point| kill_and_poll_again(*point));
    let last = points.by_ref().last().unwrap_or(0);
    assert!(last > 100, "only {last} calls: were the right ones traced?");
}

#[test]
fn the_mailer_of_the_site_gets_a_letter() {
    let (fake, id) = failed("email = [\"me@example.org\", \"you\"]\nof = [\"experiment\"]");
    let mailer = fake.world.path("bin/sendmail");
    std::fs::write(&mailer, "#!/bin/sh\necho \"args $*\" >>letter\ncat >>letter\n").unwrap();
    std::fs::set_permissions(&mailer, std::fs::Permissions::from_mode(0o755)).unwrap();
    fake.world.run(&["poll"]);
    let letter = std::fs::read_to_string(fake.world.path("letter")).unwrap();
    let id_of_letter: String =
        format!("{id}.0.failed").replace(|c: char| !c.is_ascii_alphanumeric(), ".");
    let head = format!(
        "args -t -i\nTo: me@example.org, you\nSubject: {id} failed (3 trials: 1 completed, 1 failed, 1 blocked)\n\
         Message-ID: <{id_of_letter}@nemo-slurm>\nAuto-Submitted: auto-generated\n"
    );
    assert!(letter.starts_with(&head), "{letter}");
    assert!(letter.contains("it went wrong"), "{letter}");
}

/// On a real Slurm, and without a `poll` of anybody: the jobs tell it at their ends.
/// The end of the only job is followed by no other that could tell of it.
#[test]
fn a_job_tells_that_the_time_of_the_experiment_is_over() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    let text = format!(
        "name = \"late\"\ntimeout = \"20s\"\n[notify]\ncommand = '{TELL}'\n[executor.it]\nkind = \"slurm\"\n\
         partition = \"main\"\nmem = \"100M\"\ntime = \"5m\"\n[task.a]\nrun = \"sleep 200\"\n"
    );
    let file = world.write("exp.toml", &text);
    let id = world.ok(&["submit", file.to_str().unwrap()]);
    assert_eq!(ids(&until_told(&world, 1), &id), ["#0:failed"]);
}

#[test]
fn a_job_tells_at_its_end() {
    if !cluster::is_here() {
        return;
    }
    let world = World::new();
    write(
        &world,
        "kind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\ntime = \"5m\"",
        &format!("command = '{TELL}'"),
    );
    let id = world.ok(&["submit", "exp.toml"]);
    let messages = until_told(&world, 3);
    assert_eq!(ids(&messages, &id), ALL);
    assert!(messages.iter().any(|it| it["errors"][0]["lines"][0] == "no luck"), "{messages:#?}");
    world
        .until(&id, "Slurm's word on what is blocked", |status| states(status, "b") == ["blocked"]);
    world.run(&["poll"]);
    assert_eq!(told(&world).len(), 3);
    let one = "name = \"one\"\n[notify]\ncommand = 'cat >>one'\n[executor.it]\nkind = \"slurm\"\npartition = \"main\"\nmem = \"100M\"\n[task.a]\nrun = \"true\"\n";
    let file = world.write("one.toml", one);
    world.ok(&["submit", file.to_str().unwrap()]);
    let began = Instant::now();
    while !std::fs::read_to_string(world.path("one")).is_ok_and(|it| it.ends_with('\n')) {
        assert!(began.elapsed() < PATIENCE, "the only trial told nothing");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
