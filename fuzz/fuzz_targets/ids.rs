//! Ids, index lists, host lists, resources and durations: what can be read is printed so that it reads the same.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use nemo_slurm::slurm::parse::nodes::HostList;
use nemo_slurm::slurm::parse::time::Limit;
use nemo_slurm::slurm::parse::tres::Tres;
use nemo_slurm::slurm::{IndexSet, ShownId};

fn round_trip<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let printed = value.to_string();
    let Ok(again) = printed.parse::<T>() else { panic!("{printed:?} is not read back") };
    assert!(value == again, "{text:?} is printed as {printed:?}");
    Some(value)
}

fuzz_target!(|text: &str| {
    let _id: Option<ShownId> = round_trip(text);
    if let Some(set) = round_trip::<IndexSet>(text) {
        assert_eq!(set.count(), set.iter().count());
    }
    if let Some(hosts) = round_trip::<HostList>(text)
        && hosts.count() < 10_000
    {
        assert_eq!(hosts.count(), hosts.names().len());
    }
    let _limit: Option<Limit> = round_trip(text);
    if let Some(tres) = round_trip::<Tres>(text) {
        let _gpus = tres.gpus();
    }
});
