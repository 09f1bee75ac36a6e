//! Which GPUs a rank sees, and whether the ranks of a node share any that were to be their own.

use std::collections::BTreeMap;
use std::fs::{self, File};

/// The GPUs that a process sees: what the list of its environment says, as devices of the node. In a container of devices
/// the list counts anew from 0, so that it is looked up among those that this process may open.
pub(crate) fn seen(listed: Option<&str>) -> Vec<String> {
    physical(listed, &may_open())
}

/// The numbers of the devices that this process may open.
fn may_open() -> Vec<u32> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("nvidia")?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(_, path)| File::open(path).is_ok())
        .map(|(number, _)| number)
        .collect();
    numbers.sort_unstable();
    numbers
}

fn physical(listed: Option<&str>, open: &[u32]) -> Vec<String> {
    let Some(listed) = listed else { return open.iter().map(u32::to_string).collect() };
    let names = listed.split(',').map(str::trim);
    let names = names
        .take_while(|name| !name.is_empty() && !name.starts_with('-') && *name != "NoDevFiles");
    let device = |name: &str| {
        let at: Option<usize> = name.parse().ok();
        at.and_then(|at| open.get(at)).map_or_else(|| name.to_owned(), u32::to_string)
    };
    names.map(device).collect()
}

/// What is wrong with the GPUs of ranks that were to have some of their own, given as node and devices by rank.
pub(crate) fn complaint(ranks: &BTreeMap<u32, (String, Vec<String>)>) -> Option<String> {
    if let Some((rank, (node, _))) = ranks.iter().find(|(_, (_, devices))| devices.is_empty()) {
        return Some(format!("rank {rank} on {node} sees no GPU, though `gpus-per-task` is set"));
    }
    let mut owners: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (rank, (node, devices)) in ranks {
        for device in devices {
            if let Some(other) = owners.insert((node, device), *rank).filter(|other| other != rank)
            {
                return Some(format!(
                    "ranks {other} and {rank} on {node} both see GPU {device}, though `gpus-per-task` is set; \
                     does `env` or `setup` set CUDA_VISIBLE_DEVICES, or is `gpu-bind` needed?"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_means_devices_of_the_node() {
        let check = |listed, open: &[u32], expected: &[&str]| {
            assert_eq!(physical(listed, open), expected, "{listed:?} {open:?}");
        };
        check(Some("0,1"), &[2, 3], &["2", "3"]);
        check(Some("2"), &[0, 1, 2, 3], &["2"]);
        check(Some("2"), &[], &["2"]);
        check(Some("GPU-1f, GPU-2f"), &[0], &["GPU-1f", "GPU-2f"]);
        check(None, &[0, 1], &["0", "1"]);
        check(Some("-1,2"), &[0], &[]);
        check(Some("NoDevFiles"), &[], &[]);
    }

    #[test]
    fn ranks_of_one_node_must_not_share() {
        let check = |ranks: &[(&str, &str)], expected: Option<&str>| {
            let rank = |(at, (node, devices)): (usize, &(&str, &str))| {
                (at.try_into().unwrap(), ((*node).to_owned(), physical(Some(devices), &[])))
            };
            let said = complaint(&ranks.iter().enumerate().map(rank).collect());
            assert_eq!(said.is_some(), expected.is_some(), "{ranks:?}: {said:?}");
            assert!(expected.is_none_or(|part| said.unwrap().contains(part)), "{ranks:?}");
        };
        check(&[("n1", "0"), ("n1", "1"), ("n2", "0")], None);
        check(&[("n1", "0,1"), ("n1", "1,2")], Some("ranks 0 and 1 on n1 both see GPU 1"));
        check(&[("n1", "0"), ("n2", "")], Some("rank 1 on n2 sees no GPU"));
    }
}
