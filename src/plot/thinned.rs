//! A series of any length in the memory of a short one: what is between the points that stay is lower than the highest
//! and higher than the lowest of them.

use super::Point;

/// Neighbouring points: the lowest and the highest of them.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    low: Point,
    high: Point,
    n: usize,
}

/// A series that is thinned while it grows.
#[derive(Clone, Debug)]
pub struct Thinned {
    buckets: Vec<Bucket>,
    /// How many points share a bucket.
    stride: usize,
    most: usize,
    n_points: usize,
    last: Option<Point>,
}

impl Thinned {
    /// One that keeps about twice as many points as `most`, and all of them up to there.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { buckets: Vec::new(), stride: 1, most: most.max(2), n_points: 0, last: None }
    }

    /// How many points there were.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.n_points
    }

    /// Adds a finite point.
    pub fn add(&mut self, point: Point) {
        self.n_points += 1;
        self.last = Some(point);
        if let Some(bucket) = self.buckets.last_mut().filter(|bucket| bucket.n < self.stride) {
            *bucket = bucket.with(point, point, 1);
            return;
        }
        self.buckets.push(Bucket { low: point, high: point, n: 1 });
        if self.buckets.len() > self.most {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let halves = self.buckets.chunks(2).map(|two| {
            two[1..].iter().fold(two[0], |one, other| one.with(other.low, other.high, other.n))
        });
        self.buckets = halves.collect();
        self.stride *= 2;
    }

    /// The points that stay, from left to right.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::with_capacity(self.buckets.len() * 2 + 1);
        for bucket in &self.buckets {
            points.push(bucket.low);
            if bucket.high != bucket.low {
                points.push(bucket.high);
            }
        }
        points.extend(self.last);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
        points
    }
}

impl Bucket {
    /// The same with more points, of which these are the lowest and the highest.
    fn with(self, low: Point, high: Point, n: usize) -> Self {
        Self {
            low: if low.1 < self.low.1 { low } else { self.low },
            high: if high.1 > self.high.1 { high } else { self.high },
            n: self.n + n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = f64>, most: usize) -> Thinned {
        let mut thinned = Thinned::new(most);
        (0u32..).zip(values).for_each(|(x, y)| thinned.add((f64::from(x), y)));
        thinned
    }

    #[test]
    fn a_short_series_stays_as_it_is() {
        let values = [3.0, 1.0, 2.0, 2.0];
        let points = of(values.into_iter(), 4).points();
        assert_eq!(points, [(0.0, 3.0), (1.0, 1.0), (2.0, 2.0), (3.0, 2.0)]);
        assert!(Thinned::new(4).points().is_empty());
    }

    #[test]
    fn peaks_stay_however_long_it_is() {
        let value = |x: u32| if x == 54_321 { 9.0 } else { f64::from(x % 7) / 10.0 };
        let thinned = of((0..100_000).map(value), 64);
        let points = thinned.points();
        assert_eq!(thinned.n_points(), 100_000);
        assert!(points.len() <= 129, "{}", points.len());
        assert!(points.contains(&(54_321.0, 9.0)) && points.contains(&(99_999.0, 0.4)));
        assert!(points.windows(2).all(|two| two[0].0 <= two[1].0));
        // What came first is kept as finely as what came last.
        let early = points.iter().filter(|point| point.0 < 50_000.0).count();
        assert!((50..80).contains(&early), "{early} of {}", points.len());
    }
}
