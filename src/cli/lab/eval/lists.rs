//! An index unpacked: every group's members in one array, for sums over all groups.

use voxgrain::asg::{Index, Weights};
use voxgrain::core::accept::Groups;
use voxgrain::map::Map;

pub struct Lists {
    /// Members of group `g`: `ids[starts[g]..starts[g + 1]]`.
    starts: Vec<usize>,
    ids: Vec<u32>,
    /// `w(g|t)` of each entry, where it is not `1 / N(t)`.
    weights: Option<Vec<f32>>,
    /// `1 / N(t)`.
    pub shares: Vec<f32>,
    /// Whether the members of a token's group are the groups that contain the token.
    pub symmetric: bool,
}

impl Lists {
    pub fn new(index: &Index<Map>) -> Self {
        let n = index.codebook();
        let entries = index.header().entries as usize;
        let similarity = index.weights() == Weights::Similarity;
        let mut lists = Self {
            starts: Vec::with_capacity(n as usize + 1),
            ids: Vec::with_capacity(entries),
            weights: similarity.then(|| Vec::with_capacity(entries)),
            shares: (0..n).map(|t| 1.0 / index.owner_count(t) as f32).collect(),
            symmetric: index.header().symmetric,
        };
        for g in 0..n {
            lists.starts.push(lists.ids.len());
            index.for_each_member(g, |t, w| {
                lists.ids.push(t);
                if let Some(weights) = &mut lists.weights {
                    weights.push(w);
                }
            });
        }
        lists.starts.push(lists.ids.len());
        lists
    }

    #[cfg(test)]
    pub fn from_members(members: &[Vec<u32>]) -> Self {
        let mut owners = vec![0usize; members.len()];
        members.iter().flatten().for_each(|&t| owners[t as usize] += 1);
        let mut starts = vec![0];
        members.iter().for_each(|m| starts.push(starts[starts.len() - 1] + m.len()));
        let symmetric = (0..members.len())
            .all(|g| members[g].iter().all(|&t| members[t as usize].contains(&(g as u32))));
        Self {
            starts,
            ids: members.concat(),
            weights: None,
            shares: owners.iter().map(|&n| 1.0 / n as f32).collect(),
            symmetric,
        }
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether tokens are split evenly over the groups that contain them.
    pub fn equal_split(&self) -> bool {
        self.weights.is_none()
    }

    #[inline]
    pub fn members(&self, group: usize) -> &[u32] {
        &self.ids[self.starts[group]..self.starts[group + 1]]
    }

    /// `w(group|t)` of its members, where they are not the shares.
    #[inline]
    pub fn weights(&self, group: usize) -> Option<&[f32]> {
        Some(&self.weights.as_ref()?[self.starts[group]..self.starts[group + 1]])
    }
}
