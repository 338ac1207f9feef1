//! Summaries of measurements: spreads, and intervals by the bootstrap.

use serde::{Deserialize, Serialize};
use voxgrain::core::rng::{SeededRng, Uniform};

/// Where the values lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spread {
    pub n: usize,
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// `None` without finite values.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let v = sorted(values);
    let max = *v.last()?;
    Some(Spread {
        n: v.len(),
        mean: v.iter().sum::<f64>() / v.len() as f64,
        p50: quantile(&v, 0.5),
        p95: quantile(&v, 0.95),
        p99: quantile(&v, 0.99),
        max,
    })
}

/// The finite values in order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut v: Vec<f64> = values.into_iter().filter(|x| x.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    v
}

/// Quantile of values in order, between neighbours in proportion; NaN if there are none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * part
}

/// The percentiles 0, 1, ... 100.
pub fn percentiles(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let v = sorted(values);
    if v.is_empty() {
        return v;
    }
    (0..=100).map(|p| quantile(&v, f64::from(p) / 100.0)).collect()
}

/// The 95 % interval of `statistic` by the bootstrap: 2000 times as many of `items` as there are,
/// drawn with replacement and a fixed seed.
pub fn bootstrap<T: Copy>(items: &[T], statistic: impl Fn(&mut [T]) -> f64) -> [f64; 2] {
    let n = items.len();
    let mut rng = SeededRng::new(7);
    let mut draw = items.to_vec();
    let values = sorted((0..2000).map(|_| {
        for d in &mut draw {
            *d = items[((rng.uniform() * n as f32) as usize).min(n - 1)];
        }
        statistic(&mut draw)
    }));
    [quantile(&values, 0.025), quantile(&values, 0.975)]
}

/// Median and its 95 % interval; `None` without finite values.
pub fn median_interval(values: impl IntoIterator<Item = f64>) -> Option<[f64; 3]> {
    let all = sorted(values);
    if all.is_empty() {
        return None;
    }
    let [low, high] = bootstrap(&all, |draw| {
        draw.sort_by(f64::total_cmp);
        quantile(draw, 0.5)
    });
    Some([quantile(&all, 0.5), low, high])
}
