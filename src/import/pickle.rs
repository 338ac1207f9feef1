//! The tensors of PyTorch files (`torch.save` since 1.6: a zip of stored entries).
//!
//! A pickle is a program, and this reads one without running anything: the opcodes that build
//! tuples, lists and dictionaries, and of calls only those that make tensors of stored bytes.
//! Everything else is refused by its name.

use super::source::{Dtype, Tensor, Tensors, malformed, unsupported};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::Path;
use std::rc::Rc;

/// Longest `data.pkl`: names and shapes, never weights.
const MAX_PICKLE: u64 = 64 << 20;
/// Most values that a pickle makes, and that are looked at to find its tensors.
const MAX_VALUES: usize = 1 << 22;
/// Longest key.
const MAX_KEY: usize = 512;
/// Deepest dictionary of dictionaries.
const MAX_DEPTH: usize = 16;

/// The tensors of one file: of a (nested) dictionary by their keys with points between, of a list
/// by their numbers; a tensor alone has the empty name.
///
/// # Errors
/// `Unreadable`; `Malformed` if the archive or the pickle is damaged; `Unsupported` if it calls
/// anything or its entries are compressed.
pub fn open(path: &Path) -> Result<Tensors> {
    let map = Map::open(path)?;
    let tensors = read(&map)?;
    Ok(Tensors { origin: path.display().to_string(), tensors })
}

/// The same of a file that is in memory.
///
/// # Errors
/// As [`open`].
pub fn read(map: &Map) -> Result<BTreeMap<String, Tensor>> {
    let archive = Archive::open(map)?;
    let text = archive.entry("data.pkl")?;
    if let Some((from, to)) = archive.entries.get("byteorder")
        && map.get(*from..*to).is_some_and(|order| order != b"little")
    {
        return Err(unsupported(format!("{} is big-endian", map.name())));
    }
    if text.len() as u64 > MAX_PICKLE {
        return Err(malformed(format!("{}: its data.pkl is too long", map.name())));
    }
    let (root, made) = Machine::new(text, map.name()).run()?;
    let mut found = Found { archive, made: &made, tensors: BTreeMap::new(), seen: 0, copied: 0 };
    found.collect("", &root, 0)?;
    if found.tensors.is_empty() {
        return Err(malformed(format!("{} holds no tensor", map.name())));
    }
    Ok(found.tensors)
}

/// Where the stored entries of the zip lie, by their names behind the archive's own folder.
struct Archive<'m> {
    map: &'m Map,
    entries: HashMap<String, (usize, usize)>,
}

impl<'m> Archive<'m> {
    fn open(map: &'m Map) -> Result<Self> {
        let bad = |e| {
            let what = format!(
                "{} is no PyTorch zip file; one of before PyTorch 1.6 must be saved again, or take safetensors",
                map.name()
            );
            Error::with_source(ErrorKind::Malformed, what, e)
        };
        let mut zip = zip::ZipArchive::new(Cursor::new(&map[..])).map_err(bad)?;
        let mut entries = HashMap::new();
        for i in 0..zip.len() {
            let file = zip.by_index_raw(i).map_err(bad)?;
            let name = file.name().map_err(bad)?.into_owned();
            if file.compression() != zip::CompressionMethod::Stored {
                return Err(unsupported(format!(
                    "{}: {name:?} is compressed, PyTorch stores its entries: save it again",
                    map.name()
                )));
            }
            let range = file.data_start().and_then(|start| {
                let from = usize::try_from(start).ok()?;
                let to = from.checked_add(usize::try_from(file.size()).ok()?)?;
                (to <= map.len()).then_some((from, to))
            });
            let range = range.ok_or_else(|| {
                malformed(format!("{}: {name:?} lies outside of the file", map.name()))
            })?;
            let short = name.split_once('/').map_or(name.as_str(), |(_, rest)| rest);
            if entries.insert(short.to_owned(), range).is_some() {
                return Err(malformed(format!("{}: {short:?} is there twice", map.name())));
            }
        }
        Ok(Self { map, entries })
    }

    fn range(&self, name: &str) -> Result<(usize, usize)> {
        self.entries.get(name).copied().ok_or_else(|| {
            malformed(format!("{} has no entry {name:?}, is it a PyTorch file?", self.map.name()))
        })
    }

    fn entry(&self, name: &str) -> Result<&'m [u8]> {
        let (from, to) = self.range(name)?;
        Ok(&self.map[from..to])
    }
}

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    /// Places in [`Made`]: nesting owns nothing, so however deep it is, dropping it is flat.
    Tuple(usize),
    List(usize),
    Dict(usize),
    /// Module and name.
    Global(Rc<str>),
    Storage(Dtype, Rc<str>, usize),
    Tensor(Rc<View>),
}

/// What tuples and lists, and dictionaries, hold.
#[derive(Default)]
struct Made {
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Made {
    fn sequence(&self, at: usize) -> &[Value] {
        self.sequences.get(at).map_or(&[], Vec::as_slice)
    }
}

/// A tensor as it is rebuilt: a view of a storage.
#[derive(Debug)]
struct View {
    dtype: Dtype,
    key: Rc<str>,
    elements: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Element type of a storage class.
fn storage(name: &str) -> Option<Dtype> {
    Some(match name.strip_prefix("torch ")? {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

struct Machine<'a> {
    rest: &'a [u8],
    file: &'a str,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    made: Made,
    count: usize,
}

impl<'a> Machine<'a> {
    fn new(rest: &'a [u8], file: &'a str) -> Self {
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Self { rest, file, stack, marks, memo, made: Made::default(), count: 0 }
    }

    fn bad(&self, what: &str) -> Error {
        malformed(format!("{}: its pickle is damaged: {what}", self.file))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let found = self.rest.split_at_checked(n).ok_or_else(|| self.bad("it ends too early"))?;
        self.rest = found.1;
        Ok(found.0)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes::<1>()?[0])
    }

    fn text(&mut self, n: usize) -> Result<Rc<str>> {
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map(Rc::from).map_err(|_| self.bad("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|b| *b == b'\n');
        let end = end.ok_or_else(|| self.bad("a line without end"))?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| self.bad("a name is not UTF-8"))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.count += 1;
        if self.count > MAX_VALUES {
            return Err(self.bad("too many values"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        let base = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= base {
            return Err(self.bad("nothing on its stack"));
        }
        self.stack.pop().ok_or_else(|| self.bad("nothing on its stack"))
    }

    fn top(&self) -> Result<&Value> {
        self.stack.last().ok_or_else(|| self.bad("nothing on its stack"))
    }

    /// The values behind the last mark.
    fn marked(&mut self) -> Result<Vec<Value>> {
        let from = self.marks.pop().ok_or_else(|| self.bad("no mark on its stack"))?;
        Ok(self.stack.split_off(from))
    }

    fn tuple(&mut self, n: usize) -> Result<()> {
        let mut all: Vec<Value> = (0..n).map(|_| self.pop()).collect::<Result<_>>()?;
        all.reverse();
        self.push_tuple(all)
    }

    fn push_tuple(&mut self, all: Vec<Value>) -> Result<()> {
        self.made.sequences.push(all);
        self.push(Value::Tuple(self.made.sequences.len() - 1))
    }

    fn push_dict(&mut self) -> Result<()> {
        self.made.dicts.push(Vec::new());
        self.push(Value::Dict(self.made.dicts.len() - 1))
    }

    fn remember(&mut self, slot: u32) -> Result<()> {
        let value = self.top()?.clone();
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        let value = self.memo.get(&slot).cloned();
        let value = value.ok_or_else(|| self.bad("an empty memo"))?;
        self.push(value)
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<()> {
        let &Value::Dict(d) = self.top()? else {
            return Err(self.bad("items for what is no dictionary"));
        };
        if items.len() % 2 != 0 {
            return Err(self.bad("a key without a value"));
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            self.made.dicts[d].push((key, value));
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        let &Value::List(l) = self.top()? else {
            return Err(self.bad("items for what is no list"));
        };
        self.made.sequences[l].extend(items);
        Ok(())
    }

    fn run(mut self) -> Result<(Value, Made)> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                // Protocol, frame: nothing to do.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return Ok((self.pop()?, self.made)),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'N' => self.push(Value::None)?,
                0x88 | 0x89 => self.push(Value::Bool)?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                b'J' => {
                    let v = i32::from_le_bytes(self.bytes()?);
                    self.push(Value::Int(v.into()))?;
                }
                b'K' => {
                    let v = self.byte()?;
                    self.push(Value::Int(v.into()))?;
                }
                b'M' => {
                    let v = u16::from_le_bytes(self.bytes()?);
                    self.push(Value::Int(v.into()))?;
                }
                0x8a => {
                    let n = self.byte()? as usize;
                    let bytes = self.take(n)?;
                    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
                    if n > 8 {
                        return Err(self.bad("a number beyond 64 bits"));
                    }
                    let mut all = if negative { [0xff; 8] } else { [0; 8] };
                    all[..n].copy_from_slice(bytes);
                    self.push(Value::Int(i64::from_le_bytes(all)))?;
                }
                b'X' => {
                    let n = self.u32()? as usize;
                    let t = self.text(n)?;
                    self.push(Value::Text(t))?;
                }
                0x8c | b'U' => {
                    let n = self.byte()? as usize;
                    let t = self.text(n)?;
                    self.push(Value::Text(t))?;
                }
                b')' => self.push_tuple(Vec::new())?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let all = self.marked()?;
                    self.push_tuple(all)?;
                }
                b']' => {
                    self.made.sequences.push(Vec::new());
                    self.push(Value::List(self.made.sequences.len() - 1))?;
                }
                b'}' => self.push_dict()?,
                b'a' => {
                    let one = self.pop()?;
                    self.append(vec![one])?;
                }
                b'e' => {
                    let all = self.marked()?;
                    self.append(all)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.extend(vec![key, value])?;
                }
                b'u' => {
                    let all = self.marked()?;
                    self.extend(all)?;
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = self.u32()?;
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = self.u32()?;
                    self.recall(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.global(&module, &name)?,
                    _ => return Err(self.bad("a name that is no text")),
                },
                b'Q' => {
                    let id = self.pop()?;
                    self.persistent(&id)?;
                }
                b'R' => {
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    self.call(&callable, &arguments)?;
                }
                // The state of an object: of what is known here, only notes of modules.
                b'b' => {
                    self.pop()?;
                    if !matches!(self.top()?, Value::Dict(_) | Value::Tensor(_)) {
                        return Err(unsupported(format!(
                            "{} holds objects, not tensors alone; save its state_dict, or take safetensors",
                            self.file
                        )));
                    }
                }
                other => {
                    return Err(unsupported(format!(
                        "{}: its pickle has the instruction {other:#04x}, which no file of tensors \
                         needs; save its state_dict, or take safetensors",
                        self.file
                    )));
                }
            }
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let full = format!("{module} {name}");
        let known = storage(&full).is_some()
            || matches!(
                full.as_str(),
                "torch._utils _rebuild_tensor_v2"
                    | "torch._utils _rebuild_parameter"
                    | "collections OrderedDict"
            );
        if !known {
            return Err(unsupported(format!(
                "{}: its pickle calls {module}.{name}, and nothing is executed here; save its \
                 state_dict, or take safetensors",
                self.file
            )));
        }
        self.push(Value::Global(full.into()))
    }

    /// `("storage", class, key, device, elements)`.
    fn persistent(&mut self, id: &Value) -> Result<()> {
        if let &Value::Tuple(t) = id
            && let [
                Value::Text(kind),
                Value::Global(class),
                Value::Text(key),
                Value::Text(_),
                Value::Int(elements),
            ] = self.made.sequence(t)
            && &**kind == "storage"
            && let Some(dtype) = storage(class)
            && let Ok(elements) = usize::try_from(*elements)
        {
            let storage = Value::Storage(dtype, key.clone(), elements);
            return self.push(storage);
        }
        Err(self.bad("a reference that is no storage"))
    }

    fn call(&mut self, callable: &Value, arguments: &Value) -> Result<()> {
        let (Value::Global(name), &Value::Tuple(arguments)) = (callable, arguments) else {
            return Err(self.bad("a call of what is no function"));
        };
        match (&**name, self.made.sequence(arguments)) {
            ("collections OrderedDict", []) => self.push_dict(),
            ("torch._utils _rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => {
                let tensor = tensor.clone();
                self.push(tensor)
            }
            (
                "torch._utils _rebuild_tensor_v2",
                [
                    Value::Storage(dtype, key, elements),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ],
            ) => {
                let sizes = |at: usize| {
                    let one = |v: &Value| match v {
                        Value::Int(n) => usize::try_from(*n).ok(),
                        _ => None,
                    };
                    self.made.sequence(at).iter().map(one).collect::<Option<Vec<usize>>>()
                };
                let view = usize::try_from(*offset)
                    .ok()
                    .zip(sizes(*shape))
                    .zip(sizes(*strides))
                    .filter(|((_, shape), strides)| shape.len() == strides.len());
                let Some(((offset, shape), strides)) = view else {
                    return Err(self.bad("a tensor of an impossible shape"));
                };
                let (dtype, key, elements) = (*dtype, key.clone(), *elements);
                let view = View { dtype, key, elements, offset, shape, strides };
                self.push(Value::Tensor(view.into()))
            }
            _ => Err(self.bad(&format!("odd arguments for {}", name.replace(' ', ".")))),
        }
    }
}

struct Found<'m> {
    archive: Archive<'m>,
    made: &'m Made,
    tensors: BTreeMap<String, Tensor>,
    seen: usize,
    /// Bytes of tensors that were not in one piece.
    copied: usize,
}

impl Found<'_> {
    fn collect(&mut self, name: &str, value: &Value, depth: usize) -> Result<()> {
        self.seen += 1;
        let file = self.archive.map.name();
        if depth > MAX_DEPTH || self.seen > MAX_VALUES {
            return Err(malformed(format!("{file}: its pickle is nested too deep")));
        }
        let below = |key: &str| match name {
            "" => key.to_owned(),
            _ => format!("{name}.{key}"),
        };
        match value {
            Value::Tensor(view) => {
                let tensor = self.tensor(name, view)?;
                if self.tensors.insert(name.to_owned(), tensor).is_some() {
                    return Err(malformed(format!("{file}: the tensor {name:?} is there twice")));
                }
            }
            Value::Dict(d) => {
                // A dictionary that holds itself is met again through the limit of depth.
                let made = self.made;
                for (key, value) in &made.dicts[*d] {
                    if let Value::Text(key) = key {
                        if key.len() > MAX_KEY {
                            return Err(malformed(format!("{file}: a key is too long")));
                        }
                        self.collect(&below(key), value, depth + 1)?;
                    }
                }
            }
            Value::List(at) | Value::Tuple(at) => {
                let made = self.made;
                for (i, value) in made.sequence(*at).iter().enumerate() {
                    self.collect(&below(&i.to_string()), value, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str, view: &View) -> Result<Tensor> {
        let map = self.archive.map;
        let bad = |what: &str| malformed(format!("{}: tensor {name:?} {what}", map.name()));
        let size = view.dtype.block().1;
        let (from, to) = self.archive.range(&format!("data/{}", view.key))?;
        if view.elements.checked_mul(size) != Some(to - from) {
            return Err(bad("is of a storage of another length"));
        }
        // Checks the shape's product, and bounds what a copy may take.
        let bytes = super::source::byte_length(name, view.dtype, &view.shape)?;
        let empty = view.shape.contains(&0);
        let last = view.shape.iter().zip(&view.strides).try_fold(view.offset, |at, (n, s)| {
            n.saturating_sub(1).checked_mul(*s).and_then(|far| at.checked_add(far))
        });
        if !empty && last.is_none_or(|last| last >= view.elements) {
            return Err(bad("reaches beyond its storage"));
        }
        let mut expected = 1usize;
        let contiguous = view.shape.iter().zip(&view.strides).rev().all(|(n, s)| {
            let right = *n == 1 || *s == expected;
            expected = expected.saturating_mul(*n);
            right
        });
        if empty {
            return Tensor::new(name, view.dtype, view.shape.clone(), map.slice(from..from)?);
        }
        if contiguous {
            let start = from + view.offset * size;
            let slice = map.slice(start..start + bytes)?;
            return Tensor::new(name, view.dtype, view.shape.clone(), slice);
        }
        // Overlapping strides, or many views of one storage, could make much of little.
        self.copied += bytes;
        if self.copied > map.len() {
            return Err(bad("repeats its storage"));
        }
        let storage = &map[from..to];
        let mut out = Vec::with_capacity(bytes);
        let mut index = vec![0usize; view.shape.len()];
        'all: loop {
            let at: usize =
                view.offset + index.iter().zip(&view.strides).map(|(i, s)| i * s).sum::<usize>();
            out.extend_from_slice(&storage[at * size..][..size]);
            for d in (0..index.len()).rev() {
                index[d] += 1;
                if index[d] < view.shape[d] {
                    continue 'all;
                }
                index[d] = 0;
            }
            break;
        }
        Tensor::new(name, view.dtype, view.shape.clone(), Map::from_vec(out).whole())
    }
}
