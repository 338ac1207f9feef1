//! Decoders of NeuCodec's and X-codec2's kind: imported, against transformers, in windows and whole.
#![cfg(feature = "import")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use voxgrain::bundle::{Audio, Codec, CodecKind};
use voxgrain::engine::{CodecSession, Model, Pool};
use voxgrain::import::codec;
use voxgrain::import::quantize::Bits;
use voxgrain::kernel;
use voxgrain::speech::codec::CodecDecoder;
use voxgrain::{ErrorKind, Result};

/// The reference's header and sound (`python -m voxgrain_tools neucodec`).
struct Golden {
    header: Value,
    pcm: Vec<f32>,
}

impl Golden {
    fn load(kind: &str, shape: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join(format!("tests/data/neucodec/{kind}-{shape}.bin"));
        let bytes = std::fs::read(path).unwrap();
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let floats = bytes[end + 1..].as_chunks::<4>().0;
        let pcm = floats.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Self { header: serde_json::from_slice(&bytes[..end]).unwrap(), pcm }
    }

    fn number(&self, key: &str) -> usize {
        self.header[key].as_u64().unwrap() as usize
    }

    fn tokens(&self) -> Vec<u32> {
        let all = self.header["tokens"].as_array().unwrap();
        all.iter().map(|t| t.as_u64().unwrap() as u32).collect()
    }
}

/// Numbers from -1 to 1 by name and position: splitmix64, as the reference has them.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let seed = u64::from(crc32(name.as_bytes())) << 32;
    (1..=count as u64)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed);
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^= x >> 31;
            ((x >> 40) as f32 + 0.5) / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// As zlib's.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg()))
    })
}

fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let inputs: usize = shape[1..].iter().product();
    let u = uniform(name, shape.iter().product());
    let scale = (3.0 / inputs as f64).powf(0.5) as f32;
    let f = |x: f32| match (name.ends_with("bias"), shape.len()) {
        (true, _) => x * 0.1,
        (_, 1) => 1.0 + x * 0.2,
        _ => x * scale,
    };
    u.into_iter().map(f).collect()
}

/// Widths of a decoder.
#[derive(Clone, Copy)]
struct Widths {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    middle: usize,
    fft: usize,
}

const SMALL: Widths = Widths { hidden: 64, ffn: 160, layers: 2, heads: 4, middle: 96, fft: 0 };
const FULL: Widths =
    Widths { hidden: 1024, ffn: 4096, layers: 12, heads: 16, middle: 2048, fft: 0 };

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of transformers' classes.
fn weights(w: Widths) -> Weights {
    let Widths { hidden: h, ffn, layers, middle, fft, .. } = w;
    let mut all = Weights::new();
    let mut add = |name: String, shape: &[usize]| {
        let values = weight(&name, shape);
        all.insert(name, (shape.to_vec(), values));
    };
    let both = |name: &str, shape: &[usize], add: &mut dyn FnMut(String, &[usize])| {
        add(format!("{name}.weight"), shape);
        add(format!("{name}.bias"), &shape[..1]);
    };
    both("quantizer.project_out", &[middle, 8], &mut add);
    both("acoustic_decoder.fc", &[h, middle], &mut add);
    both("acoustic_decoder.embed", &[h, h, 7], &mut add);
    for net in ["prior_net", "post_net"] {
        for i in 0..2 {
            for part in 1..=2 {
                let at = format!("acoustic_decoder.{net}.{i}");
                both(&format!("{at}.norm{part}"), &[h], &mut add);
                both(&format!("{at}.conv{part}"), &[h, h, 3], &mut add);
            }
        }
    }
    for l in 0..layers {
        let at = format!("acoustic_decoder.layers.{l}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("{at}.{norm}.weight"), &[h]);
        }
        for p in ["q", "k", "v", "o"] {
            add(format!("{at}.self_attn.{p}_proj.weight"), &[h, h]);
        }
        add(format!("{at}.mlp.fc1.weight"), &[ffn, h]);
        add(format!("{at}.mlp.fc2.weight"), &[h, ffn]);
    }
    both("acoustic_decoder.norm", &[h], &mut add);
    both("acoustic_decoder.head.linear", &[fft + 2, h], &mut add);
    all
}

/// The same under the names of the releases.
fn released(all: &Weights) -> Weights {
    let mut out = Weights::new();
    for (name, tensor) in all {
        let Some((at, part)) = name.split_once(".self_attn.") else {
            let name = name
                .replace("quantizer.project_out", "generator.quantizer.project_out")
                .replace("acoustic_decoder.fc.", "fc_post_a.")
                .replace("acoustic_decoder.head.linear", "generator.head.out")
                .replace("acoustic_decoder.layers", "generator.backbone.transformers")
                .replace("acoustic_decoder.norm", "generator.backbone.final_layer_norm")
                .replace("acoustic_decoder", "generator.backbone")
                .replace("input_layernorm", "att_norm")
                .replace("post_attention_layernorm", "ffn_norm");
            out.insert(name, tensor.clone());
            continue;
        };
        let at = at.replace("acoustic_decoder.layers", "generator.backbone.transformers");
        if part == "o_proj.weight" {
            out.insert(format!("{at}.att.c_proj.weight"), tensor.clone());
            continue;
        }
        // In alphabetical order k, q, v come by; the matrix has q, k, v.
        let h = tensor.0[1];
        let joined = out
            .entry(format!("{at}.att.c_attn.weight"))
            .or_insert_with(|| (vec![3 * h, h], vec![0.0; 3 * h * h]));
        let place = "qkv".find(&part[..1]).unwrap();
        joined.1[place * h * h..][..h * h].copy_from_slice(&tensor.1);
    }
    out
}

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voxgrain-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn save(weights: &Weights, config: Option<Value>, folder: &Path) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in weights {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    let mut text = Value::from(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    }
}

fn config(w: Widths) -> Value {
    json!({ "num_attention_heads": w.heads, "downsampling_ratios": [2, 2, 5], "input_sampling_rate": 16000 })
}

/// An imported decoder and what was said of it.
struct Imported {
    model: Arc<Model>,
    audio: Audio,
    codec: Codec,
    data: Vec<u8>,
    _folder: Folder,
}

fn import(name: &str, weights: &Weights, config: Option<Value>, bits: Bits) -> Result<Imported> {
    let from = Folder::new(&format!("{name}-from"));
    save(weights, config, &from.0);
    let folder = Folder::new(&format!("{name}-to"));
    let (audio, codec) = codec::convert(&from.0, &folder.0, bits, 2)?;
    let model = Model::load(folder.0.join(&codec.file), 0)?;
    let data = std::fs::read(folder.0.join(format!("{}.data", codec.file))).unwrap();
    Ok(Imported { model, audio, codec, data, _folder: folder })
}

fn small(name: &str, golden: &Golden) -> Imported {
    let w = Widths { fft: golden.number("fft_size"), ..SMALL };
    import(name, &weights(w), Some(config(w)), Bits::Eight).unwrap()
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let power: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
    (error / power).sqrt()
}

#[test]
fn imported_decoders_sound_like_the_classes_of_transformers() {
    for kind in ["neucodec", "xcodec2"] {
        let golden = Golden::load(kind, "small");
        let got = small(&format!("parity-{kind}"), &golden);
        assert_eq!(got.codec.kind, CodecKind::Windowed);
        assert_eq!(got.audio.hop as usize, golden.number("hop"));
        assert_eq!(got.audio.fft_size as usize, golden.number("fft_size"));
        assert_eq!(got.audio.frame_rate_hz, 800);
        let pool = Pool::new(kernel::best(), 1);
        let decode = |pool: &Arc<Pool>| {
            CodecDecoder::whole(&got.model, pool, &got.audio, &got.codec, &golden.tokens()).unwrap()
        };
        let pcm = decode(&pool);
        let error = relative(&pcm, &golden.pcm);
        println!("{kind}: relative error {error:.4}");
        assert!(error < 0.04, "{kind}: {error}");
        // The first and the last frame as well as the others: windows overlap less there.
        let hop = golden.number("hop");
        for end in [0..2 * hop, pcm.len() - 2 * hop..pcm.len()] {
            let error = relative(&pcm[end.clone()], &golden.pcm[end]);
            assert!(error < 0.05, "{kind} at an end: {error}");
        }
        for kernel in kernel::all() {
            for threads in [1, 3] {
                assert!(
                    decode(&Pool::new(kernel, threads)) == pcm,
                    "{kernel:?}, {threads} threads"
                );
            }
        }
        // 4 bits are not far off, and it is the weights that are.
        let w = Widths { fft: golden.number("fft_size"), ..SMALL };
        let four =
            import(&format!("four-{kind}"), &weights(w), Some(config(w)), Bits::Four).unwrap();
        let coarse =
            CodecDecoder::whole(&four.model, &pool, &four.audio, &four.codec, &golden.tokens());
        let coarse = relative(&coarse.unwrap(), &golden.pcm);
        assert!(error < coarse && coarse < 0.5, "{kind}: {coarse} in 4 bits");
    }
}

/// The released decoders: 1,024 wide, 12 layers, weights by the same formula.
#[test]
#[ignore = "makes 740 MB of weights and quantises them"]
fn a_decoder_of_the_released_size_sounds_like_the_class_of_transformers() {
    let golden = Golden::load("neucodec", "full");
    let w = Widths { fft: golden.number("fft_size"), ..FULL };
    let got = import("full", &weights(w), None, Bits::Eight).unwrap();
    assert_eq!((got.audio.sample_rate_hz, got.audio.hop), (24_000, 480));
    let pool = Pool::new(kernel::best(), 2);
    let pcm = CodecDecoder::whole(&got.model, &pool, &got.audio, &got.codec, &golden.tokens());
    let error = relative(&pcm.unwrap(), &golden.pcm);
    println!("relative error {error:.4}");
    assert!(error < 0.04, "{error}");
}

/// The same weights under the releases' names, q, k and v in one matrix, are the same file.
#[test]
fn both_ways_of_naming_give_the_same_decoder() {
    let w = Widths { heads: 1, fft: 160, layers: 1, ..SMALL };
    let all = weights(w);
    let a =
        import("names-a", &all, Some(json!({ "num_attention_heads": 1 })), Bits::Eight).unwrap();
    let b = import("names-b", &released(&all), None, Bits::Eight).unwrap();
    assert!(a.data == b.data);
    assert_eq!((a.audio.sample_rate_hz, a.audio.frame_rate_hz), (2_000, 50));
    assert_eq!(a.audio, b.audio);
}

#[test]
fn what_is_no_such_decoder_is_refused() {
    let w = Widths { fft: 120, layers: 1, ..SMALL };
    let all = weights(w);
    let refused = |name: &str, change: &dyn Fn(&mut Weights)| {
        let mut changed = all.clone();
        change(&mut changed);
        match import(name, &changed, Some(config(w)), Bits::Eight) {
            Ok(_) => panic!("{name} was taken"),
            Err(e) => (e.kind(), e.to_string()),
        }
    };
    let (kind, text) = refused("none", &|t| {
        t.remove("quantizer.project_out.weight");
    });
    assert_eq!(kind, ErrorKind::Unsupported, "{text}");
    let (kind, text) = refused("missing", &|t| {
        t.remove("acoustic_decoder.prior_net.1.conv2.weight");
    });
    assert!(kind == ErrorKind::Malformed && text.contains("prior_net.1.conv2"), "{text}");
    let (kind, text) = refused("shape", &|t| {
        let conv = t.get_mut("acoustic_decoder.embed.weight").unwrap();
        conv.0 = vec![64, 7, 64];
    });
    assert!(kind == ErrorKind::Mismatch && text.contains("[64, 7, 64]"), "{text}");
    let (kind, text) = refused("more", &|t| {
        t.insert("acoustic_decoder.prior_net.0.gate".into(), (vec![1], vec![1.0]));
    });
    assert!(kind == ErrorKind::Unsupported && text.contains("prior_net.0.gate"), "{text}");
    let (kind, text) = refused("numbers", &|t| {
        t.get_mut("acoustic_decoder.layers.0.mlp.fc1.weight").unwrap().1[7] = f32::NAN;
    });
    assert!(kind == ErrorKind::Malformed && text.contains("fc1"), "{text}");
    let heads = |n| import("heads", &all, Some(json!({ "num_attention_heads": n })), Bits::Eight);
    assert_eq!(heads(3).err().map(|e| e.kind()), Some(ErrorKind::Unsupported));
}

#[test]
fn streams_start_early_and_do_not_depend_on_the_pushes() {
    let golden = Golden::load("neucodec", "small");
    let got = small("streams", &golden);
    let pool = Pool::new(kernel::best(), 1);
    let hop = golden.number("hop");
    let tokens: Vec<u32> = (0..230u32).map(|i| i.wrapping_mul(40_503) % 65_536).collect();
    for reference in [&[][..], &tokens[..60], &tokens[..150]] {
        let fresh = |pool| {
            CodecDecoder::with_reference(&got.model, pool, &got.audio, &got.codec, reference)
                .unwrap()
        };
        let mut decoder = fresh(&pool);
        let mut pcm = Vec::new();
        let mut heard = None;
        for (i, t) in tokens.iter().enumerate() {
            decoder.push(&[*t], &mut pcm).unwrap();
            if heard.is_none() && !pcm.is_empty() {
                heard = Some(i + 1);
            }
        }
        assert_eq!(heard, Some(10), "tokens before the first sound");
        decoder.finish(&mut pcm).unwrap();
        assert_eq!(pcm.len(), tokens.len() * hop);
        for size in [2, 9, 26, 230] {
            let mut again = Vec::new();
            for part in tokens.chunks(size) {
                decoder.push(part, &mut again).unwrap();
            }
            decoder.finish(&mut again).unwrap();
            assert!(again == pcm, "pushes of {size}");
        }
        // Streams of every length end whole, and one that was dropped leaves no trace.
        for n in [0, 1, 4, 10, 11, 33] {
            let mut short = Vec::new();
            decoder.push(&tokens[..n], &mut short).unwrap();
            decoder.finish(&mut short).unwrap();
            assert_eq!(short.len(), n * hop);
        }
        decoder.push(&tokens[..77], &mut Vec::new()).unwrap();
        decoder.reset();
        let mut again = Vec::new();
        decoder.push(&tokens, &mut again).unwrap();
        decoder.finish(&mut again).unwrap();
        assert!(again == pcm, "after a stream that was dropped");
        let other = kernel::all()[1];
        let mut threads = Vec::new();
        let mut decoder = fresh(&Pool::new(other, 3));
        decoder.push(&tokens, &mut threads).unwrap();
        decoder.finish(&mut threads).unwrap();
        assert!(threads == pcm, "{other:?}, three threads");
    }
    // What is shorter than the first window is decoded at once.
    let whole =
        CodecDecoder::whole(&got.model, &pool, &got.audio, &got.codec, &tokens[..9]).unwrap();
    let mut decoder = CodecDecoder::new(&got.model, &pool, &got.audio, &got.codec).unwrap();
    let mut short = Vec::new();
    decoder.push(&tokens[..9], &mut short).unwrap();
    decoder.finish(&mut short).unwrap();
    assert!(short == whole);
}

/// The kept past against decoding at once: the more of it and of what comes, the nearer.
#[test]
fn windows_come_close_to_the_whole() {
    let golden = Golden::load("xcodec2", "small");
    let mut got = small("close", &golden);
    let pool = Pool::new(kernel::best(), 1);
    let tokens: Vec<u32> = (0..300u32).map(|i| i.wrapping_mul(40_503) % 65_536).collect();
    let whole = CodecDecoder::whole(&got.model, &pool, &got.audio, &got.codec, &tokens).unwrap();
    let mut far = |ahead: u32, back: u32| {
        (got.codec.ahead_frames, got.codec.back_frames) = (Some(ahead), Some(back));
        got.codec.first_frames = Some(ahead + 5);
        let mut d = CodecDecoder::new(&got.model, &pool, &got.audio, &got.codec).unwrap();
        let mut pcm = Vec::new();
        d.push(&tokens, &mut pcm).unwrap();
        d.finish(&mut pcm).unwrap();
        // The last third: the norms have seen enough by then.
        let from = pcm.len() * 2 / 3;
        relative(&pcm[from..], &whole[from..])
    };
    let (blind, seeing, long) = (far(0, 100), far(5, 100), far(12, 300));
    println!("ahead 0: {blind:.3}, ahead 5: {seeing:.3}, ahead 12 and all of the past: {long:.3}");
    assert!(long < seeing && seeing < blind, "{long} {seeing} {blind}");
    assert!(long < 0.3, "{long}");
}

#[test]
fn a_window_longer_than_its_session_is_refused() {
    let golden = Golden::load("xcodec2", "small");
    let got = small("long", &golden);
    let mut s = CodecSession::with_past(&got.model, &Pool::new(kernel::best(), 1), 4, 8).unwrap();
    let e = s.pass(&[1; 9], 3).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    s.pass(&[1; 8], 3).unwrap();
}

/// A description that contradicts its graph is refused, whichever of the two is wrong.
#[test]
fn a_description_must_be_that_of_the_graph() {
    let golden = Golden::load("xcodec2", "small");
    let got = small("facts", &golden);
    let pool = Pool::new(kernel::best(), 1);
    let refused = |audio: &str, kind: &str| {
        let audio: Audio = toml::from_str(audio).unwrap();
        let codec: Codec =
            toml::from_str(&format!("file = \"x\"\nlatency_samples = 0\nkind = {kind:?}")).unwrap();
        let e = CodecDecoder::new(&got.model, &pool, &audio, &codec).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{e}");
        e.to_string()
    };
    let audio = |rate: u32, fft: u32, hop: u32| {
        format!(
            "sample_rate_hz = {rate}\nframe_rate_hz = 800\nfft_size = {fft}\nhop = {hop}\nmax_log_magnitude = 4.6"
        )
    };
    assert!(refused(&audio(16_000, 80, 20), "causal").contains("both ways"));
    assert!(refused(&audio(16_000, 160, 20), "windowed").contains("162"));
    assert!(refused(&audio(32_000, 80, 20), "windowed").contains("spectra a token"));
    // And a causal decoder that is said to need windows.
    let tiny = voxgrain::Voice::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny"));
    let tiny = tiny.unwrap();
    let mut codec = tiny.bundle().codec.clone();
    codec.kind = CodecKind::Windowed;
    let e = CodecDecoder::new(tiny.codec(), &pool, &tiny.bundle().audio, &codec).unwrap_err();
    assert!(e.to_string().contains("back alone"), "{e}");
}
