//! The models of the engine in the words of decoding and of the group index, which know
//! models by traits alone.

use std::sync::Arc;

use crate::Result;
use crate::asg::live::TokenRows;
use crate::decode::TokenModel;
use crate::engine::{Model, Session};

impl TokenModel for Session {
    fn step(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()> {
        self.step_with(tokens, features, wanted)
    }
    fn logits(&mut self) -> &[f32] {
        self.logits()
    }
    fn softmax(
        &mut self,
        row: usize,
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        self.softmax(row, inverse_temperature, probs, sums)
    }
    fn hidden(&self) -> &[f32] {
        self.hidden()
    }
    fn hidden_width(&self) -> usize {
        self.hidden_width()
    }
    fn taps(&self) -> usize {
        self.taps()
    }
    fn tap(&self, which: usize) -> &[f32] {
        self.tap(which)
    }
    fn feature_width(&self) -> usize {
        self.feature_width()
    }
    fn len(&self) -> usize {
        self.len()
    }
    fn room(&self) -> usize {
        self.room()
    }
    fn vocabulary(&self) -> usize {
        self.vocabulary()
    }
    fn rollback(&mut self, len: usize) {
        self.rollback(len)
    }
}

impl TokenRows for Arc<Model> {
    /// Of the input embedding.
    fn width(&self) -> usize {
        self.embedding_width()
    }
    fn row(&self, token: u32, out: &mut [f32]) {
        self.embedding_row(token, out);
    }
}
