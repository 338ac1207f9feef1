//! What `bench` measures for research besides: matrix kernels alone, and boards that are not here.

use super::{kernels, memory, predict};
use crate::cli::args::{ArmName, VoiceArgs};
use crate::cli::bench::run::{ArmReport, Report, Sentence, Utterance};
use crate::cli::bench::{Bench, SetName, best, built_in, load, machine};
use crate::cli::{find, usage};
use clap::Args;
use std::path::PathBuf;
use voxgrain::bundle::Bundle;
use voxgrain::map::Map;
use voxgrain::speech::synth::Voice;

#[derive(Args)]
#[command(next_help_heading = "For research")]
pub struct Laboratory {
    /// Matrix kernels: GB/s by rows against the measured read bandwidth
    #[arg(long, conflicts_with_all = ["predict", "compare", "html", "file", "arms"])]
    kernels: bool,
    /// Predict rtf for the device profiles; acceptance is measured here or taken from --from
    #[arg(long, conflicts_with_all = ["compare", "html", "file"])]
    predict: bool,
    /// A run saved with --json, whose acceptance --predict uses
    #[arg(long, value_name = "FILE", requires = "predict")]
    from: Option<PathBuf>,
}

impl Laboratory {
    pub fn asked(&self) -> bool {
        self.kernels || self.predict
    }
}

pub fn run(bench: &Bench) -> anyhow::Result<()> {
    if bench.lab.kernels {
        let threads = bench.voice.pool().threads();
        let files = files(bench).unwrap_or_default();
        let measured = kernels::measure(threads, bench.quick, &files);
        return bench.emit(&measured, kernels::csv, kernels::markdown);
    }
    let predicted = prediction(bench)?;
    bench.emit(&predicted, predict::csv, predict::markdown)
}

/// The weights, mapped as a voice maps them.
fn files(bench: &Bench) -> voxgrain::Result<Vec<Map>> {
    let bundle = Bundle::open(find::bundle(bench.voice.bundle.as_deref())?)?;
    let data = bundle.files.iter().filter(|f| f.path.ends_with(".data"));
    data.map(|f| Map::open(bundle.path(&f.path))).collect()
}

/// The bundle asked for, and the other voices beside it (not the tests' noise).
fn bundles(bench: &Bench) -> voxgrain::Result<Vec<PathBuf>> {
    let main = find::bundle(bench.voice.bundle.as_deref())?;
    let mut all = vec![main.clone()];
    let beside = main.parent().and_then(|p| std::fs::read_dir(p).ok()).into_iter().flatten();
    let mut others: Vec<PathBuf> = beside
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name() != main.file_name() && !p.ends_with("tiny"))
        .filter(|p| p.join(voxgrain::bundle::FILE_NAME).is_file())
        .collect();
    others.sort();
    all.extend(others);
    Ok(all)
}

fn prediction(bench: &Bench) -> anyhow::Result<predict::Prediction> {
    let given = bench.lab.from.as_deref().map(load).transpose()?;
    let sentences = built_in(SetName::Medium)?;
    let count = bench.utterances.map_or(if bench.quick { 2 } else { 10 }, |n| n as usize);
    let mut out = predict::Prediction {
        prediction: true,
        bundles: Vec::new(),
        rows: Vec::new(),
        check: None,
    };
    for (i, dir) in bundles(bench)?.into_iter().enumerate() {
        let args = VoiceArgs { bundle: Some(dir.clone()), ..bench.voice.clone() };
        let args = if i == 0 { args } else { VoiceArgs { groups: None, ..args } };
        // Other bundles have other speakers.
        let voice = args.open_as(bench.speaker.as_deref().filter(|_| i == 0))?;
        // As a person would type it.
        let here = std::env::current_dir().unwrap_or_default();
        let name = dir.strip_prefix(&here).unwrap_or(&dir).display().to_string();
        let (behaviour, measured) = match given.as_ref().filter(|_| i == 0) {
            Some(report) => (behaviour_of(report)?, Vec::new()),
            None => behaviour_here(bench, &voice, &sentences, count)?,
        };
        let facts = predict::facts(&name, &voice, behaviour);
        out.rows.extend(predict::rows(&voice, &facts)?);
        if i == 0 && !measured.is_empty() {
            let threads = bench.voice.pool().threads();
            let budget = std::time::Duration::from_millis(if bench.quick { 10 } else { 500 });
            let files = files(bench)?;
            let parts: Vec<&[u8]> = files.iter().map(|f| &f[..]).collect();
            let read = memory::read_gb_s(&parts, threads, budget);
            out.check = predict::check(&voice, &facts, threads, read, &measured)?;
        }
        out.bundles.push(facts);
    }
    Ok(out)
}

/// Speaks by ar and by the arm that `say` would take in turn: what that accepts, and the rtf of both.
fn behaviour_here(
    bench: &Bench,
    voice: &Voice,
    sentences: &[Sentence],
    count: usize,
) -> anyhow::Result<(predict::Behaviour, Vec<(String, f64)>)> {
    let arm = match best(&bench.arm_names(voice)) {
        ArmName::Ar => ArmName::Pcg,
        other => other,
    };
    let mut lanes = bench.lanes(voice, &[ArmName::Ar, arm])?;
    let rate = voice.bundle().audio.sample_rate_hz;
    let mut watch = machine::Watch::new();
    let mut all = Vec::new();
    for lane in &mut lanes {
        lane.warm_up(&sentences[0])?;
    }
    for i in 0..count {
        for (turn, lane) in lanes.iter_mut().enumerate() {
            all.push(lane.speak(i, turn, &sentences[i % sentences.len()], rate, &mut watch)?);
        }
    }
    let reports: Vec<_> = lanes.into_iter().map(|l| l.report(&all)).collect();
    let measured = reports.iter().map(|a| (a.arm.clone(), a.rtf)).collect();
    let source = format!("measured here on {count} Harvard sentences");
    Ok((behaviour(&reports[1], &all, source), measured))
}

fn behaviour(a: &ArmReport, all: &[Utterance], source: String) -> predict::Behaviour {
    let own = || all.iter().filter(|u| u.arm == a.arm);
    let tokens: f64 = own().map(|u| u.tokens as f64).sum();
    // The prompt is there from the first token on, the speech grows.
    let context = own()
        .map(|u| u.tokens as f64 * (u.text.chars().count() as f64 + 2.0 + u.tokens as f64 / 2.0));
    predict::Behaviour {
        arm: a.arm.clone(),
        source,
        gamma: a.mean_gamma.round() as usize,
        acceptance_rate: a.acceptance_rate.unwrap_or(0.0),
        tokens_per_round: a.tokens_per_round,
        context: context.sum::<f64>() / tokens.max(1.0),
    }
}

fn behaviour_of(report: &Report) -> voxgrain::Result<predict::Behaviour> {
    let arm =
        ["transport", "pcg"].iter().find_map(|name| report.arms.iter().find(|a| a.arm == *name));
    let arm =
        arm.ok_or_else(|| usage("the run of --from has neither the arm transport nor pcg"))?;
    let source = format!("measured on {} utterances of --from", report.settings.utterances);
    Ok(behaviour(arm, &report.utterances, source))
}
