//! Stock models to the interleaved layout, without loss.

use super::output::{Output, unwritable};
use super::wire;
use crate::bundle::{self, Bundle};
use crate::engine::load::{DOMAIN, Loader};
use crate::engine::nbits::{self, Stock};
use crate::engine::node::Tensors;
use crate::engine::pb;
use crate::kernel::{PackedShape, RowMajor, RowScales, TILE};
use crate::map::{Map, MappedSlice};
use crate::part::{self, Part};
use crate::{Error, ErrorKind, Result, asg};
use half::f16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What [`pack`] made of one model.
#[derive(Debug, Clone, Default)]
pub struct PackReport {
    /// Nodes that are `QMatMul` now.
    pub packed: Vec<String>,
    /// Nodes that stay `MatMulNBits`, and why.
    pub kept: Vec<(String, String)>,
    /// Bytes of the data file before.
    pub bytes_before: u64,
    /// Bytes of the data file after.
    pub bytes_after: u64,
}

/// What is written for a tensor.
enum Content {
    /// The bytes as they are.
    Same(MappedSlice),
    Weights(MappedSlice, PackedShape),
    /// Scales, as f16 if the flag says so.
    Scales(MappedSlice, bool, PackedShape),
}

/// Where a tensor went.
struct Stored {
    offset: u64,
    length: u64,
    /// ONNX type and shape, where they changed.
    changed: Option<(u64, Vec<u64>)>,
}

/// Rewrites the `MatMulNBits` nodes of the model `input` (with its data in `<input>.data`) as
/// `ai.voxgrain.QMatMul` and writes the model `output` and `<output>.data`.
///
/// Every weight and scale keeps its value, so the logits keep their bits. A node stays as it
/// is where that cannot be: scales that f16 does not hold exactly, zero points of its own, or
/// tensors that something else reads as well. Everything else of the graph is copied byte by
/// byte. Both files appear when both are complete, and an earlier model at `output` gives way
/// to them as a whole; one tile of 16 rows is in memory at a time. `progress` gets bytes done and bytes in all.
///
/// # Errors
/// `InvalidArgument` if `output` is `input`, or exists and `force` is not set, or there is
/// nothing to pack; `Unwritable`; and those of [`Model::load`](crate::engine::Model::load).
pub fn pack(
    input: &Path,
    output: &Path,
    force: bool,
    progress: impl FnMut(u64, u64),
) -> Result<PackReport> {
    let (report, parts) = pack_parts(input, output, force, progress)?;
    part::finish_all(parts).map_err(|e| unwritable(output, e))?;
    Ok(report)
}

/// The data file and the graph, written and not yet in their places.
fn pack_parts(
    input: &Path,
    output: &Path,
    force: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<(PackReport, Vec<Part>)> {
    let (output_data, input_data) = (with_suffix(output, ".data"), with_suffix(input, ".data"));
    for path in [output, &output_data] {
        if same_file(path, input) || same_file(path, &input_data) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{} is the input: name another output", path.display()),
            ));
        }
        free(path, force)?;
    }
    let file_name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let graph_file = Map::open(input)?;
    let data = Map::open(&input_data)?;
    let bytes_before = data.len() as u64;
    let loader = Loader::new(&file_name(input), data);
    let proto = loader.parse(&graph_file)?;
    let graph = proto.graph.as_ref().ok_or_else(|| loader.bad("no graph"))?;

    let mut tensors = Tensors::new();
    for t in &graph.initializer {
        if let Some((slice, info)) = loader.external(t)? {
            tensors.insert(t.name.clone(), (slice, info));
        }
    }
    let external: HashSet<String> = tensors.keys().cloned().collect();
    loader.inline(graph, &mut tensors)?;

    if !graph.node.iter().any(nbits::is) {
        return Err(nothing(input));
    }
    let mut report = PackReport { bytes_before, ..PackReport::default() };
    let chosen = choose(graph, &tensors, &mut report)?;
    let mut contents = HashMap::new();
    let mut dropped = HashSet::new();
    for (node, stock) in graph.node.iter().zip(&chosen) {
        let Some(stock) = stock else { continue };
        let name = |at: usize| node.input[at].clone();
        contents.insert(name(nbits::WEIGHTS), Content::Weights(stock.weights.clone(), stock.shape));
        let scales = Content::Scales(stock.scales.clone(), stock.half, stock.shape);
        contents.insert(name(nbits::SCALES), scales);
        dropped.extend(nbits::input(node, nbits::ZERO_POINTS).map(str::to_owned));
    }
    for (node, _) in graph.node.iter().zip(&chosen).filter(|(_, stock)| stock.is_none()) {
        let mut names = HashSet::new();
        read_by(node, &mut names);
        dropped.retain(|n| !names.contains(n));
    }

    let mut writer = Output::create(&output_data)?;
    let total: u64 = graph
        .initializer
        .iter()
        .filter_map(|t| tensors.get(&t.name))
        .map(|(_, info)| info.bytes as u64)
        .sum();
    let mut done = 0;
    let mut stored = HashMap::new();
    for t in &graph.initializer {
        let Some((slice, _)) = tensors.get(&t.name) else { continue };
        if dropped.contains(&t.name) {
            continue;
        }
        let content = match contents.remove(&t.name) {
            Some(content) => content,
            None if external.contains(&t.name) => Content::Same(slice.clone()),
            None => continue,
        };
        let to = write_tensor(&mut writer, content, |bytes| progress(done + bytes, total))?;
        done += slice.len() as u64;
        progress(done, total);
        stored.insert(t.name.clone(), to);
    }
    report.bytes_after = writer.offset();

    let location = format!("{}.data", file_name(output));
    let rewrite =
        Rewrite { graph, chosen: &chosen, stored: &stored, dropped: &dropped, location: &location };
    let rewritten = rewrite.model(&graph_file).ok_or_else(|| loader.bad("not an ONNX model"))?;
    let mut graph_writer = Output::create(output)?;
    graph_writer.write(&rewritten)?;
    // The graph makes sense of the data.
    Ok((report, vec![writer.end()?.0, graph_writer.end()?.0]))
}

/// Packs every model of the bundle in the folder `input` into a bundle in `output`: the other
/// files are copied, lengths and checksums in `bundle.toml` follow, and the group index, which
/// names the checksum of the target it was built for, is written into the folder under the new one.
/// An earlier bundle in `output` stays as it is until all files of the new one are complete, and
/// has no `bundle.toml` while they take their places.
///
/// `progress` gets the file, bytes done and bytes in all. Returns a report a packed model.
///
/// # Errors
/// As for [`pack`] and [`Bundle::open`].
pub fn pack_bundle(
    input: &Path,
    output: &Path,
    force: bool,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<Vec<(String, PackReport)>> {
    let bundle = Bundle::open(input)?;
    if same_file(bundle.dir(), output) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is the input: name another folder", output.display()),
        ));
    }
    let description = output.join(bundle::FILE_NAME);
    free(&description, force)?;
    let graphs: Vec<&str> =
        bundle.files.iter().map(|f| f.path.as_str()).filter(|p| p.ends_with(".onnx")).collect();
    let mut stock = HashSet::new();
    for path in &graphs {
        if stock_nodes(&bundle.dir().join(path))? > 0 {
            stock.insert(*path);
        }
    }
    if stock.is_empty() {
        return Err(nothing(input));
    }
    std::fs::create_dir_all(output).map_err(|e| unwritable(output, e))?;
    let mut reports = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    let mut written = HashSet::new();
    for path in graphs.iter().filter(|p| stock.contains(*p)) {
        let from = bundle.dir().join(path);
        let to = output.join(path);
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(|e| unwritable(dir, e))?;
        }
        let (report, both) =
            pack_parts(&from, &to, force, |done, total| progress(path, done, total))?;
        parts.extend(both);
        written.extend([path.to_string(), format!("{path}.data")]);
        reports.push((path.to_string(), report));
    }
    for f in bundle.files.iter().filter(|f| !written.contains(&f.path)) {
        let to = output.join(&f.path);
        free(&to, force)?;
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(|e| unwritable(dir, e))?;
        }
        let mut out = Output::create(&to)?;
        out.write(&Map::open(bundle.dir().join(&f.path))?)?;
        parts.push(out.end()?.0);
    }

    let mut facts = HashMap::new();
    for f in &bundle.files {
        let to = output.join(&f.path);
        let Some(part) = parts.iter().find(|p| p.path() == to) else { continue };
        let map = Map::open(part.temporary())?;
        facts.insert(f.path.clone(), (map.len() as u64, sha256(&map)));
    }
    let mut groups = None;
    if let Some(index) = bundle.groups_path().filter(|p| p.exists()) {
        let mut bytes = Map::open(&index)?.to_vec();
        let weights = format!("{}.data", bundle.target.file);
        let digest = |hex: Option<&str>| hex.and_then(from_hex);
        if let (Some(old), Some(new)) = (
            digest(bundle.listed_sha256(&weights)),
            digest(facts.get(&weights).map(|(_, sha)| sha.as_str())),
        ) {
            asg::retarget(&mut bytes, &old, &new).map_err(|e| {
                let what = format!("{} cannot be bound to the new weights", index.display());
                Error::with_source(ErrorKind::Malformed, what, e)
            })?;
        }
        let name = index.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = output.join(&name);
        free(&to, force)?;
        let mut out = Output::create(&to)?;
        out.write(&bytes)?;
        parts.push(out.end()?.0);
        groups = Some(name);
    }

    let text = std::fs::read_to_string(bundle.dir().join(bundle::FILE_NAME))
        .map_err(|e| unwritable(bundle.dir(), e))?;
    let text = describe(&text, &facts, groups.as_deref());
    let parsed = Bundle::parse(&text, output)?;
    let right =
        parsed.files.iter().all(|f| facts.get(&f.path) == Some(&(f.bytes, f.sha256.clone())))
            && (groups.is_none() || parsed.groups.as_ref().map(|g| &g.file) == groups.as_ref());
    if !right {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} lists its files in a form that cannot be edited: write one key a line",
                bundle.dir().join(bundle::FILE_NAME).display()
            ),
        ));
    }
    let mut out = Output::create(&description)?;
    out.write(text.as_bytes())?;
    parts.push(out.end()?.0);
    part::finish_all(parts).map_err(|e| unwritable(output, e))?;
    Ok(reports)
}

/// `MatMulNBits` nodes of a model.
pub fn stock_nodes(path: &Path) -> Result<usize> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let graph = Loader::new(&name, Map::from_vec(vec![])).parse(&Map::open(path)?)?.graph;
    Ok(graph.iter().flat_map(|g| &g.node).filter(|n| nbits::is(n)).count())
}

/// The content of each node that is to be packed.
fn choose(
    graph: &pb::GraphProto,
    tensors: &Tensors,
    report: &mut PackReport,
) -> Result<Vec<Option<Stock>>> {
    let mut stocks = Vec::new();
    for node in &graph.node {
        stocks.push(match nbits::is(node) {
            true => Some(nbits::read(node, |name| {
                tensors.get(name).map(|(s, i)| (s, i.data_type.as_str(), i.dims.as_slice()))
            })?),
            false => None,
        });
    }
    // Who reads what: a tensor that changes must change for all of its readers.
    let mut readers: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        let mut names = HashSet::new();
        read_by(node, &mut names);
        names.into_iter().for_each(|n| readers.entry(n).or_default().push(i));
    }
    let outputs: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let alike = |a: usize, b: usize| {
        let key = |i: usize| {
            let node = &graph.node[i];
            let at = |p: usize| nbits::input(node, p);
            stocks[i].as_ref().map(|s| (s.shape, at(nbits::WEIGHTS), at(nbits::SCALES)))
        };
        key(a).is_some() && key(a) == key(b)
    };
    let why_not = |i: usize| -> Option<&str> {
        let (node, stock) = (&graph.node[i], stocks[i].as_ref()?);
        if stock.zero_points.is_some() {
            return Some("it has zero points of its own, for which the layout has no place");
        }
        if !stock.half && !stock.scales.as_f32().unwrap_or_default().iter().all(|s| exact(*s)) {
            return Some("f16 does not hold its scales exactly");
        }
        let shared = [nbits::WEIGHTS, nbits::SCALES].iter().any(|&p| {
            let name = node.input[p].as_str();
            outputs.contains(name)
                || readers.get(name).is_some_and(|r| r.iter().any(|&other| !alike(i, other)))
        });
        shared.then_some("another node reads its weights in another way")
    };
    let mut reasons: Vec<Option<&str>> = (0..stocks.len()).map(why_not).collect();
    // One of several that share a weight stays: so do the others.
    for i in 0..stocks.len() {
        if stocks[i].is_some()
            && reasons[i].is_none()
            && (0..stocks.len()).any(|j| alike(i, j) && reasons[j].is_some())
        {
            reasons[i] = Some("a node that shares its weights stays");
        }
    }
    for (i, node) in graph.node.iter().enumerate() {
        match (&stocks[i], reasons[i]) {
            (Some(_), None) => report.packed.push(node.name.clone()),
            (Some(_), Some(why)) => {
                report.kept.push((node.name.clone(), why.into()));
                stocks[i] = None;
            }
            (None, _) => {}
        }
    }
    Ok(stocks)
}

/// Names that a node reads, its subgraphs included.
fn read_by(node: &pb::NodeProto, names: &mut HashSet<String>) {
    names.extend(node.input.iter().filter(|n| !n.is_empty()).cloned());
    for g in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        g.node.iter().for_each(|n| read_by(n, names));
        names.extend(g.output.iter().map(|o| o.name.clone()));
    }
}

fn exact(scale: f32) -> bool {
    f16::from_f32(scale).to_f32().to_bits() == scale.to_bits()
}

fn write_tensor(
    out: &mut Output,
    content: Content,
    mut progress: impl FnMut(u64),
) -> Result<Stored> {
    out.align()?;
    let offset = out.offset();
    let changed = match content {
        Content::Same(slice) => {
            for part in slice.chunks(1 << 20) {
                out.write(part)?;
                progress(out.offset() - offset);
            }
            None
        }
        Content::Weights(slice, shape) => {
            let PackedShape { bits, .. } = shape;
            let row = shape.blocks() * bits.bytes_per_row_block();
            let mut tile = vec![0; shape.blocks() * bits.bytes_per_block()];
            for rows in slice.chunks(row * TILE) {
                RowMajor::interleave(bits, shape.blocks(), rows, &mut tile);
                out.write(&tile)?;
                progress((out.offset() - offset).min(slice.len() as u64));
            }
            let (tiles, blocks) = (shape.tiles() as u64, shape.blocks() as u64);
            let dims = [tiles, blocks, shape_bits(shape), TILE as u64, 4];
            // ONNX: 2 is uint8.
            Some((2, dims.to_vec()))
        }
        Content::Scales(slice, half, shape) => {
            let scales = if half {
                RowScales::F16(slice.as_f16()?.reinterpret_cast())
            } else {
                RowScales::F32(slice.as_f32()?)
            };
            let blocks = shape.blocks();
            let mut tile = vec![0u8; blocks * TILE * 2];
            for t in 0..shape.tiles() {
                for (i, to) in tile.chunks_exact_mut(2).enumerate() {
                    let row = t * TILE + i % TILE;
                    let scale = match row < shape.n {
                        true => scales.get(row * blocks + i / TILE),
                        false => 0.0,
                    };
                    to.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                }
                out.write(&tile)?;
            }
            // 10 is float16.
            Some((10, vec![shape.tiles() as u64, blocks as u64, TILE as u64]))
        }
    };
    Ok(Stored { offset, length: out.offset() - offset, changed })
}

fn shape_bits(shape: PackedShape) -> u64 {
    shape.bits.bytes_per_row_block() as u64 / 4
}

/// What a graph file is rewritten by.
struct Rewrite<'a> {
    graph: &'a pb::GraphProto,
    /// Of each node: what it becomes, if it is packed.
    chosen: &'a [Option<Stock>],
    stored: &'a HashMap<String, Stored>,
    dropped: &'a HashSet<String>,
    /// The name of the data file.
    location: &'a str,
}

impl Rewrite<'_> {
    /// The graph file with its new nodes and the new places of its tensors; every other byte as
    /// it was. `None` if it is damaged.
    fn model(&self, file: &[u8]) -> Option<Vec<u8>> {
        let any = self.chosen.iter().any(Option::is_some);
        let stays = |domain: &str| {
            let mut nodes = self.graph.node.iter().zip(self.chosen);
            nodes.any(|(n, stock)| n.domain == domain && stock.is_none())
        };
        let mut own = !any;
        let mut graphs = 0;
        let mut out = Vec::with_capacity(file.len());
        for f in wire::fields(file)? {
            match f.number {
                7 => {
                    graphs += 1;
                    wire::put_bytes(&mut out, 7, &self.graph(f.payload)?);
                }
                // An imported operator set: field 1 is its domain.
                8 => {
                    let parts = wire::fields(f.payload)?;
                    let domain =
                        parts.iter().find(|p| p.number == 1).map_or(&b""[..], |p| p.payload);
                    own |= domain == DOMAIN.as_bytes();
                    if !any || domain != b"com.microsoft" || stays("com.microsoft") {
                        out.extend_from_slice(f.raw);
                    }
                }
                _ => out.extend_from_slice(f.raw),
            }
        }
        if !own {
            let mut set = Vec::new();
            wire::put_bytes(&mut set, 1, DOMAIN.as_bytes());
            wire::put_int(&mut set, 2, 1);
            wire::put_bytes(&mut out, 8, &set);
        }
        (graphs == 1).then_some(out)
    }

    fn graph(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(message.len());
        let (mut nodes, mut tensors, mut inputs) = (0, 0, 0);
        for f in wire::fields(message)? {
            match f.number {
                1 => {
                    match self.chosen.get(nodes)? {
                        Some(stock) => {
                            let node = packed_node(self.graph.node.get(nodes)?, stock);
                            wire::put_bytes(&mut out, 1, &node);
                        }
                        None => out.extend_from_slice(f.raw),
                    }
                    nodes += 1;
                }
                5 => {
                    let name = &self.graph.initializer.get(tensors)?.name;
                    tensors += 1;
                    if self.dropped.contains(name) {
                        continue;
                    }
                    match self.stored.get(name) {
                        Some(stored) => {
                            let t = rewrite_tensor(f.payload, stored, self.location)?;
                            wire::put_bytes(&mut out, 5, &t);
                        }
                        None => out.extend_from_slice(f.raw),
                    }
                }
                // Old writers list initializers among the inputs, with their shapes.
                11 => {
                    let name = &self.graph.input.get(inputs)?.name;
                    inputs += 1;
                    if !self.dropped.contains(name) && !self.stored.contains_key(name) {
                        out.extend_from_slice(f.raw);
                    }
                }
                _ => out.extend_from_slice(f.raw),
            }
        }
        Some(out)
    }
}

fn packed_node(node: &pb::NodeProto, stock: &Stock) -> Vec<u8> {
    let mut out = Vec::new();
    let mut inputs: Vec<&str> = node.input[..=nbits::SCALES].iter().map(String::as_str).collect();
    inputs.extend(nbits::input(node, nbits::BIAS));
    for name in inputs {
        wire::put_bytes(&mut out, 1, name.as_bytes());
    }
    for name in &node.output {
        wire::put_bytes(&mut out, 2, name.as_bytes());
    }
    wire::put_bytes(&mut out, 3, node.name.as_bytes());
    wire::put_bytes(&mut out, 4, b"QMatMul");
    let PackedShape { n, k, .. } = stock.shape;
    for (name, value) in [("N", n as u64), ("K", k as u64), ("bits", shape_bits(stock.shape))] {
        let mut attribute = Vec::new();
        wire::put_bytes(&mut attribute, 1, name.as_bytes());
        wire::put_int(&mut attribute, 3, value);
        // An integer.
        wire::put_int(&mut attribute, 20, 2);
        wire::put_bytes(&mut out, 5, &attribute);
    }
    wire::put_bytes(&mut out, 7, DOMAIN.as_bytes());
    out
}

fn rewrite_tensor(message: &[u8], stored: &Stored, location: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if let Some((data_type, dims)) = &stored.changed {
        dims.iter().for_each(|&d| wire::put_int(&mut out, 1, d));
        wire::put_int(&mut out, 2, *data_type);
    }
    for f in wire::fields(message)? {
        match f.number {
            1 | 2 if stored.changed.is_some() => {}
            // Values in the graph itself, the old place.
            4 | 5 | 9 | 13 | 14 => {}
            _ => out.extend_from_slice(f.raw),
        }
    }
    let (offset, length) = (stored.offset.to_string(), stored.length.to_string());
    for (key, value) in [("location", location), ("offset", &offset), ("length", &length)] {
        let mut entry = Vec::new();
        wire::put_bytes(&mut entry, 1, key.as_bytes());
        wire::put_bytes(&mut entry, 2, value.as_bytes());
        wire::put_bytes(&mut out, 13, &entry);
    }
    wire::put_int(&mut out, 14, 1);
    Some(out)
}

/// `bundle.toml` with new lengths, checksums and index; everything else as it was.
fn describe(text: &str, facts: &HashMap<String, (u64, String)>, groups: Option<&str>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let key = |line: &str, key: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|r| r.trim_start().starts_with('='))
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < lines.len() {
        let end = (at + 1..lines.len())
            .find(|&i| lines[i].trim_start().starts_with('['))
            .unwrap_or(lines.len());
        let section = &lines[at..end];
        let header = section[0].trim();
        let listed = section.iter().find(|l| key(l, "path")).and_then(|l| l.split('"').nth(1));
        for line in section {
            match (header, listed.and_then(|p| facts.get(p)), groups) {
                ("[[files]]", Some((bytes, _)), _) if key(line, "bytes") => {
                    out += &format!("bytes = {bytes}\n");
                }
                ("[[files]]", Some((_, sha)), _) if key(line, "sha256") => {
                    out += &format!("sha256 = \"{sha}\"\n");
                }
                ("[groups]", _, Some(file)) if key(line, "file") => {
                    out += &format!("file = {}\n", toml::Value::from(file));
                }
                _ => out += line,
            }
        }
        at = end;
    }
    out
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    for (i, b) in out.iter_mut().enumerate() {
        *b = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn nothing(input: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{} has no MatMulNBits node: nothing to pack, use it as it is", input.display()),
    )
}

/// Refuses a path that is taken.
fn free(path: &Path, force: bool) -> Result<()> {
    if force || !path.exists() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{} exists: name another output, or give --force", path.display()),
    ))
}
