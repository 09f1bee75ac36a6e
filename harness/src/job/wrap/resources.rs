//! What a wrapped job asked of Slurm, as `scontrol show job` tells it: its use is counted by that.

use nemo_core::duration;
use serde_json::{Value, json};

/// The executor that a file with the same wishes would have. What Slurm does not tell is left open.
pub(super) fn executor(shown: &str) -> Value {
    let gpus = gpus(shown).map(|gpus| gpus.to_string());
    json!({
        "kind": "slurm",
        "nodes": number(shown, "NumNodes"),
        "tasks_per_node": null,
        "partition": before_nodes(shown, "Partition"),
        "gpus_per_node": null,
        "cpus_per_task": number(shown, "CPUs/Task"),
        "mem": from_nodes(shown, "MinMemoryNode").filter(|mem| *mem != "0"),
        "time": time_limit(shown),
        "sbatch": gpus.map_or(json!({}), |gpus| json!({ "gpus": gpus })),
        "surroundings": { "env": {}, "secrets": [], "setup": [] },
    })
}

/// The time limit in seconds; none where there is none.
pub(super) fn time_limit(shown: &str) -> Option<u64> {
    before_nodes(shown, "TimeLimit").and_then(|limit| duration::parse(limit).ok())
}

/// All of the job. Newer versions tell what it was given beside what was asked for.
fn gpus(shown: &str) -> Option<u32> {
    let lists = ["AllocTRES", "TRES", "ReqTRES"];
    let mut listed = lists.iter().filter_map(|key| from_nodes(shown, key));
    let of_list = |list: &str| {
        list.split(',').find_map(|part| part.strip_prefix("gres/gpu=")?.parse::<u32>().ok())
    };
    listed.find_map(of_list).filter(|gpus| *gpus > 0)
}

/// The start of a range such as `2-4`: a job that runs has as many as it got, which comes first.
fn number(shown: &str, key: &str) -> Option<u32> {
    let value = from_nodes(shown, key)?;
    value.split('-').next()?.parse().ok().filter(|number| *number > 0)
}

/// The value of a key that stands before the nodes, behind the name, which can hold anything.
fn before_nodes<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    nemo_core::show_job::Fields::new(shown)?.get(key)
}

/// The same for one that stands behind them: what people write comes later.
fn from_nodes<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = shown.split_once(" NumNodes=")?;
    let first = rest.split_whitespace().next().filter(|_| key == "NumNodes");
    let value = first.or_else(|| {
        rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    });
    value.filter(|value| *value != "(null)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_job_has_is_told_as_a_file_would() {
        let shown = "JobId=7 JobName=a Partition=x UserId=u(1) GroupId=g(1) TimeLimit=1-00:10:00 Partition=main \
                     NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=8 NumTasks=2 CPUs/Task=4 ReqB:S:C:T=0:0:*:* \
                     TRES=cpu=8,mem=16G,node=2,billing=8,gres/gpu=4,gres/gpu:a100=4 Socks/Node=* MinCPUsNode=4 \
                     MinMemoryNode=8G MinTmpDiskNode=0 Comment=TRES=gres/gpu=9";
        let own = executor(shown);
        let expected = [
            ("nodes", json!(2)),
            ("partition", json!("main")),
            ("cpus_per_task", json!(4)),
            ("mem", json!("8G")),
            ("time", json!(87_000)),
            ("sbatch", json!({ "gpus": "4" })),
        ];
        for (key, value) in expected {
            assert_eq!(own[key], value, "{key}");
        }
    }

    #[test]
    fn newer_versions_tell_what_was_given_beside_what_was_asked_for() {
        let shown = "JobId=7 JobName=a UserId=u(1) TimeLimit=UNLIMITED NumNodes=1 NumCPUs=1 CPUs/Task=1 \
                     ReqTRES=cpu=1,gres/gpu=2 AllocTRES=cpu=1,gres/gpu=1 MinMemoryNode=0";
        let own = executor(shown);
        assert_eq!((&own["sbatch"], &own["time"]), (&json!({ "gpus": "1" }), &Value::Null));
        assert_eq!(own["mem"], Value::Null);
        assert_eq!(
            executor("slurm_load_jobs error: Invalid job id specified")["nodes"],
            Value::Null
        );
    }
}
