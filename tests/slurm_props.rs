//! Properties of the parsers: what is printed is read back, and nothing makes them panic or lose a line.
#![expect(clippy::unwrap_used, reason = "the helpers of tests")]

use nemo_slurm::slurm::parse::nodes::HostList;
use nemo_slurm::slurm::parse::time::Limit;
use nemo_slurm::slurm::parse::tres::Tres;
use nemo_slurm::slurm::parse::{account, config, job, partition, queue, submit};
use nemo_slurm::slurm::state::state_and_user;
use nemo_slurm::slurm::{IndexRange, IndexSet, JobId, JobState, ShownId, Step, TaskSet, Tasks};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn index_set() -> impl Strategy<Value = IndexSet> {
    let range = (0_u32..2000, 0_u32..300, 1_u32..20)
        .prop_map(|(first, length, step)| IndexRange::new(first, first + length, step).unwrap());
    vec(range, 1..6).prop_map(IndexSet::from)
}

fn tasks() -> impl Strategy<Value = Tasks> {
    let set = (index_set(), proptest::option::of(any::<u32>()), any::<bool>());
    let set = set.prop_map(|(indices, limit, cut_short)| TaskSet { indices, limit, cut_short });
    prop_oneof![
        Just(Tasks::NotAnArray),
        (0_u32..4_000_000).prop_map(Tasks::One),
        any::<u32>().prop_map(Tasks::Component),
        set.prop_map(|set| Tasks::Set(Box::new(set))),
    ]
}

fn step() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![
        Just(None),
        Just(Some(Step::Batch)),
        Just(Some(Step::Extern)),
        any::<u32>().prop_map(|number| Some(Step::Number(number))),
        Just(Some(Step::Other("TBD".into()))),
    ]
}

/// Rows as the client asks for them, with one byte changed, or a piece cut out or doubled.
fn damaged(files: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let file = proptest::sample::select(files).prop_map(|name| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/slurm-22.05/");
        std::fs::read(format!("{folder}{name}.out")).unwrap()
    });
    (file, any::<prop::sample::Index>(), 0_usize..80, any::<u8>(), 0..3).prop_map(
        |(mut bytes, at, length, byte, kind)| {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                _ => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            }
            bytes
        },
    )
}

/// The lines that are not empty, the last one counted although it may be torn.
fn lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
}

/// How many lines more than one a row has whose last field is this text.
fn lines_inside(last_field: &str) -> usize {
    lines(format!("first{last_field}last").as_bytes()) - 1
}

proptest! {
    #[test]
    fn an_index_set_counts_what_it_iterates(set in index_set()) {
        let all: Vec<u32> = set.iter().collect();
        prop_assert_eq!(set.count(), all.len());
        prop_assert!(all.is_sorted_by(|a, b| a < b));
        for index in 0..2400 {
            prop_assert_eq!(set.contains(index), all.binary_search(&index).is_ok());
        }
        prop_assert_eq!(set.to_string().parse::<IndexSet>().unwrap(), set);
    }

    #[test]
    fn an_index_set_is_made_from_indices(indices in btree_set(0_u32..400, 0..80)) {
        let set: IndexSet = indices.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), indices.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_id_is_read_as_printed(job in any::<u32>(), tasks in tasks(), step in step()) {
        let id = ShownId { job: JobId(job), tasks, step };
        prop_assert_eq!(id.to_string().parse::<ShownId>().unwrap(), id);
    }

    #[test]
    fn a_duration_is_read_as_printed(seconds in 0_u64..10_000_000_000) {
        let limit = Limit::Seconds(seconds);
        prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
    }

    #[test]
    fn whatever_can_be_read_is_printed_so_that_it_reads_the_same(
        text in "[0-9a-z\\[\\],.:%_+=/KMG-]{0,30}",
    ) {
        if let Ok(hosts) = text.parse::<HostList>() {
            prop_assert_eq!(hosts.to_string().parse::<HostList>().unwrap(), hosts.clone());
            prop_assert_eq!(hosts.count(), hosts.names().len());
        }
        if let Ok(tres) = text.parse::<Tres>() {
            prop_assert_eq!(tres.to_string().parse::<Tres>().unwrap(), tres);
        }
        if let Ok(id) = text.parse::<ShownId>() {
            prop_assert_eq!(id.to_string().parse::<ShownId>().unwrap(), id);
        }
        if let Ok(set) = text.parse::<IndexSet>() {
            prop_assert_eq!(set.count(), set.iter().count());
        }
    }

    #[test]
    fn a_state_keeps_its_spelling(word in "[A-Z][A-Z_]{0,20}", uid in any::<u32>()) {
        let (state, by) = state_and_user(format!("{word} by {uid}").as_bytes());
        prop_assert_eq!((state.to_string(), by), (word.clone(), Some(uid)));
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<JobState>(&json).unwrap(), state);
    }

    #[test]
    fn no_bytes_make_a_parser_panic_or_lose_a_line(bytes in vec(prop_oneof![any::<u8>(), Just(0x1f), Just(b'\n'), b'0'..=b'9'], 0..400)) {
        // Even such bytes can be a row (`0␟A␟0␟␟`).
        let queue = queue::parse(&bytes);
        let inside: usize = queue.rows.iter().map(|row| lines_inside(&row.reason)).sum();
        prop_assert_eq!(queue.rows.len() + queue.unread.len() + inside, lines(&bytes));
        let account = account::parse(&bytes);
        let inside: usize = account.rows.iter().map(|row| lines_inside(&row.nodes)).sum();
        prop_assert_eq!(account.rows.len() + account.unread.len() + inside, lines(&bytes));
        let _any = (job::parse(&bytes), partition::parse(&bytes), config::parse(&bytes), submit::parse(&bytes));
    }

    #[test]
    fn damage_costs_no_more_than_the_rows_it_touches(bytes in damaged(&["queue-early", "queue-preempting", "queue-late"])) {
        let parsed = queue::parse(&bytes);
        // Only the last field may hold line breaks, so lines and answers can differ by the damaged row's only.
        let answers = parsed.rows.len() + parsed.unread.len();
        prop_assert!(answers <= lines(&bytes) && answers + 1 >= lines(&bytes), "{:?}", parsed);
        prop_assert!(parsed.unread.len() <= 3, "{:?}", parsed.unread);
    }

    #[test]
    fn damaged_accounts_too(bytes in damaged(&["account-early", "account-late"])) {
        let parsed = account::parse(&bytes);
        let answers = parsed.rows.len() + parsed.unread.len();
        prop_assert!(answers <= lines(&bytes) && answers + 1 >= lines(&bytes), "{:?}", parsed);
        prop_assert!(parsed.unread.len() <= 3, "{:?}", parsed.unread);
    }

    #[test]
    fn damaged_control_output_never_panics(bytes in damaged(&["config", "partitions", "show-array", "show-named"])) {
        let _any = (job::parse(&bytes), partition::parse(&bytes), config::parse(&bytes));
    }
}
