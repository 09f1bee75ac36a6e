//! An axis: which value is where, and which values are named along it.

/// More than this is never named on an axis.
const MOST_TICKS: f64 = 24.0;

/// How an axis divides.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleKind {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart.
    Logarithmic,
    /// The values are 0, 1, 2 and so on: the places of these names.
    Names(Vec<String>),
}

impl ScaleKind {
    /// Logarithmic where values grow by factors rather than by differences, as learning rates do.
    #[must_use]
    pub fn fitting(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else { return Self::Linear };
        if *low <= 0.0 || *high < low * 10.0 {
            return Self::Linear;
        }
        let ratios = unevenness(sorted.windows(2).map(|two| (two[1] / two[0]).ln()));
        let differences = unevenness(sorted.windows(2).map(|two| two[1] - two[0]));
        if ratios < differences { Self::Logarithmic } else { Self::Linear }
    }
}

/// How many times larger the largest distance is than the smallest.
fn unevenness(distances: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = distances.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), distance| {
        (low.min(distance), high.max(distance))
    });
    high / low
}

/// An axis from its lowest to its highest value.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    kind: ScaleKind,
    low: f64,
    high: f64,
}

/// A named place on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// From 0 to 1.
    pub place: f64,
    /// Its name.
    pub label: String,
}

impl Scale {
    /// An axis for some values. Without any, or with one only, there is room on both sides.
    #[must_use]
    pub fn over(kind: ScaleKind, values: impl Iterator<Item = f64>) -> Self {
        let is_log = kind == ScaleKind::Logarithmic;
        let values = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = match &kind {
            ScaleKind::Names(names) => (-0.5, count(names.len()) - 0.5),
            ScaleKind::Logarithmic if low > high => (0.1, 10.0),
            ScaleKind::Logarithmic if high <= low => (low / 2.0, high * 2.0),
            ScaleKind::Linear if low > high => (0.0, 1.0),
            ScaleKind::Linear if high <= low => {
                let room = if low.abs() > 0.0 { low.abs() / 2.0 } else { 1.0 };
                (low - room, high + room)
            }
            ScaleKind::Linear | ScaleKind::Logarithmic => (low, high),
        };
        Self { kind, low, high }
    }

    /// The same with room at both ends, so that points there are seen whole.
    #[must_use]
    pub fn with_room(self) -> Self {
        const ROOM: f64 = 0.04;
        let (low, high) = match self.kind {
            ScaleKind::Names(_) => (self.low, self.high),
            ScaleKind::Linear => {
                let room = self.high * ROOM - self.low * ROOM;
                (self.low - room, self.high + room)
            }
            ScaleKind::Logarithmic => {
                let factor = (self.high / self.low).powf(ROOM);
                (self.low / factor, self.high * factor)
            }
        };
        if low.is_finite() && high.is_finite() && high > low {
            Self { low, high, ..self }
        } else {
            self
        }
    }

    /// Where a value is, from 0 to 1; nothing where it can't be.
    #[must_use]
    pub fn place(&self, value: f64) -> Option<f64> {
        let (value, low, high) = match self.kind {
            ScaleKind::Logarithmic => (value.ln(), self.low.ln(), self.high.ln()),
            // Halves do not overflow.
            ScaleKind::Linear | ScaleKind::Names(_) => {
                (value / 2.0, self.low / 2.0, self.high / 2.0)
            }
        };
        let place = (value - low) / (high - low);
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }

    /// About `wanted` round values.
    #[must_use]
    pub fn ticks(&self, wanted: usize) -> Vec<Tick> {
        let wanted = count(wanted).clamp(1.0, MOST_TICKS);
        let values = match &self.kind {
            ScaleKind::Names(names) => return self.names(names),
            ScaleKind::Logarithmic if self.high > self.low * 5.0 => self.powers(wanted),
            ScaleKind::Linear | ScaleKind::Logarithmic => self.round_values(wanted),
        };
        self.named(&values)
    }

    /// The same for values that are chosen.
    #[must_use]
    pub fn named(&self, values: &[f64]) -> Vec<Tick> {
        let step = values.windows(2).map(|two| two[1] - two[0]).fold(f64::INFINITY, f64::min);
        let short = |value: f64| match self.kind {
            ScaleKind::Linear if step.is_finite() => label(value, step),
            _ => label(value, value.abs()),
        };
        let labels: Vec<String> = values.iter().map(|value| short(*value)).collect();
        let is_alone = |own: &str| labels.iter().filter(|label| *label == own).count() == 1;
        let tick = |(value, label): (&f64, &String)| {
            let label = if is_alone(label) { label.clone() } else { exact(*value) };
            Some(Tick { place: self.place(*value)?, label })
        };
        values.iter().zip(&labels).filter_map(tick).collect()
    }

    fn names(&self, names: &[String]) -> Vec<Tick> {
        let places = (0..names.len()).filter_map(|place| self.place(count(place)));
        places.zip(names).map(|(place, name)| Tick { place, label: name.clone() }).collect()
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn round_values(&self, wanted: f64) -> Vec<f64> {
        let raw = self.high / wanted - self.low / wanted;
        let power = 10f64.powf(raw.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0];
        let step = factors.iter().map(|factor| factor * power).find(|step| *step >= raw * 0.999);
        let step = step.unwrap_or(raw);
        if !step.is_normal() {
            return vec![self.low, self.high];
        }
        let first = (self.low / step - 1e-9).ceil();
        let numbers = (0..100).map(|n| (first + count(n)) * step);
        numbers.take_while(|value| *value <= self.high + step * 1e-9).collect()
    }

    /// Powers of ten, with their double and fivefold where there are few.
    fn powers(&self, wanted: f64) -> Vec<f64> {
        let (low, high) = (self.low.log10(), self.high.log10());
        let factors: &[f64] = if high - low < wanted / 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let stride = ((high - low) / wanted).ceil().max(1.0);
        let (mut power, mut found) = ((low / stride).floor() * stride, Vec::new());
        while power <= high {
            found.extend(factors.iter().map(|factor| factor * 10f64.powf(power)));
            power += stride;
        }
        found.retain(|value| (self.low * 0.999..=self.high * 1.001).contains(value));
        if found.len() < 2 { vec![self.low, self.high] } else { found }
    }
}

/// A value with as many digits as tell it from its neighbours, which are a step away.
fn label(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step / 1e6 || size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e7).contains(&size) {
        return short_exponent(&format!("{value:.3e}"));
    }
    let text = format!("{value:.*}", decimals(step));
    if text.contains('.') { trimmed(&text).to_owned() } else { text }
}

/// A value with all of its digits.
fn exact(value: f64) -> String {
    let is_short = (1e-4..1e7).contains(&value.abs()) || value == 0.0;
    if is_short { value.to_string() } else { format!("{value:e}") }
}

fn decimals(step: f64) -> usize {
    let known = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
    let place = known.iter().position(|power| step.is_finite() && step * 1.001 >= *power);
    place.map_or(4, |place| if place == 0 { place } else { place + 1 })
}

/// `1.500e-5` as `1.5e-5`.
fn short_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{}e{exponent}", trimmed(digits)),
        None => text.to_owned(),
    }
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[expect(clippy::cast_precision_loss, reason = "counts of what is on a screen")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: ScaleKind, values: &[f64], wanted: usize) -> String {
        let ticks = Scale::over(kind, values.iter().copied()).ticks(wanted);
        ticks.iter().map(|tick| tick.label.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn axes_name_round_values() {
        let check = |values: &[f64], wanted, expected| {
            assert_eq!(labels(ScaleKind::Linear, values, wanted), expected);
        };
        check(&[0.0, 100.0], 5, "0 20 40 60 80 100");
        check(&[0.12, 0.47], 4, "0.2 0.3 0.4");
        check(&[1.0, 300.0], 5, "100 200 300");
        check(&[-1.0, 1.0], 4, "-1 -0.5 0 0.5 1");
        check(&[2e-6, 8e-6], 3, "2e-6 4e-6 6e-6 8e-6");
        check(&[5.0], 2, "5");
        check(&[], 2, "0 0.5 1");
        check(&[0.0, 2e6], 2, "0 1000000 2000000");
        check(&[f64::MIN, f64::MAX], 2, "-1.798e308 1.798e308");
    }

    #[test]
    fn ratios_have_powers_of_ten() {
        let check = |values: &[f64], expected| {
            assert_eq!(labels(ScaleKind::Logarithmic, values, 6), expected);
        };
        check(&[1e-4, 0.1], "0.0001 0.001 0.01 0.1");
        check(&[0.01, 0.1], "0.01 0.02 0.05 0.1");
        check(&[12.0, 16.0], "12 13 14 15 16");
        check(&[1e-300, 1e300], "1e-300 1e-200 1e-100 1 1e100 1e200 1e300");
        assert_eq!(ScaleKind::fitting(&[0.1, 0.03, 0.01]), ScaleKind::Logarithmic);
        for linear in [&[16.0, 32.0][..], &[1.0, 4.0, 7.0, 10.0], &[0.0, 1.0, 10.0], &[]] {
            assert_eq!(ScaleKind::fitting(linear), ScaleKind::Linear, "{linear:?}");
        }
    }

    #[test]
    fn different_values_have_different_labels() {
        for kind in [ScaleKind::Linear, ScaleKind::Logarithmic] {
            for values in [[0.000_123_456, 0.000_123_457], [123_456_789.0, 123_456_790.0]] {
                let scale = Scale::over(kind.clone(), values.into_iter());
                let [a, b] = &scale.named(&values)[..] else { panic!("{kind:?}") };
                assert_ne!(a.label, b.label, "{kind:?}");
                assert_eq!(a.label.parse(), Ok(values[0]), "{kind:?}");
            }
        }
    }

    #[test]
    fn names_have_a_place_each() {
        let kind = ScaleKind::Names(vec!["adam".to_owned(), "sgd".to_owned()]);
        let scale = Scale::over(kind, [0.0, 1.0].into_iter());
        assert_eq!(scale.ticks(9)[1], Tick { place: 0.75, label: "sgd".to_owned() });
        assert_eq!(scale.place(f64::NAN), None);
    }
}
