//! What commands say so that nobody is misled: what was only asked for, what was left out, what was not there.

use crate::support::World;

const FILE: &str = "name = \"told\"\n[task.train]\nrun = '''\nfor n in 0 1 2; do echo \"step $n loss=$n\"; done\n\
                    while ! test -e goes; do sleep 0.05; done'''\n\
                    metrics = { step = 'step (\\d+)', loss = 'loss=(\\S+)' }\n";

#[test]
fn nothing_is_called_done_before_it_is() {
    let world = World::new();
    world.write("exp.toml", FILE);
    let id = world.ok(&["submit", "exp.toml"]);
    world.until(&id, "the steps", |status| {
        status["tasks"][0]["trials"][0]["step"].as_u64() == Some(2)
    });
    let plot = world.run(&["plot", "@", "--log-scale"]);
    assert!(plot.stderr.contains("1 value of 0 or less: no place"), "{plot:?}");
    let note = world.run(&["note", "@", "--untag", "nosuch"]);
    assert!(note.stderr.contains("has no tag `nosuch`"), "{note:?}");
    let paused = world.run(&["pause", &id]);
    let told = format!("Asked 1 running trial of {id} to save and to stop.");
    assert!(paused.stderr.contains(&told), "{paused:?}");
    world.write("wrong.toml", "name = \"wrong\"\nseeed = 1\n[task.t]\nrun = \"true\"\n");
    let refused = world.run(&["submit", "wrong.toml"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains(&format!("`@` is still `{id}`")), "{refused:?}");
    world.ok(&["cancel", &id]);
    world.write("goes", "");
}
