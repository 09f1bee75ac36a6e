//! What a job script becomes as an experiment's file.

use std::path::Path;

use super::*;
use crate::experiment::{self, Loaded};

/// The turned script, which must pass all checks.
#[track_caller]
fn of(script: &str) -> Turned {
    let script = JobScript::read(script.as_bytes()).unwrap();
    let own = turned(&script, "old.sbatch", "/x/my old.sbatch").unwrap();
    match experiment::load_in(false, &own.toml, Path::new("/x/exp.toml"), &[], None) {
        Ok(Loaded { .. }) => own,
        Err(problems) => panic!("{problems}\n{}", own.toml),
    }
}

#[test]
fn a_script_becomes_an_experiment() {
    let own = of(
        "#!/bin/bash\n#SBATCH -J my/train -p gpu --time=1-02:30:00\n#SBATCH --mem=4G -c 8 --gres=gpu:2 -A lab\n\
         #SBATCH --output=x.out --requeue --signal=B:USR1@300\nexport OMP_NUM_THREADS=8\nmodule load cuda\n\
         source venv/bin/activate\nsrun python train.py --data \"$HOME/{x}\"\necho done\n",
    );
    assert_eq!(
        own.toml,
        "# Made of `old.sbatch` by `nemo-slurm init --from`.\n\
         # line 4: `--output=x.out`: output is kept with the experiment, `nemo-slurm logs` shows it\n\
         # line 9: `echo done` is left out: the program is the last thing that a wrapped script runs\n\
         name = \"my-train\"\n\n[executor.cluster]\nkind = \"slurm\"\npartition = \"gpu\"\ntime = \"1-02:30:00\"\n\
         mem = \"4G\"\ncpus_per_task = 8\nsbatch = { gres = \"gpu:2\", account = \"lab\" }\nsetup = [\n    \"set +e\",\n    \
         \"module load cuda\",\n    \"source venv/bin/activate\",\n]\nenv.OMP_NUM_THREADS = \"8\"\n\n[task.train]\n\
         executor = \"cluster\"\nrun = 'python train.py --data \"$HOME/{{x}}\"'\ncheckpoint.lead = \"300s\"\n"
    );
}

#[test]
fn a_trial_stays_in_its_folder_and_adds_to_its_files() {
    let own = of("#!/bin/bash\ncd \"${SLURM_SUBMIT_DIR}/\"\npython train.py >log 2>err\n");
    assert!(own.toml.contains("\nrun = \"python train.py >>log 2>>err\"\n"), "{}", own.toml);
    let told: Vec<&str> = own.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(
        told.iter().any(|text| text.starts_with("`cd \"${SLURM_SUBMIT_DIR}/\"` is left out")),
        "{told:?}"
    );
    for (operator, target, expected) in [
        (">&", "log", Some("&>>")),
        ("&>", "log", Some("&>>")),
        ("1>|", "log", Some("1>>")),
        ("2>&", "1", None),
        (">>", "log", None),
        ("<", "in", None),
    ] {
        assert_eq!(appending(operator, target).as_deref(), expected, "{operator}{target}");
    }
    let loads = of("#!/bin/bash\ncd $SLURM_SUBMIT_DIR\nmodule load cuda\n./train\n");
    assert!(loads.toml.contains("\"module load cuda\""), "{}", loads.toml);
    let checked = of("#!/bin/bash\ncd \"$SLURM_SUBMIT_DIR\" || exit 1\n./train > /scratch/log\n");
    assert!(checked.toml.contains("\nrun = \"./train >>/scratch/log\"\n"), "{}", checked.toml);
    assert!(checked.toml.contains("which trials share"), "{}", checked.toml);
    let elsewhere = of("#!/bin/bash\ncd /data\n./prepare\ncd $SLURM_SUBMIT_DIR\n./train\n");
    assert!(elsewhere.toml.contains("\ncd $SLURM_SUBMIT_DIR\nexec ./train"), "{}", elsewhere.toml);
    assert!(elsewhere.toml.contains("leads every attempt"), "{}", elsewhere.toml);
    let other = of("#!/bin/sh\ncd $SLURM_SUBMIT_DIR/src\nexec python train.py\n");
    assert!(other.toml.contains("cd $SLURM_SUBMIT_DIR/src"), "{}", other.toml);
}

#[test]
fn an_array_becomes_a_parameter() {
    let own = of(
        "#!/bin/bash\n#SBATCH --array=1-3,7%2 -n 4 -N 2\nSEED=$((SLURM_ARRAY_TASK_ID * 2))\nmodule load x\nsrun ./prog ${SEED}\n",
    );
    assert!(
        own.toml.contains("params.array_task_id = [1, 2, 3, 7]\nsearch.concurrent = 2\n"),
        "{}",
        own.toml
    );
    assert!(own.toml.contains("nodes = 2\ntasks_per_node = 2\n"), "{}", own.toml);
    let run = "run = [\"/bin/bash\", \"-c\", '''\nexport SLURM_ARRAY_TASK_ID={array_task_id}\nSEED=$((SLURM_ARRAY_TASK_ID * 2))\nmodule load x\nexec ./prog ${{SEED}}''']\n";
    assert!(own.toml.contains(run), "{}", own.toml);
}

#[test]
fn what_can_not_be_turned_is_named_with_its_line() {
    let own = of(
        "#!/bin/bash\n#SBATCH --uid=3 --time=UNLIMITED\n#SBATCH -d afterok:12:13\n#PBS -N x\nsrun -n2 --mpi=none ./prog > log\n",
    );
    let lines: Vec<usize> = own.notes.iter().map(|note| note.line).collect();
    assert_eq!(lines, [2, 2, 4, 5, 5], "{:?}", own.notes);
    assert!(own.toml.contains("after = [{ slurm_job = 12 }, { slurm_job = 13 }]"), "{}", own.toml);
}

#[test]
fn as_many_processes_are_started_as_the_script_starts() {
    let check = |script: &str, keys: &str, run: &str, n_notes: usize| {
        let own = of(&format!("#!/bin/bash\n#SBATCH --time=1\n{script}\n"));
        let expected = format!("time = \"00:01:00\"\n{keys}\n[task.train]");
        assert!(own.toml.contains(&expected), "{script}: {}", own.toml);
        assert!(own.toml.contains(&format!("run = \"{run}\"")), "{script}: {}", own.toml);
        assert_eq!(own.notes.len(), n_notes, "{script}: {:?}", own.notes);
    };
    check("#SBATCH -N 2\nsrun --cpu-bind=none torchrun x", "nodes = 2\n", "torchrun x", 1);
    check(
        "#SBATCH -N 2\nsrun -l -c $SLURM_CPUS_PER_TASK -- ./x -n 3",
        "nodes = 2\n",
        "./x -n 3",
        1,
    );
    check("#SBATCH -N 2 -n 5\nsrun ./x", "nodes = 2\ntasks_per_node = 3\n", "./x", 1);
    check(
        "#SBATCH -n 8 --ntasks-per-node=4\nsrun ./x",
        "nodes = 2\ntasks_per_node = 4\n",
        "./x",
        0,
    );
    check("#SBATCH --ntasks-per-node=4\nsrun -n 2 ./x", "tasks_per_node = 2\n", "./x", 0);
    check("#SBATCH -n 4 -c 2\npython x", "cpus_per_task = 8\n", "python x", 1);
    check("mpirun -np 4 ./x", "", "mpirun -np 4 ./x", 0);
}

#[test]
fn processes_that_no_experiment_would_start_are_refused() {
    for (script, expected) in [
        ("#SBATCH --ntasks=4\nmpirun ./sim", "starts `mpirun` once for 4 tasks on 1 node,"),
        ("#SBATCH --nodes=2\npython x", "starts `python` once"),
        ("srun --multi-prog conf", "`srun --multi-prog` has no counterpart"),
        ("srun -n $N ./x", "`srun --ntasks=$N` has no counterpart"),
        ("srun -n1 ./a : -n2 ./b", "`srun` starts several programs"),
        ("#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n2\n./x", "is heterogeneous"),
    ] {
        let text = format!("#!/bin/bash\n{script}\n");
        let error = turned(&JobScript::read(text.as_bytes()).unwrap(), "x", "x").unwrap_err();
        assert!(error.message.contains(expected), "{script}: {error:?}");
    }
}

#[test]
fn the_signal_of_a_script_asks_the_program() {
    let own = of("#!/bin/bash\n#SBATCH --signal=B:USR2@90\npython x\n");
    let keys = "checkpoint.signal = \"USR2\"\ncheckpoint.lead = \"90s\"\n";
    assert!(own.toml.ends_with(keys), "{}", own.toml);
    let own = of("#!/bin/bash\n#SBATCH --signal=KILL\npython x\n");
    assert!(own.toml.contains("# line 2: `--signal=KILL`: KILL can't ask"), "{}", own.toml);
}

#[test]
fn a_script_that_goes_on_after_an_error_does_so_as_setup() {
    let setup = |interpreter: &str| of(&format!("#!{interpreter}\nsource ./rc.sh\npython x\n"));
    assert!(setup("/bin/bash -l").toml.contains("setup = [\n    \"set +e\",\n    \"source"));
    assert!(setup("/bin/bash -eu").toml.contains("setup = [\n    \"source"));
}

#[test]
fn what_only_bash_understands_is_run_by_it() {
    let own = of("#!/bin/bash -e\nDIRS=(a b)\n[[ -n $X ]] || X=3\npython x \"${DIRS[@]}\"\n");
    let run = "run = [\"/bin/bash\", \"-e\", \"-c\", '''\nDIRS=(a b)\n[[ -n $X ]] || X=3\nexec python x \"${DIRS[@]}\"''']\n";
    assert!(own.toml.contains(run), "{}", own.toml);
    for (script, is_in_bash) in [
        ("#!/bin/bash\npython x 2>&1\n", false),
        ("#!/usr/bin/env bash\npython x &>log\n", true),
        ("#!/bin/bash\npython x --n {1..3}\n", true),
        ("#!/bin/sh\nA=1\npython x $A\n", false),
    ] {
        let own = of(script);
        assert_eq!(own.toml.contains("\"-c\""), is_in_bash, "{}", own.toml);
    }
}

#[test]
fn a_script_for_another_program_runs_as_it_is() {
    let own = of("#!/usr/bin/perl -w\n#SBATCH -a 1-2\nopen(F, \">x\"); print F 1;\nclose F;\n");
    assert!(own.toml.contains("exec /usr/bin/perl -w '/x/my old.sbatch'\""), "{}", own.toml);
    assert_eq!(own.notes, Vec::new());
}

#[test]
fn a_trap_is_named() {
    let own = of("#!/bin/sh\ntrap 'rm -r tmp' EXIT\npython x\n");
    assert!(own.toml.contains("# line 2: `trap 'rm -r tmp' EXIT` does nothing"), "{}", own.toml);
}
