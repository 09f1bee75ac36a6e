//! Damage to any file of an experiment, and to whatever Slurm prints: no panic, no hang, and no lie.
//!
//! What is told is the truth, or the file is named, and nothing untrue is told for good. `NEMO_MUTANTS` says how many are
//! tried, `NEMO_MUTANTS_SEED` repeats a run: `scripts/mutants` tries 200,000.

mod ground;
mod mutate;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nemo_core::rundir::ExperimentDir;
use nemo_core::scope::Scope;
use nemo_slurm::query::SlurmSource;
use nemo_slurm::slurm::parse::{account, config, job, partition, queue, submit};
use nemo_slurm::slurm::{JobId, Parsed};
use nemo_slurm::status::{self, QueryResult, RememberedStates, Status, StatusInputs};
use nemo_slurm::store::Home;
use nemo_slurm::summary::{self, Index, KnownExperiment};
use nemo_slurm::{observe, remembered};

use crate::choices::Choices;
use ground::Ground;
use mutate::Damage;

/// How many mutants a test run tries.
const FEW: usize = 1000;

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Tries mutants `0..n` with every fault told, and the number that repeats it.
fn try_all(what: &str, n: usize, mut one: impl FnMut(&mut Choices) -> Result<String, String>) {
    let seed = variable("NEMO_MUTANTS_SEED", 1) as u64;
    let (mut tried, mut wrong) = (BTreeMap::<String, usize>::new(), Vec::new());
    let only = std::env::var("NEMO_MUTANT").ok().map(|number| number.parse::<u64>().unwrap());
    for number in only.map_or(0..n as u64, |only| only..only + 1) {
        let told = catch_unwind(AssertUnwindSafe(|| one(&mut Choices::numbered(seed, number))));
        match told {
            Ok(Ok(kind)) => *tried.entry(kind).or_default() += 1,
            Ok(Err(lie)) => wrong.push(format!("NEMO_MUTANT={number}: {lie}")),
            Err(_) => wrong.push(format!("NEMO_MUTANT={number}: a panic")),
        }
    }
    let mut table = String::new();
    for (kind, count) in &tried {
        writeln!(table, "{count:8}  {kind}").unwrap();
    }
    println!("{what}, seed {seed}:\n{table}");
    let shown = wrong.len().min(variable("NEMO_MUTANTS_SHOWN", 10));
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong[..shown].join("\n"));
}

/// All that a status says of the past.
fn told(status: &Status) -> Vec<String> {
    let trials = status.tasks.iter().flat_map(|task| {
        task.trials.iter().map(|trial| format!("{}/{}: {trial:?}", task.name, trial.index))
    });
    std::iter::once(format!("{:?}", status.experiment.state)).chain(trials).collect()
}

/// What is told for good, trial by trial.
fn for_good(status: &Status) -> BTreeMap<(String, u32), status::State> {
    let trials = status
        .tasks
        .iter()
        .flat_map(|task| task.trials.iter().map(|trial| ((task.name.clone(), trial.index), trial)));
    trials.filter(|(_, trial)| trial.is_final()).map(|(key, trial)| (key, trial.state)).collect()
}

fn states(status: &Status) -> BTreeMap<(String, u32), status::State> {
    let trials = status.tasks.iter().flat_map(|task| {
        task.trials.iter().map(|trial| ((task.name.clone(), trial.index), trial.state))
    });
    trials.collect()
}

fn rows<T>(parsed: Parsed<T>) -> QueryResult<T> {
    if parsed.unread.is_empty() {
        QueryResult::Rows(parsed.rows)
    } else {
        QueryResult::Partly(parsed.rows, "rows can't be read".to_owned())
    }
}

/// A look at an experiment: what Slurm prints is given.
fn look(home: &Home, id: &str, queue: &[u8], accounts: &[u8]) -> Result<Status, String> {
    let stored = home.load(&id.parse().unwrap()).map_err(|error| error.to_string())?;
    let sources = observe::sources(&stored, SlurmSource::Nobody, observe::Depth::All);
    Ok(join(&mut sources.map_err(|error| error.to_string())?, queue, accounts))
}

fn join(sources: &mut StatusInputs<'_>, queue: &[u8], accounts: &[u8]) -> Status {
    sources.now = 1_795_900_300.0;
    sources.queue = rows(queue::parse(queue));
    sources.accounts = rows(account::parse(accounts));
    let mut status = status::join(sources);
    status::set_params(&mut status, observe::params(sources.stored, &Scope::default()));
    status
}

fn names(text: &str, file: &Path) -> bool {
    text.contains(&file.display().to_string())
}

/// What may be said of a damaged file, given what is so.
fn judge(
    truth: &Status,
    seen: Result<Status, String>,
    file: &Path,
    damage: Damage,
    is_torn: bool,
) -> Result<(), String> {
    let status = match seen {
        Err(error) if names(&error, file) => return Ok(()),
        Err(error) => return Err(format!("the file is not named: {error}")),
        Ok(status) => status,
    };
    let (is, good) = (states(truth), for_good(&status));
    let lie = good.iter().find(|(key, state)| is.get(key) != Some(state));
    if let Some((key, state)) = lie {
        return Err(format!("{key:?} is {state:?} for good, in truth {:?}", is.get(key)));
    }
    // Lines that are gone as a whole were never there, as after a crash: nothing tells of them.
    let is_named = status.warnings.iter().any(|warning| names(warning, file));
    if is_named || damage.leaves_lines_whole() || is_torn {
        return Ok(());
    }
    // What a program reports has no checksum: people and scripts write and read it.
    if file.ends_with("metrics.jsonl") || file.ends_with("progress.json") {
        return if states(&status) == is { Ok(()) } else { Err("another state".to_owned()) };
    }
    let (told, wanted) = (told(&status), told(truth));
    match told.iter().zip(&wanted).find(|(told, wanted)| told != wanted) {
        None => Ok(()),
        Some((told, wanted)) => Err(format!("told {told}\ninstead of {wanted}")),
    }
}

#[test]
fn of_files() {
    let ground = Ground::new();
    let home = Home::new(ground.fake.world.path("home"));
    let (queue, accounts) = (ground::queue(), ground::accounts());
    let look = |id: &str| look(&home, id, &queue, &accounts);
    let mut cases: BTreeMap<String, Vec<(&String, PathBuf)>> = BTreeMap::new();
    for id in [&ground.local, &ground.slurm] {
        // Nothing is remembered: only the files themselves speak.
        std::fs::remove_file(ground.folder(id).join("observed.json")).ok();
        let truth = look(id).unwrap();
        let is_expected = |it: &String| it.contains("left no checkpoint"); // one that fails and starts again
        assert!(truth.warnings.iter().all(is_expected), "{:?}", truth.warnings);
        for file in ground.files(id) {
            cases.entry(kind(&file)).or_default().push((id, file));
        }
    }
    let cases: Vec<Vec<(&String, PathBuf)>> = cases.into_values().collect();
    let truths: BTreeMap<&String, Status> =
        [&ground.local, &ground.slurm].map(|id| (id, look(id).unwrap())).into();
    try_all("files", variable("NEMO_MUTANTS", FEW), |choices| {
        let files = choices.of(&cases);
        let (id, file) = choices.of(files);
        let damage = *choices.of(&Damage::ALL);
        let content = std::fs::read(file).unwrap();
        let mutant = damage.done_to(&content, choices);
        std::fs::write(file, &mutant).unwrap();
        let seen = catch_unwind(AssertUnwindSafe(|| look(id)));
        std::fs::write(file, &content).unwrap();
        let seen = seen.map_err(|_| format!("{damage:?} of {}: a panic", file.display()))?;
        let judged = judge(&truths[id], seen, file, damage, !mutant.ends_with(b"\n"));
        judged.map_err(|lie| format!("{damage:?} of {}: {lie}", file.display()))?;
        Ok(kind(file))
    });
}

/// Files of one kind have one line in the table.
fn kind(file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy();
    let of_request = file.parent().is_some_and(|parent| parent.ends_with("requests"));
    if of_request { "requests/*.json".to_owned() } else { name.into_owned() }
}

#[test]
fn of_what_is_remembered() {
    let ground = Ground::new();
    let world = &ground.fake.world;
    let home = Home::new(world.path("home"));
    std::fs::write(ground.fake.state("squeue.rows"), ground::queue()).unwrap();
    std::fs::write(ground.fake.state("sacct.rows"), ground::accounts()).unwrap();
    for _ in 0..2 {
        world.ok(&["list", "--json"]);
    }
    let folders = [&ground.local, &ground.slurm].map(|id| ground.folder(id));
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| ["summary.json", "observed.json"].map(|name| folder.join(name)))
        .filter(|path| path.exists())
        .collect();
    let index = std::fs::read_dir(home.index()).unwrap().map(|entry| entry.unwrap().path());
    files.extend(index.filter(|path| path.is_file()));
    assert!(files.len() > 3 && files.iter().all(|path| path.exists()), "{files:?}");
    let remembered = |home: &Home| {
        let ids = home.ids().unwrap();
        let index = Index::read(home);
        let known = summary::known(home, &ids, &index).into_iter().map(|known| match known {
            KnownExperiment::Indexed(entry) => Some(format!("{entry:?}")),
            KnownExperiment::Summarized(summary) => Some(format!("{summary:?}")),
            KnownExperiment::Unknown => None,
            KnownExperiment::Damaged(why) => panic!("{why}"),
        });
        let known: Vec<_> = known.collect();
        let observed = ids.iter().map(|id| {
            Some(remembered::read(&home.load(id).unwrap())).filter(|all| !all.is_empty())
        });
        let observed = observed.map(|all| all.map(|all| format!("{all:?}")));
        known.into_iter().chain(observed).collect::<Vec<Option<String>>>()
    };
    let truth = remembered(&home);
    try_all("what is remembered", variable("NEMO_MUTANTS", FEW) / 4, |choices| {
        let file = choices.of(&files);
        let damage = *choices.of(&Damage::ALL);
        let content = std::fs::read(file).unwrap();
        std::fs::write(file, damage.done_to(&content, choices)).unwrap();
        let seen = catch_unwind(AssertUnwindSafe(|| remembered(&home)));
        std::fs::write(file, &content).unwrap();
        let seen = seen.map_err(|_| format!("{damage:?} of {}: a panic", file.display()))?;
        // An experiment that is in the index needs no summary, and one that is not may have one.
        let is_lie = seen.iter().zip(&truth).any(|(seen, truth)| {
            seen.is_some()
                && seen != truth
                && !(file.starts_with(home.index()) && is_summary(seen.as_ref()))
        });
        if is_lie {
            return Err(format!(
                "{damage:?} of {}: {seen:?}\ninstead of {truth:?}",
                file.display()
            ));
        }
        Ok(kind(file))
    });
}

fn is_summary(known: Option<&String>) -> bool {
    known.is_some_and(|known| known.starts_with("Summary"))
}

/// Answers of Slurm, each of which is damaged once, between two that are right.
#[test]
fn of_answers() {
    let ground = Ground::new();
    let home = Home::new(ground.fake.world.path("home"));
    let dir = ExperimentDir(ground.folder(&ground.slurm));
    let id = &ground.slurm;
    let (queue, accounts) = (ground::queue(), ground::accounts());
    std::fs::remove_file(dir.0.join("observed.json")).ok();
    let stored = home.load(&id.parse().unwrap()).unwrap();
    let mut sources = observe::sources(&stored, SlurmSource::Nobody, observe::Depth::All).unwrap();
    let truth = join(&mut sources, &queue, &accounts);
    let recorded = for_good(&truth);
    let ended = ["train", "each", "prepare"].map(|task| (task.to_owned(), 0));
    assert!(ended.iter().all(|trial| recorded.contains_key(trial)), "{recorded:?}");
    try_all("answers of squeue and sacct", variable("NEMO_MUTANTS", FEW), |choices| {
        let damage = *choices.of(&Damage::ALL);
        let (mut queue_now, mut accounts_now) = (queue.clone(), accounts.clone());
        let which = choices.index(3);
        if which != 1 {
            queue_now = damage.done_to(&queue, choices);
        }
        if which != 0 {
            accounts_now = damage.done_to(&accounts, choices);
        }
        let odd = join(&mut sources, &queue_now, &accounts_now);
        // Our own record stands, whatever Slurm prints, and nothing else is told for good.
        if for_good(&odd) != recorded {
            return Err(format!("{damage:?}: {:?} for good, not {recorded:?}", for_good(&odd)));
        }
        remembered::keep(&stored, &odd);
        sources.earlier = remembered::read(&stored);
        let after = join(&mut sources, &queue, &accounts);
        sources.earlier = RememberedStates::default();
        let (told, wanted) = (told(&after), told(&truth));
        match told.iter().zip(&wanted).find(|(told, wanted)| told != wanted) {
            Some((told, wanted)) => Err(format!("{damage:?}: left {told}\ninstead of {wanted}")),
            None => Ok(["squeue", "sacct", "squeue and sacct"][which].to_owned()),
        }
    });
}

/// The other answers: each is read as it was, or not at all, or as what it says now.
#[test]
fn of_other_answers() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    let mut files = Vec::new();
    for version in ["slurm-22.05", "slurm-24.11", "slurm-26.05"] {
        let entries = std::fs::read_dir(data.join(version)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    files.sort();
    try_all("other answers", variable("NEMO_MUTANTS", FEW), |choices| {
        let file = choices.of(&files);
        let content = std::fs::read(file).unwrap();
        let text = choices.of(&Damage::ALL).done_to(&content, choices);
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let read = [
            queue::parse(&text).rows.len() + queue::parse(&text).unread.len(),
            account::parse(&text).rows.len() + account::parse(&text).unread.len(),
        ];
        if read.iter().any(|read| *read > lines) {
            return Err(format!("{read:?} rows of {lines} lines"));
        }
        drop((job::parse(&text), partition::parse(&text), config::parse(&text)));
        // `sbatch` prints nothing but an id, and its cluster: of anything else nothing is made.
        if let Some((JobId(id), _)) = submit::parse(&text)
            && !String::from_utf8_lossy(&text).contains(&id.to_string())
        {
            return Err(format!("{id} is not in {text:?}"));
        }
        Ok("squeue, sacct, sbatch, scontrol show job, partition and config".to_owned())
    });
}

/// Every command that a person or cron may run, on a home that is damaged and a Slurm that is odd.
const COMMANDS: [&[&str]; 9] = [
    &["status", "ID", "--json"],
    &["status", "ID", "--attempts"],
    &["list", "--json"],
    &["poll", "--json"],
    &["goodput", "ID", "--json"],
    &["logs", "ID"],
    &["cancel", "ID", "--dry-run"],
    &["submit", "--continue", "ID"],
    &["wait", "ID", "--timeout", "1s"],
];

#[test]
fn of_all_that_the_program_reads() {
    let ground = Ground::new();
    let world = &ground.fake.world;
    let home = world.path("home");
    let pristine = world.path("pristine");
    let answers = [("squeue.rows", ground::queue()), ("sacct.rows", ground::accounts())];
    // A local runner that a command started may still write there.
    let copy = |from: &Path, to: &Path| {
        let copied = (0..100).any(|_| {
            std::fs::remove_dir_all(to).ok();
            let output = std::process::Command::new("cp").arg("-a").arg(from).arg(to).output();
            let copied = output.unwrap().status.success();
            if !copied {
                std::thread::sleep(Duration::from_millis(50));
            }
            copied
        });
        assert!(copied, "{}", to.display());
    };
    copy(&home, &pristine);
    let files: Vec<PathBuf> =
        [&ground.local, &ground.slurm].into_iter().flat_map(|id| ground.files(id)).collect();
    try_all("the program", variable("NEMO_MUTANTS", FEW) / 100, |choices| {
        for (name, rows) in &answers {
            std::fs::write(ground.fake.state(name), rows).unwrap();
        }
        let damage = *choices.of(&Damage::ALL);
        let what = match choices.index(4) {
            0 => ground.fake.state("squeue.rows"),
            1 => ground.fake.state("sacct.rows"),
            _ => choices.of(&files).clone(),
        };
        let content = std::fs::read(&what).unwrap();
        std::fs::write(&what, damage.done_to(&content, choices)).unwrap();
        let command = choices.of(&COMMANDS);
        let id = choices.of(&[&ground.local, &ground.slurm]).as_str();
        let words: Vec<&str> =
            command.iter().map(|word| if *word == "ID" { id } else { word }).collect();
        let printed = world.run(&[&["--slurm-timeout", "20"][..], &words].concat());
        let requeued = ground.fake.read("requeued");
        std::fs::remove_file(ground.fake.state("requeued")).ok();
        copy(&pristine, &home);
        let told = format!("{damage:?} of {}, {words:?}: {printed:?}", what.display());
        if !(0..=5).contains(&printed.code) || printed.stderr.contains("panicked") {
            return Err(told);
        }
        // What our own records call over is never run again.
        let over = ["101_0", "102_0", "102_1", "102_2", "104_0", "105_0"];
        if !what.ends_with("attempts.jsonl") && over.iter().any(|job| requeued.contains(job)) {
            return Err(format!("requeued {requeued}: {told}"));
        }
        Ok(command[0].to_owned())
    });
}
