//! A numbering in which similar rows lie together.

/// `order[rank] = token`: the rows are split in two equal halves along the direction in
/// which they vary most, and each half again. Deterministic.
pub(super) fn clustered(rows: &[f32], hidden: usize) -> Vec<u32> {
    let n = rows.len() / hidden;
    let mut order: Vec<u32> = (0..n as u32).collect();
    // Halves of a power of two, so that a split is a digit of the rank.
    split(rows, hidden, &mut order, n.next_power_of_two());
    order
}

fn split(rows: &[f32], hidden: usize, part: &mut [u32], span: usize) {
    let half = span / 2;
    if part.len() < 2 {
        return;
    }
    if part.len() > half {
        let axis = principal_axis(rows, hidden, part);
        let mut keyed: Vec<(f32, u32)> =
            part.iter().map(|&t| (dot(&rows[t as usize * hidden..][..hidden], &axis), t)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (slot, (_, t)) in part.iter_mut().zip(keyed) {
            *slot = t;
        }
        let (low, high) = part.split_at_mut(half);
        split(rows, hidden, low, half);
        split(rows, hidden, high, half);
    } else {
        split(rows, hidden, part, half);
    }
}

/// A few power iterations over at most 512 of the rows, which are centred.
fn principal_axis(rows: &[f32], hidden: usize, part: &[u32]) -> Vec<f32> {
    let step = part.len().div_ceil(512);
    let sample: Vec<&[f32]> =
        part.iter().step_by(step).map(|&t| &rows[t as usize * hidden..][..hidden]).collect();
    let mut mean = vec![0f32; hidden];
    for row in &sample {
        mean.iter_mut().zip(*row).for_each(|(m, x)| *m += x / sample.len() as f32);
    }
    // Start with the difference that is largest in the sample's first row.
    let mut axis: Vec<f32> = sample[0].iter().zip(&mean).map(|(x, m)| x - m).collect();
    for _ in 0..6 {
        let mut next = vec![0f32; hidden];
        let offset = dot(&mean, &axis);
        for row in &sample {
            let along = dot(row, &axis) - offset;
            for ((n, x), m) in next.iter_mut().zip(*row).zip(&mean) {
                *n += along * (x - m);
            }
        }
        let length = dot(&next, &next).sqrt();
        if !(length > 0.0 && length.is_finite()) {
            break;
        }
        axis = next.into_iter().map(|x| x / length).collect();
    }
    axis
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (ac, at) = a.as_chunks::<8>();
    let (bc, bt) = b.as_chunks::<8>();
    for (x, y) in ac.iter().zip(bc) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + at.iter().zip(bt).map(|(x, y)| x * y).sum::<f32>()
}
