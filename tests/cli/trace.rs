//! `-v` and `NEMO_LOG`: what was asked of Slurm and which files were decided on, on stderr and only when wanted.

use crate::fake::FakeSlurm;
use crate::support::World;

const FILE: &str = "name = \"told\"\n[executor.it]\nkind = \"slurm\"\n[task.a]\nrun = \"true\"\n";

#[test]
fn each_program_of_slurm_is_shown_with_its_time_and_answer() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FILE);
    let id = fake.world.ok(&["submit", "exp.toml"]);
    let plain = fake.world.run(&["status", &id, "--json"]);
    assert!(plain.stderr.is_empty(), "{plain:?}");
    let shown = fake.world.run(&["-v", "status", &id, "--json"]);
    assert_eq!(shown.stdout, plain.stdout, "a script reads what it reads");
    let asked = shown.stderr.lines().find(|line| line.contains("`squeue ")).unwrap();
    assert!(
        asked.contains("DEBUG") && asked.contains(" took ") && asked.contains("exit code 0"),
        "{asked}"
    );
    assert!(
        shown.stderr.contains(&format!("experiments/{id}/experiment.json`")),
        "{}",
        shown.stderr
    );
    let all = fake.world.run(&["-vv", "status", &id]);
    assert!(all.stderr.contains("TRACE") && all.stderr.contains("PENDING"), "{}", all.stderr);
}

#[test]
fn a_filter_chooses_and_a_wrong_one_is_told() {
    let fake = FakeSlurm::new(1001);
    fake.world.write("exp.toml", FILE);
    let log = |filter: &str, arguments: &[&str]| {
        let output = fake.world.command(arguments).env("NEMO_LOG", filter).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = log("nemo_slurm::store=debug", &["submit", "exp.toml"]);
    assert_eq!(code, Some(0));
    assert!(stderr.contains("program: ") && !stderr.contains("`sbatch "), "{stderr}");
    let (code, stderr) = log("debug", &["status"]);
    assert_eq!((code, stderr.contains("`squeue ")), (Some(0), true), "{stderr}");
    let (code, stderr) = log("nemo=loud", &["status"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("NEMO_LOG is `nemo=loud`"), "{stderr}");
}

#[test]
fn a_missing_program_names_where_it_was_looked_for() {
    let mut world = World::new();
    world.slurm_conf = None;
    std::fs::create_dir(world.path("empty")).unwrap();
    world.path = world.path("empty").to_str().unwrap().to_owned();
    world.write("exp.toml", FILE);
    let printed = world.run(&["submit", "exp.toml"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let expected = format!("was not found in PATH: {}", world.path);
    assert!(printed.stderr.contains(&expected), "{printed:?}");
}
