//! What is said of files that are wrong.

use super::read;

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = r#"name = "my digits"
seeed = 1
timeout = "2 weeks"
[executor.gpu]
kind = "slurm"
gpus = 1
mem = "0G"
sbatch = { output = "x.log" }
[tsak.train]
[task.train]
after = ["prepair"]
run = "python train.py --lr {rl} --data {prepare.dirs}"
params = { lr = [], width = { int = [4, 2] } }
search = { method = "random", concurrent = 0 }
[task.train.metrics]
loss = 'loss: \S+'
[task.prepare]
run = 3
"#;
    insta::assert_snapshot!(read(text).unwrap_err(), @r##"
    error: "my digits" can't be a name: it has a space in it
      --> exp.toml:1, key `name`
       |  name = "my digits"
       |         ^^^^^^^^^^^
    hint: use letters, digits, `.`, `_` and `-`, such as `lr-sweep`

    error: unknown key `seeed`
      --> exp.toml:2, key `seeed`
       |  seeed = 1
       |  ^^^^^
    hint: did you mean `seed`?

    error: "2 weeks" is not a duration
      --> exp.toml:3, key `timeout`
       |  timeout = "2 weeks"
       |            ^^^^^^^^^
    hint: write for example "90s", "10m", "1h30m", "2d" or "1-12:00:00"

    error: unknown key `gpus`
      --> exp.toml:6, key `executor.gpu.gpus`
       |  gpus = 1
       |  ^^^^
    hint: did you mean `gpus_per_node`?

    error: "0G" is not an amount of memory: it must be more than 0
      --> exp.toml:7, key `executor.gpu.mem`
       |  mem = "0G"
       |        ^^^^
    hint: write for example "500M", "8G" or "1T"

    error: `output` can't be set in `sbatch`: output is kept with the experiment: `nemo-slurm logs` shows it
      --> exp.toml:8, key `executor.gpu.sbatch.output`
       |  sbatch = { output = "x.log" }
       |             ^^^^^^

    error: unknown key `tsak`
      --> exp.toml:9, key `tsak`
       |  [tsak.train]
       |   ^^^^
    hint: did you mean `task`?

    error: there is no task `prepair`
      --> exp.toml:11, key `task.train.after[0]`
       |  after = ["prepair"]
       |           ^^^^^^^^^
    hint: did you mean `prepare`?

    error: unknown placeholder `{rl}`
      --> exp.toml:12, key `task.train.run`
       |  run = "python train.py --lr {rl} --data {prepare.dirs}"
       |                              ^^^^
    hint: add `rl` to the task's `params`, or write `{{rl}}` for a literal `{rl}`

    error: `train` does not wait for `prepare`
      --> exp.toml:12, key `task.train.run`
       |  run = "python train.py --lr {rl} --data {prepare.dirs}"
       |                                          ^^^^^^^^^^^^^^
    hint: add `after = ["prepare"]` to `task.train`

    error: an empty list leaves nothing to try
      --> exp.toml:13, key `task.train.params.lr`
       |  params = { lr = [], width = { int = [4, 2] } }
       |                  ^^
    hint: write for example `lr = [1, 2]`

    error: the lowest bound is above the highest
      --> exp.toml:13, key `task.train.params.width.int`
       |  params = { lr = [], width = { int = [4, 2] } }
       |                                      ^^^^^^
    hint: exchange the two

    error: `method = "random"` is not supported yet
      --> exp.toml:14, key `task.train.search.method`
       |  search = { method = "random", concurrent = 0 }
       |                      ^^^^^^^^

    error: the pattern has no group that takes the number
      --> exp.toml:16, key `task.train.metrics.loss`
       |  loss = 'loss: \S+'
       |         ^^^^^^^^^^^
    hint: put the number into parentheses: `loss = 'loss: (\S+)'`

    error: expected a string or a list of strings, found the integer 3
      --> exp.toml:18, key `task.prepare.run`
       |  run = 3
       |        ^
    hint: put it in quotes
    "##);
}
