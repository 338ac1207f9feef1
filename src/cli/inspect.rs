use super::args::VoiceArgs;
use super::{find, output};
use clap::Args;
use serde_json::json;
use voxgrain::bundle::{Bundle, LanguageModel, Sampling};
use voxgrain::engine::Model;

/// Show what is in a bundle: shapes, bytes, quantization, hashes, groups
#[derive(Args)]
#[command(
    after_help = "Examples:\n  voxgrain inspect\n  voxgrain inspect --verify --json\n  voxgrain inspect --tensors --bundle models/tiny"
)]
pub struct Inspect {
    /// Read every file and compare its sha256 with the listed one
    #[arg(long)]
    verify: bool,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

fn language_model(m: &LanguageModel, model: &Model) -> serde_json::Value {
    json!({
        "file": m.file, "layers": m.layers, "hidden": m.hidden, "heads": m.heads,
        "kv_heads": m.kv_heads, "head_dim": m.head_dim, "ffn": m.ffn, "bits": m.bits,
        "max_positions": m.max_positions, "vocabulary": model.output_columns(),
        "mapped_bytes": model.mapped_bytes(),
    })
}

/// What is in force of them, for a line.
fn penalties(s: &Sampling) -> String {
    let mut text = String::new();
    if s.repetition_penalty != 1.0 {
        let over = match s.repetition_window {
            0 => String::new(),
            n => format!(" over {n}"),
        };
        text += &format!(", repetition penalty {}{over}", s.repetition_penalty);
    }
    if s.min_tokens > 0 {
        text += &format!(", at least {} tokens", s.min_tokens);
    }
    text
}

fn tensors(model: &Model) -> Vec<serde_json::Value> {
    let one = |t: &voxgrain::engine::TensorInfo| json!({"name": t.name, "type": t.data_type, "dims": t.dims, "bytes": t.bytes});
    model.tensors().iter().map(one).collect()
}

impl Inspect {
    pub fn run(self) -> anyhow::Result<()> {
        let dir = find::bundle(self.voice.bundle.as_deref())?;
        if self.verify {
            let bundle = Bundle::open(&dir)?;
            let total = bundle.files.iter().map(|f| f.bytes).sum();
            let bar = output::progress(total, self.json);
            bundle.verify(|p| {
                bar.set_position(p.done_bytes);
                std::ops::ControlFlow::Continue(())
            })?;
            bar.finish_and_clear();
        }
        let voice = self.voice.open()?;
        let b = voice.bundle();
        let groups = voice.groups().map(super::asg::describe);
        let value = json!({
            "bundle": b.dir().display().to_string(),
            "name": b.name, "licence": b.licence, "attribution": b.attribution,
            "verified": self.verify,
            "load_ms": voice.load_time().as_secs_f64() * 1e3,
            "rss_bytes": output::rss_bytes(),
            "audio": {"sample_rate_hz": b.audio.sample_rate_hz, "frame_rate_hz": b.audio.frame_rate_hz},
            "speakers": b.speakers.iter().map(|s| json!({"name": s.name, "begin": s.begin, "description": s.description})).collect::<Vec<_>>(),
            "text": {
                "front_end": if voice.phonemizer().is_some() { "phonemes" } else { "letters" },
                "lexicon": b.lexicon_path().map(|p| p.display().to_string()),
                "lexicon_words": voice.phonemizer().map(|p| p.entries()),
                "tempos": b.text.tempos,
            },
            "target": language_model(&b.target, voice.target()),
            "draft": b.draft.as_ref().zip(voice.draft()).map(|(m, model)| language_model(m, model)),
            "codec": {"file": b.codec.file, "mapped_bytes": voice.codec().mapped_bytes(), "bits": b.codec.bits},
            "sampling": {
                "temperature": b.sampling.temperature, "top_k": b.sampling.top_k,
                "top_p": b.sampling.top_p, "min_p": b.sampling.min_p, "gamma": b.sampling.gamma,
                "repetition_penalty": b.sampling.repetition_penalty,
                "repetition_window": b.sampling.repetition_window,
                "min_tokens": b.sampling.min_tokens,
            },
            "groups": groups,
            "files": b.files.iter().map(|f| json!({"path": f.path, "bytes": f.bytes, "sha256": f.sha256})).collect::<Vec<_>>(),
            "training": b.training,
        });
        if self.json {
            let mut value = value;
            if self.tensors {
                value["target"]["tensors"] = tensors(voice.target()).into();
                if let Some(draft) = voice.draft() {
                    value["draft"]["tensors"] = tensors(draft).into();
                }
                value["codec"]["tensors"] = tensors(voice.codec()).into();
            }
            return Ok(output::json(&value)?);
        }
        let mut text = format!("{}\n{}\n", b.dir().display(), b.name);
        let mut row = |k: &str, v: String| text.push_str(&format!("  {k:<10} {v}\n"));
        row("licence", b.licence.clone());
        row(
            "audio",
            format!("{} Hz, {} tokens a second", b.audio.sample_rate_hz, b.audio.frame_rate_hz),
        );
        for (i, s) in b.speakers.iter().enumerate() {
            let mut line = s.name.clone();
            if !s.description.is_empty() {
                line += &format!(": {}", s.description);
            }
            if i == 0 {
                line += " (default)";
            }
            row("speaker", line);
        }
        let reads = match voice.phonemizer() {
            Some(p) => format!("phonemes, by a lexicon of {} words", p.entries()),
            None => "letters".into(),
        };
        row("reads", reads);
        if let (Some(low), Some(high)) = (b.text.tempos.first(), b.text.tempos.last()) {
            let many = b.text.tempos.len();
            row("rate", format!("{many} tempos, {low} to {high} times its natural one"));
        }
        let target = Some(("target", &b.target, voice.target()));
        let draft = b.draft.as_ref().zip(voice.draft()).map(|(m, model)| ("draft", m, model));
        if draft.is_none() {
            row("draft", "none: tokens are decoded plainly (ar)".into());
        }
        for (name, m, model) in target.into_iter().chain(draft) {
            row(
                name,
                format!(
                    "{} layers x {}, {} heads ({} kv) of {}, ffn {}, int{}, {:.1} MB",
                    m.layers,
                    m.hidden,
                    m.heads,
                    m.kv_heads,
                    m.head_dim,
                    m.ffn,
                    m.bits,
                    model.mapped_bytes() as f64 / 1e6
                ),
            );
        }
        row(
            "codec",
            format!("int{}, {:.1} MB", b.codec.bits, voice.codec().mapped_bytes() as f64 / 1e6),
        );
        match voice.groups() {
            Some(g) => row("groups", super::asg::one_line(g)),
            None => row("groups", "none: build an index with `voxgrain asg build`".into()),
        }
        row(
            "sampling",
            format!(
                "temperature {}, top-k {}, top-p {}, min-p {}, gamma {}{}",
                b.sampling.temperature,
                b.sampling.top_k,
                b.sampling.top_p,
                b.sampling.min_p,
                b.sampling.gamma,
                penalties(&b.sampling)
            ),
        );
        row("loaded in", format!("{:.1} ms", voice.load_time().as_secs_f64() * 1e3));
        for f in &b.files {
            row("file", format!("{:<18} {:>10} bytes  {}", f.path, f.bytes, f.sha256));
        }
        if self.tensors {
            let all = [Some(voice.target()), voice.draft(), Some(voice.codec())];
            for (name, model) in ["target", "draft", "codec"].into_iter().zip(all) {
                let Some(model) = model else { continue };
                for t in model.tensors() {
                    row(name, format!("{:<40} {:<4} {:?}", t.name, t.data_type, t.dims));
                }
            }
        }
        if self.verify {
            row("verified", "every file has its listed sha256".into());
        }
        output::line(text.trim_end())?;
        Ok(())
    }
}
