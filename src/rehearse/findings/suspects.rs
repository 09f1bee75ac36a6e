//! What a resumed run is likely to lack: by when it differs, by what its checkpoint seems to hold, and by what is right or wrong
//! in the checkpoints that it made afterwards. Pure.

use super::super::compare::RunComparison;
use super::super::compare_files::TreeDifference;
use super::super::inventory::CheckpointContents;
use super::exactness::Onset;

/// What speaks for or against a part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Evidence {
    /// The checkpoint holds an optimizer's state.
    has_optimizer: bool,
    /// It holds a random generator's state, or a place in the data.
    has_place: bool,
    /// Whether the random generators of a later checkpoint are those of the undisturbed run.
    is_random_right: Option<bool>,
    /// Whether the optimizer of a later checkpoint has counted as many steps.
    is_count_right: Option<bool>,
}

/// What points to the part that is missing, and what to do about it.
pub(super) fn find(own: &RunComparison, onset: Onset) -> (Vec<String>, String) {
    let evidence = Evidence::of(own);
    let names: Vec<&str> = own.held.iter().take(8).map(String::as_str).collect();
    let holds = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
    let held = format!("the checkpoint holds {holds}; {}", evidence.lacks());
    let told = [Some(held.as_str()), when(onset), evidence.random(), evidence.count()];
    (told.into_iter().flatten().map(str::to_owned).collect(), evidence.hint(onset))
}

fn when(onset: Onset) -> Option<&'static str> {
    match onset {
        Onset::First => Some(
            "if the metric is measured before the update, as a training loss is, that step already had another batch or other random numbers",
        ),
        Onset::Second => Some(
            "the first step after the resume agrees and the second does not: the same weights became others, by another update, or \
             by random numbers on which the metric does not depend",
        ),
        Onset::Late => Some(
            "some steps after the resume agree: what is missing acts late, such as the next epoch's shuffle, a learning-rate schedule, or an average",
        ),
        Onset::Unknown => None,
    }
}

const SAVE_OPTIMIZER: &str = "save and load the optimizer's state (`optimizer.state_dict()`)";
const LOAD_OPTIMIZER: &str = "the optimizer's state is saved and not loaded: load it after the optimizer is made, and make none \
                              anew after that";
const SAVE_RANDOM: &str = "save and load the random generators (`random.getstate()`, NumPy's, `torch.get_rng_state()`, those of \
                           the GPUs) and the place in the data (epoch, order, offset)";
const LOAD_RANDOM: &str = "the random generators are saved and not restored: set their states after everything that seeds or uses them";

impl Evidence {
    fn of(own: &RunComparison) -> Self {
        let CheckpointContents { optimizer, random, data } = CheckpointContents::new(&own.held);
        let resumed = own.resumes.first().map_or(0, |resume| resume.step);
        let later =
            own.checkpoints.iter().find(|(step, tree)| *step > resumed && names_parts(tree));
        let is_right = |is_meant: &dyn Fn(&str) -> bool| {
            let (_, tree) = later.filter(|_| own.held.iter().any(|name| is_meant(name)))?;
            Some(!tree.differences.iter().any(|own| is_meant(&own.part)))
        };
        Self {
            has_optimizer: optimizer,
            has_place: random || data,
            is_random_right: is_right(&is_random),
            is_count_right: is_right(&is_step_count),
        }
    }

    fn lacks(self) -> &'static str {
        match (self.has_optimizer, self.has_place) {
            (false, true) => "nothing in it looks like an optimizer's state (momentum, exp_avg, …)",
            (true, false) => {
                "nothing in it looks like a random generator or a place in the data (rng, order, sampler, …)"
            }
            (false, false) => {
                "nothing in it looks like an optimizer's state, a random generator or a place in the data"
            }
            (true, true) => "optimizer, and random numbers or data, seem to be in it",
        }
    }

    fn random(self) -> Option<&'static str> {
        Some(if self.is_random_right? {
            "in a checkpoint after the resume the random generators are as undisturbed"
        } else {
            "in a checkpoint after the resume the random generators are others than undisturbed"
        })
    }

    fn count(self) -> Option<&'static str> {
        Some(if self.is_count_right? {
            "in a checkpoint after the resume the optimizer has counted as many steps as undisturbed"
        } else {
            "in a checkpoint after the resume the optimizer has counted other steps than undisturbed"
        })
    }

    fn hint(self, onset: Onset) -> String {
        // What was seen in a checkpoint counts more than the time at which it shows.
        match (self.is_random_right, self.is_count_right, onset) {
            (Some(false), Some(false), _) => {
                return format!("most likely {LOAD_RANDOM}; and {LOAD_OPTIMIZER}");
            }
            (_, Some(false), _) => return format!("most likely {LOAD_OPTIMIZER}"),
            (Some(false), _, Onset::First | Onset::Second | Onset::Unknown) => {
                return format!("most likely {LOAD_RANDOM}");
            }
            (Some(false), _, Onset::Late) => {
                return format!(
                    "most likely {LOAD_RANDOM}. A shuffle shows it late: a shuffle that only the next epoch makes"
                );
            }
            _ => {}
        }
        match (self.has_optimizer, self.has_place, onset) {
            (true, false, Onset::Second) if self.is_count_right.is_none() => format!(
                "one of two: {LOAD_OPTIMIZER}; or, where the metric does not depend on the random numbers of its step (no dropout \
                 in it), those start from the beginning: {SAVE_RANDOM}"
            ),
            (true, false, _) => {
                format!("most likely the data or the random numbers start from the beginning: {SAVE_RANDOM}")
            }
            (true, true, Onset::Second) if self.is_count_right.is_none() => {
                format!("most likely {LOAD_OPTIMIZER}")
            }
            (false, true, Onset::First) if self.is_random_right.is_none() => format!(
                "one of two: {LOAD_RANDOM}; or, where the metric is measured after the update, the optimizer's state is lost: \
                 {SAVE_OPTIMIZER}"
            ),
            (false, true, Onset::First | Onset::Second | Onset::Unknown)
            | (false, false, Onset::Second) => {
                format!("most likely the optimizer's state is lost: {SAVE_OPTIMIZER}{}", self.or_random())
            }
            (true, true, _) | (false, true, Onset::Late) => {
                "look at what is loaded, and when: an optimizer or a learning-rate schedule that is made after the load, a seed \
                 that is set after the state was restored, data workers with generators of their own, a shuffle that only the \
                 next epoch makes"
                    .to_owned()
            }
            (false, false, _) => format!(
                "something besides the weights is not restored: {SAVE_RANDOM}; {SAVE_OPTIMIZER}. To tell them apart, rehearse once \
                 without momentum and once without shuffling, by `--set`"
            ),
        }
    }

    /// The second candidate, where nothing speaks against it.
    fn or_random(self) -> String {
        if self.has_place {
            return String::new();
        }
        format!("; or else the random numbers start from the beginning: {SAVE_RANDOM}")
    }
}

/// Whether a comparison tells parts of files apart: of bytes nobody knows what they are.
fn names_parts(tree: &TreeDifference) -> bool {
    tree.differences.iter().any(|own| !own.part.is_empty())
}

fn is_random(name: &str) -> bool {
    CheckpointContents::new(&[name.to_owned()].into()).random
}

/// As `optimizer.state.0.step`, which Adam and its like count.
fn is_step_count(name: &str) -> bool {
    let is_count = name.rsplit('.').next() == Some("step");
    is_count && CheckpointContents::new(&[name.to_owned()].into()).optimizer
}

#[cfg(test)]
mod tests {
    use super::super::super::align::ResumePosition;
    use super::super::super::compare_files::{FileDifference, How};
    use super::*;

    /// A run that resumed from step 10 with these names, and whose checkpoint of step 20 differs in those.
    fn run(held: &str, differing: &str) -> RunComparison {
        let differences = differing.split_whitespace().map(|part| FileDifference {
            path: "a.pt".to_owned(),
            part: part.to_owned(),
            how: How::Numbers { differing: 1, of: 1, largest: 1.0 },
            weights: true,
        });
        let tree = TreeDifference {
            differences: differences.collect(),
            compared: 1,
            ..Default::default()
        };
        RunComparison {
            held: held.split_whitespace().map(str::to_owned).collect(),
            resumes: vec![ResumePosition { step: 10, after: 10 }],
            checkpoints: vec![(20, tree)],
            ..RunComparison::default()
        }
    }

    const ADAM: &str = "model.0 optimizer.state.0.step optimizer.state.0.exp_avg";

    #[track_caller]
    fn check(own: &RunComparison, onset: Onset, expected: &[&str], never: &str) {
        let (evidence, hint) = find(own, onset);
        let told = expected.iter().all(|part| hint.contains(part));
        let places: Vec<_> = expected.iter().map(|part| hint.find(part)).collect();
        assert!(told && places.is_sorted(), "{hint}\n{evidence:#?}");
        assert!(never.is_empty() || !hint.contains(never), "{hint}\n{evidence:#?}");
    }

    #[test]
    fn lost_random_numbers_are_told_from_a_lost_optimizer() {
        let [all, lost] = [format!("{ADAM} rng"), "model.0 optimizer.state.0.exp_avg".to_owned()];
        // A metric without dropout agrees at the first step, whatever the random numbers are.
        let random = run(&all, &format!("{lost} rng"));
        check(
            &random,
            Onset::Second,
            &["random generators are saved and not restored"],
            "optimizer",
        );
        check(
            &random,
            Onset::First,
            &["random generators are saved and not restored"],
            "optimizer",
        );
        let unsaved = run(ADAM, &lost);
        check(&unsaved, Onset::Second, &["random numbers start from the beginning"], "optimizer's");
        let optimizer = run(&all, &format!("{lost} optimizer.state.0.step"));
        check(&optimizer, Onset::Second, &["optimizer's state is saved and not loaded"], "random");
        let both = run(&all, &format!("{lost} optimizer.state.0.step rng"));
        check(&both, Onset::First, &["random generators are saved", "and the optimizer's"], "");
    }

    #[test]
    fn where_no_checkpoint_tells_them_apart_both_are_named_in_order() {
        let momentum = run("model momentum", "model momentum");
        check(
            &momentum,
            Onset::Second,
            &["one of two: the optimizer's", "random numbers"],
            "most likely",
        );
        let neither = run("model", "model");
        check(&neither, Onset::Second, &["optimizer's state is lost", "or else the random"], "");
        let data = run("model order", "model");
        check(&data, Onset::First, &["one of two: the random", "optimizer's"], "most likely");
        let restored = run("model rng", "model");
        check(&restored, Onset::First, &["most likely the optimizer's state is lost"], "random");
        // Of bytes without names nothing is known.
        let unnamed = run("model momentum rng", "");
        check(&unnamed, Onset::Second, &["most likely the optimizer's state is saved"], "");
    }
}
