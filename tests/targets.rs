//! Device profiles, and what the build machine expects of an emulated CPU.
#![cfg(feature = "std")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::path::Path;
use voxgrain::kernel::{self, Attend, Bits, Kernel, QuantizedRows, SCALE_BLOCK, TILE};

/// One kernel call of the sizes that the models use, for counting instructions
/// (targets/cross/count.sh): `VOXGRAIN_WORK="<kernel> <function> <rows> <repetitions>"`.
#[test]
#[ignore = "a workload, not a check"]
fn work() {
    let spec = std::env::var("VOXGRAIN_WORK").expect("VOXGRAIN_WORK");
    let spec: Vec<&str> = spec.split_whitespace().collect();
    let kernel = kernel::all().into_iter().find(|k| k.name() == spec[0]).expect("kernel");
    let (m, n): (usize, usize) = (spec[2].parse().unwrap(), spec[3].parse().unwrap());
    let mut rng = StdRng::seed_from_u64(1);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random::<f32>() - 0.5).collect() };
    let half =
        |x: Vec<f32>| -> Vec<u16> { x.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect() };
    match spec[1] {
        f @ ("qgemm8" | "qgemm4") => {
            let bits = if f == "qgemm8" { Bits::Eight } else { Bits::Four };
            let (k, tiles) = (512, 8);
            let packed = vec![0x5a; tiles * k / SCALE_BLOCK * bits.bytes_per_block()];
            let scales = half(vec![0.01; tiles * k / SCALE_BLOCK * TILE]);
            let mut x = QuantizedRows::default();
            x.fill(kernel, &floats(m * k), k);
            let mut out = vec![0.0; tiles * m * TILE];
            repeat(n, || kernel.qgemm(bits, &packed, &scales, &x, &mut out));
        }
        "attend" => {
            let (d, len) = (64, 256);
            let (q, keys, values) = (floats(m * d), half(floats(len * d)), half(floats(len * d)));
            let lens = vec![len; m];
            let a =
                Attend { q: &q, lens: &lens, keys: &keys, values: &values, head_dim: d, next: &[] };
            let (mut scores, mut out) = (vec![0.0; a.scratch()], vec![0.0; m * d]);
            repeat(n, || kernel.attend(&a, &mut scores, &mut out));
        }
        "factor_logits" => {
            let (scores, mut out) = (floats(480), vec![0.0; 65536]);
            repeat(n, || kernel.factor_logits(&scores, &mut out));
        }
        "softmax" => {
            let (logits, mut p, mut s) = (floats(65536), vec![0.0; 65536], vec![0.0; 256]);
            repeat(n, || _ = kernel.softmax(&logits, 1.0, &mut p, &mut s));
        }
        "quantize" => {
            let x = floats(512);
            let (mut q, mut s, mut t) = (vec![0; 512], vec![0.0; 16], vec![0; 16]);
            repeat(n, || kernel.quantize(&x, &mut q, &mut s, &mut t));
        }
        "rms_norm" => {
            let (x, w, mut o) = (floats(512), floats(512), vec![0.0; 512]);
            repeat(n, || kernel.rms_norm(&x, &w, 1e-5, &mut o));
        }
        "swiglu" => {
            let (x, w, mut o) = (floats(1024), floats(1024), vec![0.0; 1024]);
            repeat(n, || kernel.swiglu(&x, &w, &mut o));
        }
        "gelu_erf" => {
            let mut x = floats(1024);
            repeat(n, || kernel.gelu_erf(&mut x));
        }
        "conv" => {
            let (x, w, b, mut o) = (floats(7 * 384), floats(7 * 384), floats(384), vec![0.0; 384]);
            repeat(n, || kernel.conv(&x, &w, &b, &mut o));
        }
        "to_half" => {
            let (x, mut o) = (floats(512), vec![0; 512]);
            repeat(n, || kernel.to_half(&x, &mut o));
        }
        "sum_rows" => {
            let (table, rows) =
                (half(floats(480 * 512)), (0..36).map(|i| i * 13).collect::<Vec<_>>());
            let mut o = vec![0.0; 512];
            repeat(n, || kernel.sum_rows(&table, &rows, &mut o));
        }
        f => panic!("no function {f}"),
    }
}

fn repeat(n: usize, mut f: impl FnMut()) {
    (0..n).for_each(|_| f());
}

/// 64-bit FNV-1a over the bits of everything a kernel computes on fixed inputs.
fn digest(kernel: Kernel) -> u64 {
    let mut rng = StdRng::seed_from_u64(11);
    let mut floats = |n: usize, scale: f32| -> Vec<f32> {
        (0..n).map(|_| (rng.random::<f32>() - 0.5) * scale).collect()
    };
    let half = |x: &[f32]| -> Vec<u16> {
        let mut o = vec![0; x.len()];
        kernel.to_half(x, &mut o);
        o
    };
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |x: &[f32]| {
        for byte in x.iter().flat_map(|v| v.to_bits().to_le_bytes()) {
            hash = (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let (k, tiles, m) = (352, 3, 11);
    let x = floats(m * k, 6.0);
    let mut rows = QuantizedRows::default();
    rows.fill(kernel, &x, k);
    let scales = half(&floats(tiles * k / SCALE_BLOCK * TILE, 0.02));
    for bits in [Bits::Eight, Bits::Four] {
        let packed: Vec<u8> = floats(tiles * k / SCALE_BLOCK * bits.bytes_per_block(), 256.0)
            .iter()
            .map(|v| (v + 128.0) as u8)
            .collect();
        let mut out = vec![0.0; tiles * m * TILE];
        kernel.qgemm(bits, &packed, &scales, &rows, &mut out);
        add(&out);
    }
    let (w, b, mut o) = (floats(k, 2.0), floats(k, 2.0), vec![0.0; k]);
    let x = &x[..k];
    kernel.rms_norm(x, &w, 1e-5, &mut o);
    add(&o);
    kernel.layer_norm(x, &w, &b, 1e-6, &mut o);
    add(&o);
    kernel.swiglu(x, &w, &mut o);
    add(&o);
    o.copy_from_slice(x);
    kernel.gelu_tanh(&mut o);
    add(&o);
    o.copy_from_slice(x);
    kernel.gelu_erf(&mut o);
    add(&o);
    kernel.conv(&floats(7 * k, 2.0), &floats(7 * k, 2.0), &b, &mut o);
    add(&o);
    kernel.sum_rows(&half(&floats(36 * k, 2.0)), &(0..36).rev().collect::<Vec<_>>(), &mut o);
    add(&o);
    let mut logits = vec![0.0; 65536];
    kernel.factor_logits(&floats(480, 4.0), &mut logits);
    let (mut p, mut s) = (vec![0.0; 65536], vec![0.0; 256]);
    let max = kernel.softmax(&logits, 1.25, &mut p, &mut s);
    add(&[max]);
    add(&p);
    add(&s);
    let (d, n, r) = (80, 37, 6);
    let (q, keys, values) =
        (floats(r * d, 2.0), half(&floats(48 * d, 2.0)), half(&floats(n * d, 2.0)));
    let lens: Vec<usize> = (0..r).map(|i| n - i).collect();
    let a = Attend { q: &q, lens: &lens, keys: &keys, values: &values, head_dim: d, next: &[] };
    let mut o = vec![0.0; r * d];
    kernel.attend(&a, &mut vec![0.0; a.scratch()], &mut o);
    add(&o);
    hash
}

/// What one machine says, every machine says: the number is the same on x86-64, AArch64 and
/// 32-bit ARM.
#[test]
fn results_are_the_same_on_every_architecture() {
    for kernel in kernel::all() {
        assert_eq!(digest(kernel), 11_829_071_138_019_585_073, "{}", kernel.name());
    }
}

/// The cross set-up names the kernels that the emulated CPU must have
/// (`VOXGRAIN_EXPECT_KERNELS="scalar neon"`), so that a test of a kernel cannot pass by not
/// running it.
#[test]
fn the_expected_kernels_are_here() {
    let have: Vec<_> = kernel::all().iter().map(|k| k.name()).collect();
    println!("kernels: {}", have.join(" "));
    if let Ok(want) = std::env::var("VOXGRAIN_EXPECT_KERNELS") {
        assert_eq!(have.join(" "), want);
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
    triple: String,
    rustflags: String,
    kernel: String,
    qemu_cpu: Option<String>,
    tested: String,
    cpu: Cpu,
    memory: Memory,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cpu {
    model: String,
    features: Vec<String>,
    cores: u32,
    threads: u32,
    clock_ghz: f64,
    instructions_per_cycle: f64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    smallest_board_mb: u32,
    budget_mb: u32,
    expected_gb_s: f64,
    peak_gb_s: f64,
    peak_source: String,
    memcpy_gb_s: Option<f64>,
    memcpy_source: Option<String>,
}

/// Every profile says the same things, and nothing that cannot be.
#[test]
fn device_profiles_are_whole() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let mut profiles = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let profile: Profile =
                toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            profiles.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), profile);
        }
    }
    assert!(profiles.len() >= 8, "{} profiles in {}", profiles.len(), dir.display());
    for (id, p) in profiles {
        let arch = p.triple.split('-').next().unwrap();
        let kernels: &[&str] = match arch {
            "aarch64" => &["neon", "neon-dotprod"],
            "armv7" => &["portable"],
            "x86_64" => &["portable", "avx2", "avx512-vnni"],
            _ => panic!("{id}: {} has no cross set-up", p.triple),
        };
        assert!(kernels.contains(&p.kernel.as_str()), "{id}: kernel {}", p.kernel);
        let dotprod = p.cpu.features.iter().any(|f| f == "dotprod");
        assert_eq!(p.kernel == "neon-dotprod", dotprod, "{id}: kernel against features");
        match p.tested.as_str() {
            "emulated" => assert!(p.qemu_cpu.is_some(), "{id}: emulated by what?"),
            "host" | "device" => {}
            t => panic!("{id}: tested = {t}"),
        }
        // build.sh reads these with sed: one line, no quotes inside.
        for v in [&p.triple, &p.rustflags] {
            assert!(!v.contains(['"', '\\', '\n']), "{id}: {v}");
        }
        assert!(p.cpu.threads >= 1 && p.cpu.threads <= p.cpu.cores, "{id}: threads");
        assert!((0.5..6.0).contains(&p.cpu.clock_ghz), "{id}: clock");
        assert!((0.3..4.0).contains(&p.cpu.instructions_per_cycle), "{id}: instructions");
        assert!(p.memory.budget_mb * 2 <= p.memory.smallest_board_mb, "{id}: budget");
        assert!(p.memory.peak_gb_s > 0.0 && !p.memory.peak_source.is_empty(), "{id}: peak");
        assert_eq!(p.memory.memcpy_gb_s.is_some(), p.memory.memcpy_source.is_some(), "{id}");
        assert!(2.0 * p.memory.memcpy_gb_s.unwrap_or(0.0) < p.memory.peak_gb_s, "{id}: memcpy");
        let expected = p.memory.memcpy_gb_s.map_or(p.memory.peak_gb_s / 2.0, |copy| 2.0 * copy);
        assert!((p.memory.expected_gb_s - expected).abs() < 0.06, "{id}: {expected} GB/s expected");
        assert!(!p.name.is_empty() && !p.cpu.model.is_empty(), "{id}");
    }
}
