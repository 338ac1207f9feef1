//! The rules of dependency, held by reading the sources: which room may name which, no arrow
//! back, no circle between rooms or between the files of a room.
//!
//! A room is a module at the root of the library. Read are paths that begin with `crate`,
//! `super` or `self`, outside comments, strings and unit tests; a name that a module only passes
//! on (`pub use`) counts for the module that has it. Paths that begin with `voxgrain` are the
//! program's and need no rule: a library cannot see its program.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// What each room may name of the crate, and does. The order is that of the floors: a room names rooms
/// before it only, so the table itself has no circle.
const ROOMS: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("kernel", &[]),
    ("error", &[]),
    ("map", &["error"]),
    ("part", &[]),
    ("asg", &["core"]),
    ("decode", &["core", "error"]),
    ("engine", &["kernel", "error", "map"]),
    ("bundle", &["core", "error", "decode"]),
    ("convert", &["kernel", "error", "map", "part", "asg", "engine", "bundle"]),
    ("speech", &["core", "kernel", "error", "map", "part", "asg", "decode", "engine", "bundle"]),
    // What it writes is held to be what a voice opens: it asks speech for the tokenizer.
    ("import", &["kernel", "error", "map", "part", "asg", "engine", "bundle", "convert", "speech"]),
    ("capi", &["core", "kernel", "error", "map", "asg", "decode", "bundle", "speech"]),
];

/// A module by its path from the crate's root.
type Module = Vec<String>;

/// One name that a module uses, as written.
struct Use {
    path: Vec<String>,
    /// The name by which it is passed on; none unless it stands in a `use`.
    alias: Option<String>,
}

struct Source {
    modules: BTreeSet<Module>,
    uses: Vec<(Module, Use)>,
}

/// Blanks comments and what stands in quotes, so that only code is left; places stay.
fn code_of(text: &str) -> String {
    let b = text.as_bytes();
    let mut out = b.to_vec();
    let blank = |out: &mut Vec<u8>, range: Range<usize>| {
        out[range].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
    };
    let mut i = 0;
    while i < b.len() {
        let rest = &b[i..];
        let from = i;
        if rest.starts_with(b"//") {
            i += rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len());
            blank(&mut out, from..i);
        } else if rest.starts_with(b"/*") {
            let mut depth = 0;
            while i < b.len() {
                match &b[i..] {
                    [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
                    [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            blank(&mut out, from..i);
        } else if let Some(hashes) = raw_string(b, i) {
            let start = i + 2 + hashes;
            let end = format!("\"{}", "#".repeat(hashes));
            i = text[start..].find(&end).map_or(b.len(), |n| start + n + end.len());
            blank(&mut out, from..i);
        } else if b[i] == b'"' {
            i += 1;
            while i < b.len() && b[i] != b'"' {
                i += if b[i] == b'\\' { 2 } else { 1 };
            }
            i = (i + 1).min(b.len());
            blank(&mut out, from..i);
        } else if b[i] == b'\'' {
            // A character, or else a lifetime.
            let width = text[i + 1..].chars().next().map_or(1, char::len_utf8);
            if b.get(i + 1) == Some(&b'\\') {
                i += 3;
                i += b[i..].iter().position(|c| *c == b'\'').unwrap_or(0) + 1;
                blank(&mut out, from..i);
            } else if b.get(i + 1 + width) == Some(&b'\'') {
                i += width + 2;
                blank(&mut out, from..i);
            } else {
                i += 1;
            }
        } else {
            i += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

/// Hashes of a raw string that begins at `i`.
fn raw_string(b: &[u8], i: usize) -> Option<usize> {
    let part_of_a_name = i > 0 && b[i - 1].is_ascii_alphanumeric() && b[i - 1] != b'b';
    if b[i] != b'r' || part_of_a_name {
        return None;
    }
    let hashes = b[i + 1..].iter().take_while(|c| **c == b'#').count();
    (b.get(i + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// From an opening brace to behind its end.
fn block(code: &str, open: usize) -> Range<usize> {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open..open + i + 1;
        }
    }
    open..code.len()
}

/// Blanks what is compiled for unit tests only.
fn without_tests(mut code: String) -> String {
    const MARK: &str = "#[cfg(test)]";
    while let Some(at) = code.find(MARK) {
        let behind = at + MARK.len();
        let end = match code[behind..].find(['{', ';']) {
            Some(n) if code[behind + n..].starts_with('{') => block(&code, behind + n).end,
            Some(n) => behind + n + 1,
            None => code.len(),
        };
        code.replace_range(at..end, &" ".repeat(end - at));
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `mod name { ... }` in a file, outermost first.
fn inline_modules(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("mod ") {
        let name: String = code[at + 4..].chars().take_while(|c| is_word(*c)).collect();
        let behind = &code[at + 4 + name.len()..];
        let own = !code[..at].ends_with(is_word);
        if own && !name.is_empty() && behind.trim_start().starts_with('{') {
            let open = at + 4 + name.len() + behind.find('{').unwrap();
            found.push((name, block(code, open)));
        }
    }
    found
}

/// The names of a path that begins at `code`, and of what it lists in braces.
fn tree(code: &str, before: &[String], out: &mut Vec<Use>) -> usize {
    let mut path = before.to_vec();
    let mut i = 0;
    loop {
        i += code[i..].len() - code[i..].trim_start().len();
        if code[i..].starts_with('{') {
            let end = block(code, i).end;
            let mut at = i + 1;
            while at < end - 1 {
                at += tree(&code[at..end - 1], &path, out);
                at += code[at..end - 1].find(',').map_or(end - 1 - at, |n| n + 1);
            }
            return end;
        }
        if code[i..].starts_with('*') {
            out.push(Use { path, alias: None });
            return i + 1;
        }
        let word: String = code[i..].chars().take_while(|c| is_word(*c)).collect();
        if word.is_empty() {
            return i;
        }
        i += word.len();
        if word != "self" || path.is_empty() {
            path.push(word);
        }
        let rest = &code[i..];
        if rest.starts_with("::") && !rest.starts_with("::<") {
            i += 2;
            continue;
        }
        let mut alias = path.last().cloned();
        if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
            alias = Some(renamed.chars().take_while(|c| is_word(*c)).collect());
        }
        out.push(Use { path, alias });
        return i;
    }
}

fn read(src: &Path) -> Source {
    let mut source = Source { modules: BTreeSet::new(), uses: Vec::new() };
    let mut folders = vec![src.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let mut module: Module = path
                .strip_prefix(src)
                .unwrap()
                .with_extension("")
                .iter()
                .map(|part| part.to_str().unwrap().to_string())
                .collect();
            if module.last().is_some_and(|m| m == "mod") || module == ["lib"] {
                module.pop();
            }
            // The program is another crate.
            if module == ["main"] || module.first().is_some_and(|m| m == "cli") {
                continue;
            }
            let code = without_tests(code_of(&std::fs::read_to_string(&path).unwrap()));
            let inline = inline_modules(&code);
            source.modules.insert(module.clone());
            for key in ["crate", "super", "self"] {
                for (at, _) in code.match_indices(&format!("{key}::")) {
                    let before = code[..at].chars().next_back();
                    if before.is_some_and(|c| is_word(c) || c == ':' || c == '$') {
                        continue;
                    }
                    let inside = inline.iter().filter(|(_, range)| range.contains(&at));
                    let here: Module =
                        module.iter().chain(inside.map(|(name, _)| name)).cloned().collect();
                    let mut found = Vec::new();
                    tree(&code[at..], &[], &mut found);
                    let used = code[..at].rsplit(['{', '}', ';']).next().unwrap();
                    let in_use = used.split_whitespace().any(|w| w == "use");
                    source.uses.extend(found.into_iter().map(|mut one| {
                        one.path = absolute(&here, one.path);
                        one.alias = one.alias.filter(|_| in_use);
                        (here.clone(), one)
                    }));
                }
            }
            // `pub use child::Name;` in the file of its parent.
            for (at, _) in code.match_indices("use ") {
                let first: String = code[at + 4..].chars().take_while(|c| is_word(*c)).collect();
                let others = ["crate", "super", "self", "std", "core", "alloc", ""];
                let own = !code[..at].ends_with(is_word);
                if own && !others.contains(&first.as_str()) {
                    let mut found = Vec::new();
                    tree(&code[at + 4..], &module, &mut found);
                    source.uses.extend(found.into_iter().map(|one| (module.clone(), one)));
                }
            }
        }
    }
    source
}

fn absolute(here: &[String], path: Vec<String>) -> Vec<String> {
    let mut at = here.to_vec();
    let mut rest = path.into_iter().peekable();
    while let Some(word) = rest.next_if(|w| ["crate", "super", "self"].contains(&w.as_str())) {
        match word.as_str() {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            _ => {}
        }
    }
    at.extend(rest);
    at
}

impl Source {
    /// The deepest module of a path; a name that this one only passes on is followed.
    fn module_of(&self, path: &[String], depth: usize) -> Module {
        let longest = (0..=path.len()).rev().find(|n| self.modules.contains(&path[..*n]));
        let module = path[..longest.unwrap_or(0)].to_vec();
        let Some(name) = path.get(module.len()).filter(|_| depth < 8) else { return module };
        let passed_on = self.uses.iter().find(|(from, one)| {
            *from == module
                && one.alias.as_ref() == Some(name)
                && one.path.len() > module.len()
                && one.path.starts_with(&module)
                && self.modules.contains(&one.path[..module.len() + 1])
        });
        match passed_on {
            Some((_, one)) => self.module_of(&one.path, depth + 1),
            None => module,
        }
    }

    /// Who names whom, itself and its own children excepted: those a parent may pass on.
    fn arrows(&self) -> BTreeSet<(Module, Module)> {
        let mut arrows = BTreeSet::new();
        for (from, one) in &self.uses {
            let known = (0..=from.len()).rev().find(|n| self.modules.contains(&from[..*n]));
            let from = from[..known.unwrap_or(0)].to_vec();
            let to = self.module_of(&one.path, 0);
            if !to.starts_with(&from) {
                arrows.insert((from, to));
            }
        }
        arrows
    }
}

fn sources() -> Source {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// A circle among `arrows`, if there is one.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk<'a>(
        arrows: &'a BTreeMap<String, BTreeSet<String>>,
        at: &'a str,
        path: &mut Vec<&'a str>,
        sound: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(from) = path.iter().position(|p| *p == at) {
            return Some(path[from..].iter().chain([&at]).map(|p| p.to_string()).collect());
        }
        if sound.contains(at) {
            return None;
        }
        path.push(at);
        let found = arrows.get(at)?.iter().find_map(|to| walk(arrows, to, path, sound));
        path.pop();
        sound.insert(at);
        found
    }
    let mut sound = BTreeSet::new();
    arrows.keys().find_map(|at| walk(arrows, at, &mut Vec::new(), &mut sound))
}

/// The arrows between the children of `parent`, each with what lies below it.
fn between_children(source: &Source, parent: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let depth = parent.len();
    for (from, to) in source.arrows() {
        let below = |m: &Module| m.len() > depth && m.starts_with(parent);
        if below(&from) && below(&to) && from[depth] != to[depth] {
            found.entry(to[depth].clone()).or_default();
            found.entry(from[depth].clone()).or_default().insert(to[depth].clone());
        }
    }
    found
}

#[test]
fn rooms_name_only_the_rooms_that_they_may() {
    let source = sources();
    let rooms: BTreeSet<&String> = source.modules.iter().filter_map(|m| m.first()).collect();
    for room in &rooms {
        assert!(ROOMS.iter().any(|r| r.0 == **room), "{room} is new: give it a line in ROOMS");
    }
    for (i, (room, may)) in ROOMS.iter().enumerate() {
        let below = |name: &str| ROOMS[..i].iter().any(|r| r.0 == name);
        assert!(may.iter().all(|name| below(name)), "{room} may only name rooms above it here");
    }
    let (mut wrong, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (from, to) in source.arrows() {
        let (Some(room), Some(other)) = (from.first(), to.first()) else {
            // The root only passes names on; nobody takes more than those from it.
            assert!(from.is_empty(), "{} names something of lib.rs itself", from.join("::"));
            continue;
        };
        used.insert((room.clone(), other.clone()));
        let may = ROOMS.iter().find(|r| r.0 == room).map_or(&[][..], |r| r.1);
        if room != other && !may.contains(&other.as_str()) {
            wrong.insert(format!("{} names {}", from.join("::"), to.join("::")));
        }
    }
    assert!(wrong.is_empty(), "arrows that no rule allows: {wrong:#?}");
    for (room, may) in ROOMS {
        let needs = |name: &&&str| used.contains(&(room.to_string(), name.to_string()));
        let spare: Vec<_> = may.iter().filter(|name| !needs(name)).collect();
        assert!(spare.is_empty(), "{room} no longer names {spare:?}: take them out of ROOMS");
    }
}

#[test]
fn there_is_no_circle_between_rooms_or_between_files_of_a_room() {
    let source = sources();
    let parents: BTreeSet<&[String]> =
        source.modules.iter().filter_map(|m| Some(m.split_last()?.1)).collect();
    assert!(parents.len() > 5, "{parents:?}");
    let circles: Vec<_> = parents
        .into_iter()
        .filter_map(|parent| Some((parent.join("::"), circle(&between_children(&source, parent))?)))
        .collect();
    assert!(circles.is_empty(), "circles by the module that they are in: {circles:#?}");
}

/// The two tests above see what they are meant to see.
#[test]
fn arrows_are_found_wherever_they_are_written() {
    let folder = std::env::temp_dir().join(format!("voxgrain-rooms-{}", std::process::id()));
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "pub mod a; pub mod b; mod c;\npub use c::{Other, Thing as Error};\n");
    write("a/mod.rs", "mod one;\npub mod two;\npub use one::One;\n");
    write(
        "a/one.rs",
        "use crate::{Error, b::{self, Deep as D}};\n// use crate::d::Comment;\n\
         fn f<'a>(x: &'a str) { let _ = (\"crate::d\", r#\"crate::d \" \"#, '\"', '\\'', 'x'); }\n\
         #[cfg(test)]\nmod tests { use crate::d::Test; }\n/* crate::d /* crate::d */ crate::d */\n",
    );
    write("a/two.rs", "mod inner { use super::super::One; fn f() { self::g() } }\n");
    write("b.rs", "fn f() -> crate::c::Other { crate::c::f::<u8>(super::a::two::g()) }\n");
    write("c.rs", "pub struct Thing;\n");
    write("d.rs", "");
    let source = read(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let found: Vec<String> =
        source.arrows().iter().map(|(a, b)| format!("{} {}", a.join("::"), b.join("::"))).collect();
    assert_eq!(found, ["a::one b", "a::one c", "a::two a::one", "b a::two", "b c"]);
    let (root, a) = (between_children(&source, &[]), between_children(&source, &["a".into()]));
    assert_eq!(circle(&root), Some(vec!["a".into(), "b".into(), "a".into()]));
    assert_eq!(circle(&a), None);
}
