use super::output;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use voxgrain::convert::{PackReport, pack, pack_bundle};

const HELP: &str = "\
A stock model multiplies with com.microsoft.MatMulNBits nodes (4 or 8 bits, block_size 32), as
quantizers for ONNX Runtime write them. voxgrain runs it as it is. Packed, the same weights lie in
the order that the matrix products read them in, sixteen rows side by side, and a pass of several
tokens gets faster. Weights and scales keep their values: the logits are the same bits.

A node stays as it is if it has zero points of its own, scales that are not exact in f16, or
weights that something else reads as well; that is reported.

IN.onnx.data lies beside IN.onnx, and OUT.onnx.data is written beside OUT.onnx. Given the folder of
a bundle, every model in it is packed and bundle.toml follows; the group index is written into the
new folder, because it names the checksum of the target's weights.

Examples:
  voxgrain pack model.onnx packed.onnx
  voxgrain pack models/stock models/packed && voxgrain inspect --bundle models/packed --verify
  voxgrain pack --json --force model.onnx packed.onnx";

/// Rewrite a stock ONNX model or bundle for faster matrix products, without loss
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Pack {
    /// A model, or the folder of a bundle
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The model or folder to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn value(file: &str, r: &PackReport) -> Value {
    let kept: Vec<Value> =
        r.kept.iter().map(|(node, why)| json!({"node": node, "reason": why})).collect();
    json!({
        "file": file, "packed": r.packed, "kept": kept,
        "bytes_before": r.bytes_before, "bytes_after": r.bytes_after,
    })
}

impl Pack {
    pub fn run(self) -> anyhow::Result<()> {
        let clock = Instant::now();
        let bar = output::progress(1, self.json);
        let on_progress = |done: u64, total: u64| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let folder = self.input.is_dir();
        let reports = if folder {
            pack_bundle(&self.input, &self.output, self.force, |file, done, total| {
                bar.set_message(file.to_owned());
                on_progress(done, total);
            })?
        } else {
            let report = pack(&self.input, &self.output, self.force, on_progress)?;
            vec![(self.output.display().to_string(), report)]
        };
        bar.finish_and_clear();
        let seconds = clock.elapsed().as_secs_f64();
        if self.json {
            let models: Vec<Value> = reports.iter().map(|(f, r)| value(f, r)).collect();
            output::json(&json!({
                "input": self.input.display().to_string(),
                "output": self.output.display().to_string(),
                "models": models, "seconds": seconds,
            }))?;
            return Ok(());
        }
        for (file, r) in &reports {
            output::status(&format!(
                "{file}: {} nodes packed, {} kept, {:.2} MB before, {:.2} MB after",
                r.packed.len(),
                r.kept.len(),
                r.bytes_before as f64 / 1e6,
                r.bytes_after as f64 / 1e6
            ));
            for (node, why) in &r.kept {
                output::status(&format!("  {node} stays: {why}"));
            }
        }
        output::status(&format!("wrote {} in {seconds:.1} s", self.output.display()));
        Ok(())
    }
}
