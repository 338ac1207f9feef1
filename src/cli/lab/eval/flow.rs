//! The largest acceptance that any rule could have with given groups.
//!
//! A rule that accepts drafts as stand-ins moves probability from `q(x)` to `p(y)` along
//! pairs `x ~ y` that may stand for one another, and its acceptance is what it moves. The
//! most that can be moved is a maximum flow. Two graphs count: *near*, `y` in the group of
//! `x`; and *shared*, some group contains both, which is what coarse laws can reach with any
//! splits, even one for `p` and another for `q`.

use super::lists::Lists;
use super::walk::Law;

/// Capacities are probabilities in units of 2^-52, so that flows are exact sums.
const UNIT: f64 = (1u64 << 52) as f64;
const INFINITE: u64 = u64::MAX / 4;

/// A network whose maximum flow Dinic's algorithm finds.
pub struct Network {
    nodes: usize,
    edges: Vec<(u32, u32, u64)>,
}

impl Network {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, edges: Vec::new() }
    }

    pub fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        self.edges.push((from as u32, to as u32, capacity));
    }

    pub fn max_flow(&self, source: usize, sink: usize) -> u64 {
        // Arc 2i is edge i, arc 2i + 1 its reverse; arcs of a node lie together in `order`.
        let mut starts = vec![0u32; self.nodes + 2];
        for &(a, b, _) in &self.edges {
            starts[a as usize + 2] += 1;
            starts[b as usize + 2] += 1;
        }
        for i in 2..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut order = vec![0u32; 2 * self.edges.len()];
        let mut to = vec![0u32; order.len()];
        let mut left = vec![0u64; order.len()];
        for (i, &(a, b, capacity)) in self.edges.iter().enumerate() {
            for (node, arc, head, c) in [(a, 2 * i, b, capacity), (b, 2 * i + 1, a, 0)] {
                let slot = &mut starts[node as usize + 1];
                order[*slot as usize] = arc as u32;
                *slot += 1;
                to[arc] = head;
                left[arc] = c;
            }
        }
        let arcs = |node: usize| starts[node] as usize..starts[node + 1] as usize;
        let mut total = 0;
        let mut levels = vec![u32::MAX; self.nodes];
        let mut queue: Vec<u32> = Vec::new();
        loop {
            levels.fill(u32::MAX);
            levels[source] = 0;
            queue.clear();
            queue.push(source as u32);
            let mut at = 0;
            while at < queue.len() && levels[sink] == u32::MAX {
                let node = queue[at] as usize;
                at += 1;
                for &arc in &order[arcs(node)] {
                    let head = to[arc as usize] as usize;
                    if left[arc as usize] > 0 && levels[head] == u32::MAX {
                        levels[head] = levels[node] + 1;
                        queue.push(head as u32);
                    }
                }
            }
            if levels[sink] == u32::MAX {
                return total;
            }
            // Paths of the level graph until none is left; `next` never goes back.
            let mut next: Vec<u32> = starts[..self.nodes].to_vec();
            let mut path: Vec<u32> = Vec::new();
            let mut node = source;
            loop {
                if node == sink {
                    let most = path.iter().map(|&a| left[a as usize]).min().unwrap_or(0);
                    total += most;
                    let mut cut = None;
                    for (i, &arc) in path.iter().enumerate() {
                        left[arc as usize] -= most;
                        left[arc as usize ^ 1] += most;
                        if left[arc as usize] == 0 && cut.is_none() {
                            cut = Some(i);
                        }
                    }
                    // Back to the tail of the first full arc.
                    let keep = cut.unwrap_or(0);
                    node = to[path[keep] as usize ^ 1] as usize;
                    path.truncate(keep);
                    continue;
                }
                let end = starts[node + 1];
                let mut found = None;
                while next[node] < end {
                    let arc = order[next[node] as usize];
                    let head = to[arc as usize] as usize;
                    if left[arc as usize] > 0 && levels[head] == levels[node] + 1 {
                        found = Some((arc, head));
                        break;
                    }
                    next[node] += 1;
                }
                match found {
                    Some((arc, head)) => {
                        path.push(arc);
                        node = head;
                    }
                    None => {
                        // A dead end: nobody comes here again in this phase.
                        let Some(arc) = path.pop() else { break };
                        node = to[arc as usize ^ 1] as usize;
                        next[node] += 1;
                    }
                }
            }
        }
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub lower: f64,
    pub upper: f64,
}

/// The tokens that hold all but `1 - mass` of each law, and what the others hold.
pub struct Support {
    pub tokens: Vec<u32>,
    /// `[vocabulary]`
    pub inside: Vec<bool>,
    p_out: f64,
    q_out: f64,
    /// `sum min(p, q)` of the tokens outside: what they can keep of their own.
    kept_out: f64,
}

impl Support {
    pub fn new(target: &Law, draft: &Law, mass: f64) -> Self {
        let n = target.probs.len();
        let mut inside = vec![false; n];
        for probs in [&target.probs, &draft.probs] {
            let mut order: Vec<u32> = (0..n as u32).filter(|&t| probs[t as usize] > 0.0).collect();
            order.sort_unstable_by(|&a, &b| probs[b as usize].total_cmp(&probs[a as usize]));
            let goal = mass * order.iter().map(|&t| f64::from(probs[t as usize])).sum::<f64>();
            let mut sum = 0.0;
            for t in order {
                if sum >= goal && mass < 1.0 {
                    break;
                }
                sum += f64::from(probs[t as usize]);
                inside[t as usize] = true;
            }
        }
        let mut support =
            Self { tokens: Vec::new(), inside, p_out: 0.0, q_out: 0.0, kept_out: 0.0 };
        for t in 0..n {
            let (p, q) = (f64::from(target.probs[t]), f64::from(draft.probs[t]));
            if support.inside[t] {
                support.tokens.push(t as u32);
            } else {
                support.p_out += p;
                support.q_out += q;
                support.kept_out += p.min(q);
            }
        }
        support
    }

    /// Bounds from the flow within the support. A flow of all tokens may add to it what its
    /// outside tokens send or take, at most `q_out + p_out`; and it can surely add what each
    /// of them keeps. Rounding of capacities is below 2^-52 a token.
    fn bounds(&self, flow: u64) -> Bounds {
        let flow = flow as f64 / UNIT;
        let rounding = 2.0 * self.tokens.len() as f64 / UNIT;
        let upper = flow + self.q_out + self.p_out + rounding;
        Bounds { lower: flow + self.kept_out, upper: upper.min(1.0) }
    }

    fn capacities(&self, law: &Law) -> Vec<u64> {
        self.tokens.iter().map(|&t| (f64::from(law.probs[t as usize]) * UNIT) as u64).collect()
    }

    /// Place in `tokens`, by token.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![u32::MAX; self.inside.len()];
        for (i, &t) in self.tokens.iter().enumerate() {
            places[t as usize] = i as u32;
        }
        places
    }
}

/// Pairs `x ~ y` with `y` in the group of `x`, or `x` in that of `y`.
pub fn near(lists: &Lists, support: &Support, target: &Law, draft: &Law) -> Bounds {
    let n = support.tokens.len();
    let (q, p) = (support.capacities(draft), support.capacities(target));
    let places = support.places();
    let (source, sink) = (2 * n, 2 * n + 1);
    let mut network = Network::new(2 * n + 2);
    for (i, &x) in support.tokens.iter().enumerate() {
        network.edge(source, i, q[i]);
        network.edge(n + i, sink, p[i]);
        if x as usize >= lists.len() {
            network.edge(i, n + i, INFINITE);
            continue;
        }
        for &y in lists.members(x as usize) {
            let j = places[y as usize] as usize;
            if j < n {
                network.edge(i, n + j, INFINITE);
                if !lists.symmetric && i != j {
                    network.edge(j, n + i, INFINITE);
                }
            }
        }
    }
    support.bounds(network.max_flow(source, sink))
}

/// Pairs with a group in common, by a node for each group.
pub fn shared(lists: &Lists, support: &Support, target: &Law, draft: &Law) -> Bounds {
    let n = support.tokens.len();
    let (q, p) = (support.capacities(draft), support.capacities(target));
    let places = support.places();
    let mut members: Vec<(usize, usize)> = Vec::new();
    let mut groups = 0;
    for g in 0..lists.len() {
        let before = members.len();
        for &t in lists.members(g) {
            let at = places[t as usize];
            if at != u32::MAX {
                members.push((at as usize, groups));
            }
        }
        // A group of one token adds nothing to that token's own group.
        if members.len() > before + 1 || (members.len() == before + 1 && places[g] != u32::MAX) {
            groups += 1;
        } else {
            members.truncate(before);
        }
    }
    let (source, sink, first) = (2 * n, 2 * n + 1, 2 * n + 2);
    let mut network = Network::new(first + groups);
    for (i, &x) in support.tokens.iter().enumerate() {
        network.edge(source, i, q[i]);
        network.edge(n + i, sink, p[i]);
        if x as usize >= lists.len() {
            network.edge(i, n + i, INFINITE);
        }
    }
    for (i, g) in members {
        network.edge(i, first + g, INFINITE);
        network.edge(first + g, n + i, INFINITE);
    }
    support.bounds(network.max_flow(source, sink))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(probs: &[f32]) -> Law {
        Law { probs: probs.to_vec(), sums: Vec::new() }
    }

    /// Strassen: the most that can be moved is `min over A of 1 - q(A) + p(neighbours of A)`.
    fn brute_force(q: &[f32], p: &[f32], near: impl Fn(usize, usize) -> bool) -> f64 {
        let n = q.len();
        (0..1u32 << n)
            .map(|set| {
                let inside = |x: usize| set >> x & 1 == 1;
                let left: f64 = (0..n).filter(|&x| !inside(x)).map(|x| f64::from(q[x])).sum();
                let reached = (0..n).filter(|&y| (0..n).any(|x| inside(x) && near(x, y)));
                left + reached.map(|y| f64::from(p[y])).sum::<f64>()
            })
            .fold(f64::INFINITY, f64::min)
    }

    fn rows(seed: u64, n: usize) -> Vec<f32> {
        use voxgrain::core::rng::{SeededRng, Uniform};
        let mut rng = SeededRng::new(seed);
        let raw: Vec<f32> = (0..n).map(|_| rng.uniform().powi(3)).collect();
        let sum: f32 = raw.iter().sum();
        raw.iter().map(|x| x / sum).collect()
    }

    #[test]
    fn a_chain_passes_everything_on_where_keeping_first_would_not() {
        // z - x - y: q on z and x, p on x and y. Cancelling x first would strand z.
        let lists = Lists::from_members(&[vec![0, 1], vec![0, 1, 2], vec![1, 2]]);
        let (q, p) = (law(&[0.5, 0.5, 0.0]), law(&[0.0, 0.5, 0.5]));
        let b = near(&lists, &Support::new(&p, &q, 1.0), &p, &q);
        assert!((b.lower - 1.0).abs() < 1e-9 && b.upper == 1.0, "{b:?}");
    }

    #[test]
    fn flows_are_those_of_brute_force() {
        for seed in 0..60 {
            let n = 9;
            let members: Vec<Vec<u32>> = (0..n as u32)
                .map(|g| {
                    let odd = |a: u32, b: u32| {
                        let (a, b) = (a.min(b), a.max(b));
                        a == b || (u64::from(a * 31 + b * 17) * (seed + 3)) % 7 < 2
                    };
                    (0..n as u32).filter(|&t| odd(g, t)).collect()
                })
                .collect();
            let lists = Lists::from_members(&members);
            let (p, q) = (rows(2 * seed, n + 1), rows(2 * seed + 1, n + 1));
            let inside = |x: usize, y: usize| x < n && y < n && members[x].contains(&(y as u32));
            let share = |x: usize, y: usize| (0..n).any(|g| inside(g, x) && inside(g, y));
            let want_near = brute_force(&q, &p, |x, y| x == y || inside(x, y));
            let want_shared = brute_force(&q, &p, |x, y| x == y || share(x, y));
            let (p, q) = (law(&p), law(&q));
            let whole = Support::new(&p, &q, 1.0);
            for (want, flow) in [
                (want_near, near as fn(&Lists, &Support, &Law, &Law) -> Bounds),
                (want_shared, shared),
            ] {
                let b = flow(&lists, &whole, &p, &q);
                assert!((b.lower - want).abs() < 1e-6, "seed {seed}: {b:?}, not {want}");
                assert!(b.upper >= b.lower && b.upper - b.lower < 1e-6);
                // What is left out may be anything between the bounds.
                let part = flow(&lists, &Support::new(&p, &q, 0.8), &p, &q);
                assert!(part.lower <= want + 1e-6 && want <= part.upper + 1e-6, "{part:?}");
            }
        }
    }
}
