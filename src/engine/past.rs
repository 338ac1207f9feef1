//! What a decoder that looks both ways keeps of the frames before those it works on, so that a
//! stream need not decode them again: keys and values, the rows at the edge of each convolution, and
//! the sums that its group norms are made of.
//!
//! Every pass has rows that are kept and, behind them, rows that only lend the others their view
//! ahead: those come again in the next pass, by then with a view of their own.

/// The frames behind a stream, as far as all operators share them.
#[derive(Default)]
pub(super) struct Past {
    /// Rows of the pass that are kept, from the first.
    pub keep: usize,
    /// Rows that have keys and values.
    len: usize,
    /// Rows that may.
    room: usize,
    /// Of those, how many stay for good: the ones that a stream begins with.
    held: usize,
    /// Which of the others is replaced next. Attention knows no order, so neither does the cache.
    next: usize,
    /// Rows before each convolution's next one.
    pub edges: Vec<Edge>,
    /// What each group norm has seen.
    pub sums: Vec<Sums>,
}

/// Rows `[padding][C]` before the next one, and what they are at the start of a stream.
pub(super) struct Edge {
    pub rows: Vec<f32>,
    first: Vec<f32>,
}

/// Rows so far, and for each channel their sum and that of their squares.
#[derive(Clone, Default)]
pub(super) struct Sums {
    pub rows: f64,
    pub sum: Vec<f64>,
    pub square: Vec<f64>,
    first: Option<Box<Sums>>,
}

impl Sums {
    fn new(channels: usize) -> Self {
        Self { sum: vec![0.0; channels], square: vec![0.0; channels], ..Self::default() }
    }

    /// Counts `[rows][C]` in.
    pub fn add(&mut self, x: &[f32]) {
        for row in x.chunks_exact(self.sum.len()) {
            for ((x, sum), square) in row.iter().zip(&mut self.sum).zip(&mut self.square) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
            self.rows += 1.0;
        }
    }

    /// Becomes a copy of `other`, in the same memory.
    pub fn copy(&mut self, other: &Sums) {
        self.rows = other.rows;
        self.sum.clone_from(&other.sum);
        self.square.clone_from(&other.square);
    }
}

impl Past {
    /// For convolutions and norms of these sizes, with keys and values of `room` rows.
    pub fn new(edges: &[usize], channels: &[usize], room: usize) -> Self {
        let edge = |&n| Edge { rows: vec![0.0; n], first: vec![0.0; n] };
        Self {
            room,
            edges: edges.iter().map(edge).collect(),
            sums: channels.iter().map(|&c| Sums::new(c)).collect(),
            ..Self::default()
        }
    }

    /// Rows whose keys and values the next row sees.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the keys and values of kept row `r` of the pass belong, which were written behind
    /// all others; `None` if they are not kept.
    pub fn place(&self, r: usize) -> Option<usize> {
        let at = self.len + r;
        if at < self.room {
            return Some(at);
        }
        let ring = self.room - self.held;
        (ring > 0).then(|| self.held + (self.next + at - self.room) % ring)
    }

    /// The pass is over.
    pub fn advance(&mut self) {
        let fresh = self.keep.min(self.room - self.len);
        self.len += fresh;
        let ring = (self.room - self.held).max(1);
        self.next = (self.next + self.keep - fresh) % ring;
    }

    /// Makes what has been seen so far the start of every stream.
    pub fn hold(&mut self) {
        (self.held, self.next) = (self.len, 0);
        for e in &mut self.edges {
            e.first.clone_from(&e.rows);
        }
        for s in &mut self.sums {
            s.first = None;
            s.first = Some(Box::new(s.clone()));
        }
    }

    /// Back to the start of a stream.
    pub fn reset(&mut self) {
        (self.len, self.next) = (self.held, 0);
        for e in &mut self.edges {
            e.rows.copy_from_slice(&e.first);
        }
        for s in &mut self.sums {
            match s.first.take() {
                Some(first) => {
                    s.copy(&first);
                    s.first = Some(first);
                }
                None => {
                    s.rows = 0.0;
                    s.sum.fill(0.0);
                    s.square.fill(0.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots by hand: which rows of a stream the cache holds after each pass.
    #[test]
    fn the_oldest_rows_make_room_and_held_ones_stay() {
        let mut past = Past::new(&[], &[], 6);
        let mut cache = vec![-1i32; 6 + 8];
        let mut row = 0;
        let mut pass = |past: &mut Past, rows: usize, keep: usize| {
            past.keep = keep;
            let len = past.len();
            for r in 0..rows {
                cache[len + r] = row + r as i32;
            }
            for r in 0..keep {
                if let Some(to) = past.place(r) {
                    cache[to] = cache[len + r];
                }
            }
            past.advance();
            row += keep as i32;
            let mut held = cache[..past.len()].to_vec();
            held.sort();
            held
        };
        assert_eq!(pass(&mut past, 3, 2), [0, 1]);
        past.hold();
        assert_eq!(pass(&mut past, 4, 3), [0, 1, 2, 3, 4]);
        assert_eq!(pass(&mut past, 4, 3), [0, 1, 4, 5, 6, 7]);
        assert_eq!(pass(&mut past, 7, 5), [0, 1, 9, 10, 11, 12]);
        assert_eq!(pass(&mut past, 2, 0), [0, 1, 9, 10, 11, 12]);
        past.reset();
        assert_eq!(past.len(), 2);
        // Without room nothing is kept.
        let mut none = Past::new(&[], &[], 0);
        none.keep = 3;
        assert_eq!((none.place(0), none.place(2)), (None, None));
        none.advance();
        assert_eq!(none.len(), 0);
    }
}
