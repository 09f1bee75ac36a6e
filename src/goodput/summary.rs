//! From trials to tasks to the whole, weighted by what each trial holds, and the same as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::spans::seconds;
use super::{Ledger, Losses, Micros, TimeParts, Unit};

/// One trial as it is summed up.
#[derive(Clone, Debug)]
pub struct TrialLedger {
    /// Its index.
    pub index: u32,
    /// Its ledger.
    pub ledger: Ledger,
}

/// What an hour of a unit costs.
pub type Price = Option<f64>;

/// A whole experiment, or the part of it that a target names.
#[derive(Clone, Debug)]
pub struct Goodput {
    /// Its id.
    pub id: String,
    /// In what losses are counted.
    pub unit: Unit,
    /// What an hour of it costs.
    pub price: Price,
    /// The whole.
    pub total: Account,
    /// Its tasks.
    pub tasks: Vec<TaskGoodput>,
}

/// One task.
#[derive(Clone, Debug)]
pub struct TaskGoodput {
    /// Its name.
    pub name: String,
    /// How many units a trial holds.
    pub units: u32,
    /// The task's sums.
    pub account: Account,
    /// Its trials.
    pub trials: Vec<TrialGoodput>,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct TrialGoodput {
    /// Its index.
    pub index: u32,
    /// Its sums.
    pub account: Account,
}

/// Sums over trials.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Wall time of all trials together.
    pub parts: TimeParts,
    /// Productive time that is not saved yet.
    pub at_risk: Micros,
    /// Productive time before the first checkpoint of programs that told nothing until then: their start is in it.
    pub unknown_start: Micros,
    /// Productive time over the time in which it was to run, weighted by units; none where there was no such time.
    pub ettr: Option<f64>,
    /// Unit-hours that were held.
    pub held: f64,
    /// Unit-hours of those that did not count.
    pub lost: f64,
    /// What those were lost to, the largest first.
    pub losses: Vec<LossSum>,
}

/// What one reason cost.
#[derive(Clone, Copy, Debug)]
pub struct LossSum {
    /// The reason.
    pub reason: super::LossReason,
    /// How often, for how long.
    pub loss: super::Loss,
    /// Unit-hours.
    pub hours: f64,
}

/// Sums up. Each task comes with its name, how many units each of its trials holds, and its trials.
#[must_use]
pub fn goodput(
    id: String,
    unit: Unit,
    price: Price,
    tasks: Vec<(String, u32, Vec<TrialLedger>)>,
) -> Goodput {
    let mut total = TimeTotals::default();
    let mut shown = Vec::new();
    for (name, units, trials) in tasks {
        let mut sum = TimeTotals::default();
        for trial in &trials {
            sum.add(&trial.ledger, units);
            total.add(&trial.ledger, units);
        }
        let trials = trials.into_iter().map(|trial| {
            let mut sum = TimeTotals::default();
            sum.add(&trial.ledger, units);
            TrialGoodput { index: trial.index, account: sum.account() }
        });
        let trials = trials.collect();
        shown.push(TaskGoodput { name, units, account: sum.account(), trials });
    }
    Goodput { id, unit, price, total: total.account(), tasks: shown }
}

#[derive(Default)]
struct TimeTotals {
    parts: TimeParts,
    at_risk: Micros,
    unknown_start: Micros,
    losses: Losses,
    /// These are times units.
    held: Micros,
    lost: Micros,
    productive: Micros,
    available: Micros,
    by_reason: BTreeMap<super::LossReason, Micros>,
}

impl TimeTotals {
    fn add(&mut self, ledger: &Ledger, units: u32) {
        let weighted = |time: Micros| time * Micros::from(units);
        self.parts += ledger.parts;
        self.at_risk += ledger.at_risk;
        self.unknown_start += ledger.unknown_start;
        self.held += weighted(ledger.parts.held());
        self.lost += weighted(ledger.parts.lost());
        self.productive += weighted(ledger.parts.productive);
        self.available += weighted(ledger.parts.available());
        for (reason, loss) in &ledger.losses {
            let sum = self.losses.entry(*reason).or_default();
            sum.times = sum.times.saturating_add(loss.times);
            sum.held += loss.held;
            sum.queued += loss.queued;
            *self.by_reason.entry(*reason).or_default() += weighted(loss.held);
        }
    }

    fn account(self) -> Account {
        let ettr = (self.available > 0).then(|| seconds(self.productive) / seconds(self.available));
        let losses = self.losses.iter().map(|(&reason, &loss)| {
            let hours = self.by_reason.get(&reason).copied().map_or(0.0, hours);
            LossSum { reason, loss, hours }
        });
        let mut losses: Vec<LossSum> = losses.collect();
        losses.sort_by(|a, b| {
            (b.loss.held, b.loss.queued)
                .cmp(&(a.loss.held, a.loss.queued))
                .then(a.reason.cmp(&b.reason))
        });
        losses.sort_by(|a, b| b.hours.total_cmp(&a.hours));
        Account {
            parts: self.parts,
            at_risk: self.at_risk,
            unknown_start: self.unknown_start,
            ettr,
            held: hours(self.held),
            lost: hours(self.lost),
            losses,
        }
    }
}

fn hours(micros: Micros) -> f64 {
    seconds(micros) / 3600.0
}

/// As `goodput --json` prints it.
#[must_use]
pub fn json(goodput: &Goodput) -> Value {
    json!({
        "schema": 1,
        "experiment": goodput.id,
        "unit": goodput.unit,
        "price": goodput.price,
        "total": account(&goodput.total, goodput.price),
        "tasks": goodput.tasks.iter().map(|task| task_json(task, goodput.price)).collect::<Vec<_>>(),
    })
}

fn task_json(task: &TaskGoodput, price: Price) -> Value {
    let mut object = account(&task.account, price);
    object.insert("name".to_owned(), task.name.clone().into());
    object.insert("units_per_trial".to_owned(), task.units.into());
    object.insert(
        "trials".to_owned(),
        task.trials.iter().map(|trial| trial_json(trial, price)).collect(),
    );
    Value::Object(object)
}

fn trial_json(trial: &TrialGoodput, price: Price) -> Value {
    let mut object = account(&trial.account, price);
    object.insert("index".to_owned(), trial.index.into());
    Value::Object(object)
}

fn account(account: &Account, price: Price) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("ettr", account.ettr.into());
    put("seconds", parts(&account.parts));
    put("at_risk_seconds", seconds(account.at_risk).into());
    put("unknown_start_seconds", seconds(account.unknown_start).into());
    put("held_hours", account.held.into());
    put("lost_hours", account.lost.into());
    put("lost_cost", price.map(|price| price * account.lost).into());
    put("losses", account.losses.iter().map(|lost| loss_json(lost, price)).collect());
    object
}

fn loss_json(lost: &LossSum, price: Price) -> Value {
    json!({
        "reason": lost.reason,
        "times": lost.loss.times,
        "seconds": seconds(lost.loss.held),
        "queued_seconds": seconds(lost.loss.queued),
        "hours": lost.hours,
        "cost": price.map(|price| price * lost.hours),
    })
}

fn parts(parts: &TimeParts) -> Value {
    json!({
        "whole": seconds(parts.whole()),
        "waiting": seconds(parts.waiting),
        "queued": seconds(parts.queued),
        "starting": seconds(parts.starting),
        "productive": seconds(parts.productive),
        "saving": seconds(parts.saving),
        "repeated": seconds(parts.repeated),
        "restarting": seconds(parts.restarting),
        "hung": seconds(parts.hung),
    })
}
