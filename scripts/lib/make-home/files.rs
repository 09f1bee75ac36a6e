//! What is in the files of experiments: names, and so many trials, that look like people's.

use std::collections::BTreeMap;

use crate::chance::Chance;

/// Some names are of one experiment, others of many.
pub(crate) fn name(number: usize) -> String {
    let mut chance = Chance::new(number as u64 + (1 << 40));
    let models = ["resnet", "gpt", "vit", "mlp", "unet", "bert", "mamba", "gnn"];
    let data = ["imagenet", "wiki", "cifar", "openweb", "lidar"];
    let most = 10_u64.pow(chance.below(4) as u32);
    format!("{}-{}-{}", models[chance.below(8)], data[chance.below(5)], chance.below(most))
}

pub(crate) fn versions(total: usize) -> Vec<usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut next = |number| {
        let count = counts.entry(name(number)).or_default();
        *count += 1;
        *count
    };
    (0..total).map(&mut next).collect()
}

/// As many have few trials as have many: half of them have at most 31.
pub(crate) fn trials(number: usize) -> usize {
    let mut chance = Chance::new(number as u64 + (1 << 41));
    match number % 1000 {
        1 => 1,
        2 => 1000,
        _ => 10_f64.powf(chance.below(3_000) as f64 / 1000.0) as usize,
    }
}

/// The file of an experiment.
pub(crate) fn file(name: &str, number: usize, is_local: bool, chance: &mut Chance) -> String {
    let (model, rest) = name.split_once('-').unwrap_or((name, ""));
    let data = rest.split('-').next().unwrap_or(rest);
    let tags: Vec<String> = ["baseline", "ablation", "paper", "sweep", "nightly"]
        .into_iter()
        .filter(|_| chance.below(3) == 0)
        .map(|tag| format!("{tag:?}"))
        .collect();
    let executor = if is_local {
        "kind = \"local\""
    } else {
        "kind = \"slurm\"\npartition = \"gpu\"\ntime = \"4h\""
    };
    let prepare = if number.is_multiple_of(3) { "[task.prepare]\nrun = \"true\"\n" } else { "" };
    let after = if prepare.is_empty() { "" } else { "after = [\"prepare\"]\n" };
    format!(
        "name = \"{name}\"\ndescription = \"{model} on {data}, number {number}\"\ntags = [{}]\n\
         [metadata]\nmodel = \"{model}\"\ndata = \"{data}\"\nwidth = {}\n[executor.here]\n{executor}\n\
         [defaults]\nexecutor = \"here\"\n{prepare}[task.train]\n{after}run = \"true {{index}} {{lr}}\"\n\
         [task.train.params]\nindex = {{ int = [0, {}] }}\nlr = 0.1\n[task.train.search]\nmethod = \"grid\"\n\
         metric = \"loss\"\ngoal = \"min\"\n[task.train.metrics]\nloss = 'loss (\\S+)'\n",
        tags.join(", "),
        1 << chance.below(12),
        trials(number) - 1,
    )
}
