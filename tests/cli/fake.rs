//! A scripted Slurm for faults that a real one can't produce on demand: a state in a folder, programs on PATH.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nemo_slurm::slurm::parse::queue;

use crate::support::World;

/// Tasks that wait for each other, which become five arrays where an array has at most two trials.
pub(crate) const CHAIN: &str = r#"
name = "chain"
[executor.gpu]
kind = "slurm"
[task.prepare]
run = "true"
[task.train]
after = ["prepare"]
run = "true {x}"
[task.train.params]
x = { int = [1, 5] }
[task.evaluate]
after = ["train"]
run = "true"
"#;

/// The names of its arrays in the order of their submission.
pub(crate) const CHAIN_ARRAYS: [&str; 5] =
    ["prepare.0", "train.0", "train.1", "train.2", "evaluate.0"];

/// A world whose `sbatch` and friends are scripts. `jobs` holds a line for each array that was taken.
pub(crate) struct FakeSlurm {
    pub(crate) world: World,
}

/// One array that the fake took.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

const SBATCH: &str = r#"#!/bin/sh
cd "$FAKE" || exit 9
for script; do :; done
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
echo "$name" >>asked
if grep -qx "$name" refuse 2>/dev/null; then
  echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1
fi
if grep -qx "${name#*.}" no_room 2>/dev/null; then
  echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2
  echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)' >&2; exit 1
fi
if [ -e slow ]; then sleep 0.2; fi
if [ -e stop_after ] && [ "$(wc -l <jobs 2>/dev/null || echo 0)" -ge "$(cat stop_after)" ]; then
  echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2; exit 1
fi
printf '%s\t%s\n' "$name" "$*" >>jobs
echo $(( 100 + $(wc -l <jobs) ))
"#;

const SCONTROL: &str = r#"#!/bin/sh
cd "$FAKE" || exit 9
echo "$*" >>arguments
case "$*" in
  *config*) cat config ;;
  *partition*) cat partitions ;;
  *"show node"*) cat nodes ;;
  *"show job"*) cat job ;;
  requeue*) shift; echo "$@" >>requeued ;;
  update*) shift; echo "$@" >>updated ;;
  release*) shift; wc -l <jobs >>released_at; echo "$@" >>released ;;
esac
"#;

/// Where jobs are forgotten, its rows are not of the job that is looked for by its name alone.
const SACCT: &str = r#"#!/bin/sh
cd "$FAKE" || exit 9
case "$*" in *--jobs=*) ;; *) [ ! -e forgets ] || exit 0 ;; esac
[ ! -e sacct.rows ] || cat sacct.rows
"#;

/// Compares `--name` with the whole name of a job, as `scancel` does: it knows no lists.
const SCANCEL: &str = r#"#!/bin/sh
cd "$FAKE" || exit 9
name= own=
for word; do case $word in --name=*) name=${word#--name=} ;; esac; done
for word; do
  case $word in -*) continue ;; esac
  its=$(sed -n "$(( ${word%%_*} - 100 ))s/\t.*//p" jobs)
  if [ -z "$name" ] || [ "$name" = "$its" ]; then own="$own $word"; fi
done
[ -z "$own" ] || echo $own >>cancelled
"#;

impl FakeSlurm {
    /// A fake with this MaxArraySize.
    pub(crate) fn new(max_array: u32) -> Self {
        let mut world = World::new();
        world.slurm_conf = None;
        let bin = world.path("bin");
        std::fs::create_dir(&bin).unwrap();
        let squeue = squeue();
        let programs = [
            ("sbatch", SBATCH),
            ("scontrol", SCONTROL),
            ("scancel", SCANCEL),
            ("squeue", squeue.as_str()),
            ("sacct", SACCT),
        ];
        let state = world.path("state");
        std::fs::create_dir(&state).unwrap();
        for (name, text) in programs {
            let head =
                format!("#!/bin/sh\nFAKE={}\necho {name} >>\"$FAKE/calls\"\n", state.display());
            let text = text.replacen("#!/bin/sh\n", &head, 1);
            let path = bin.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let config = format!(
            "MaxArraySize            = {max_array}\nSLURM_VERSION           = 22.05.8\nKillWait                = 30 sec\n"
        );
        std::fs::write(state.join("config"), config).unwrap();
        let partitions = "PartitionName=main Default=YES GraceTime=0 MaxTime=UNLIMITED Nodes=n[1-4] PreemptMode=OFF State=UP\n";
        std::fs::write(state.join("partitions"), partitions).unwrap();
        world.path = format!("{}:{}", bin.display(), world.path);
        Self { world }
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.world.path("state").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.state(name)).unwrap_or_default()
    }

    /// From now on `squeue` or `sacct` answers with these rows, or as by itself. A row of `squeue` with four fields is of a
    /// job that was never put back into the queue.
    pub(crate) fn answer(&self, program: &str, rows: Option<&[&[&str]]>) {
        let path = self.state(&format!("{program}.rows"));
        let Some(rows) = rows else { return std::fs::remove_file(path).unwrap() };
        let delimiter = char::from(queue::DELIMITER).to_string();
        let field = |field: &&str| format!("{field}{delimiter}");
        let line = |row: &&[&str]| match **row {
            [id, state, submit, reason] => {
                [id, state, submit, "0", reason].iter().map(field).collect()
            }
            ref row => row.iter().map(field).collect::<String>(),
        };
        let line = |row: &&[&str]| line(row) + "\n";
        let text: String = rows.iter().map(line).collect();
        std::fs::write(path, text).unwrap();
    }

    /// How often one of the programs was run.
    pub(crate) fn calls(&self, program: &str) -> usize {
        self.read("calls").lines().filter(|called| *called == program).count()
    }

    /// The arrays that were taken, in order.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        let line = |line: &str| {
            let (name, arguments) = line.split_once('\t').unwrap();
            Taken { name: name.to_owned(), arguments: arguments.to_owned() }
        };
        self.read("jobs").lines().map(line).collect()
    }

    /// Their names without the experiment's id.
    pub(crate) fn names(&self) -> Vec<String> {
        let plain = |taken: &Taken| taken.name.split_once('.').unwrap().1.to_owned();
        self.taken().iter().map(plain).collect()
    }
}

/// Answers `--name=…` and `--jobs=…`; every array is pending, but for as many of the first as `forgets` says.
fn squeue() -> String {
    let delimiter = char::from(queue::DELIMITER);
    let fields = ["id \"_[0]\"", "\"PENDING\"", "100", "0", "\"Dependency\""];
    assert_eq!(fields.len(), queue::FIELDS.len());
    let row: String = fields.map(|field| format!("printf \"%s{delimiter}\", {field}; ")).concat();
    let program = format!(
        r#"BEGIN {{ FS = "\t" }} {{ id = 100 + NR }} NR > forgets && (name == "" || index("," name ",", "," $1 ",")) {{ {row} printf "\n" }}"#
    );
    format!(
        "#!/bin/sh\ncd \"$FAKE\" || exit 9\nname=\nfor a; do case $a in --name=*) name=${{a#--name=}} ;; esac; done\ntouch jobs\nif [ -e squeue.rows ]; then exec cat squeue.rows; fi\nawk -v forgets=\"$(cat forgets 2>/dev/null || echo 0)\" -v name=\"$name\" '{program}' jobs\n"
    )
}
