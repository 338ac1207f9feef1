//! Where the voice is looked for when nobody says where it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use voxgrain::bundle::FILE_NAME;
use voxgrain::{Error, ErrorKind};

/// The environment variable that names a bundle where no `--bundle` is given.
pub const ENV: &str = "VOXGRAIN_BUNDLE";

/// The voice that comes with the program.
const VOICE: &str = "models/voice";

/// The pronunciations that come with the program.
const LEXICON: &str = "models/lexicon/en-us.lexicon";

/// The folder of the bundle to use: `explicit`, else the environment variable [`ENV`], else the
/// first of these that holds a `bundle.toml`: `models/voice`, here or in the checkout around;
/// `../share/voxgrain/models/voice` and `models/voice` next to the executable; `models/voice` in
/// the checkout that the executable was built in.
///
/// An explicit choice is never replaced by a default: if it holds no bundle, that is the error.
pub fn bundle(explicit: Option<&Path>) -> voxgrain::Result<PathBuf> {
    let (here, exe) = (std::env::current_dir().ok(), std::env::current_exe().ok());
    search(explicit, std::env::var_os(ENV), here.as_deref(), exe.as_deref())
}

/// Whether somebody says which bundle to use.
pub fn is_chosen(explicit: Option<&Path>) -> bool {
    explicit.is_some() || std::env::var_os(ENV).is_some_and(|v| !v.is_empty())
}

/// The lexicon that comes with the program, looked for where the voice is; `None` if it is
/// nowhere.
pub fn lexicon() -> Option<PathBuf> {
    let (here, exe) = (std::env::current_dir().ok(), std::env::current_exe().ok());
    let found = places(here.as_deref(), exe.as_deref(), LEXICON).into_iter().find(|p| p.is_file());
    found.map(|p| short(&p, here.as_deref()))
}

/// Where the program remembers what it found out, if the system has such a place:
/// `$XDG_CACHE_HOME/voxgrain`, else `~/.cache/voxgrain`.
pub fn cache() -> Option<PathBuf> {
    let absolute = |key: &str| std::env::var_os(key).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(base.join("voxgrain"))
}

/// As a person who is `here` would write it.
fn short(path: &Path, here: Option<&Path>) -> PathBuf {
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).to_path_buf()
}

/// Where `what`, which comes with the program, may lie, the best place first.
fn places(here: Option<&Path>, exe: Option<&Path>, what: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = here.map(|d| d.join(what)).into_iter().collect();
    places.extend(here.and_then(checkout_around).map(|d| d.join(what)));
    if let Some(bin) = exe.and_then(Path::parent) {
        places.push(bin.join("../share/voxgrain").join(what));
        places.push(bin.join(what));
    }
    places.extend(exe.and_then(checkout_around).map(|d| d.join(what)));
    places
}

/// The checkout that the program was built in and still lies in, such as for
/// `target/release/voxgrain`.
pub fn checkout() -> Option<PathBuf> {
    checkout_around(&std::env::current_exe().ok()?)
}

/// The nearest folder above `path` that is a checkout of the sources. Whoever puts a `models`
/// folder somewhere above is not listened to.
fn checkout_around(path: &Path) -> Option<PathBuf> {
    let is_checkout = |d: &&Path| d.join("Cargo.toml").is_file() && d.join("src/cli").is_dir();
    path.ancestors().find(is_checkout).map(Path::to_path_buf)
}

/// With the surroundings as arguments.
fn search(
    explicit: Option<&Path>,
    env: Option<OsString>,
    here: Option<&Path>,
    exe: Option<&Path>,
) -> voxgrain::Result<PathBuf> {
    let holds = |p: &Path| {
        p.join(FILE_NAME).is_file()
            || (p.file_name().is_some_and(|n| n == FILE_NAME) && p.is_file())
    };
    let chosen = match (explicit, env.filter(|v| !v.is_empty())) {
        (Some(p), _) => Some((p.to_path_buf(), "--bundle")),
        (None, Some(v)) => Some((PathBuf::from(v), ENV)),
        (None, None) => None,
    };
    if let Some((path, by)) = chosen {
        if holds(&path) {
            return Ok(path);
        }
        return Err(Error::new(
            ErrorKind::Unreadable,
            format!(
                "no {FILE_NAME} in {} (chosen by {by}); name a folder that holds one",
                path.display()
            ),
        ));
    }
    let places = places(here, exe, VOICE);
    if let Some(found) = places.iter().find(|p| holds(p)) {
        return Ok(short(found, here));
    }
    let list: Vec<String> = places.iter().map(|p| format!("\n  {}", p.display())).collect();
    Err(Error::new(
        ErrorKind::Unreadable,
        format!(
            "no voice found; give its folder with --bundle or {ENV}. Looked for {FILE_NAME} in:{}",
            list.concat()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let name = format!("voxgrain-find-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&root);
            std::fs::create_dir_all(&root).unwrap();
            Self(root)
        }
        fn folder(&self, name: &str) -> PathBuf {
            let folder = self.0.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        }
        fn voice(&self, name: &str) -> PathBuf {
            let folder = self.folder(name);
            std::fs::write(folder.join(FILE_NAME), "format = 1").unwrap();
            folder
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_explicit_choice_wins_and_is_never_replaced() {
        let root = Root::new("explicit");
        let share = root.voice("prefix/share/voxgrain/models/voice");
        let exe = root.folder("prefix/bin").join("voxgrain");
        let absent = root.0.join("absent");
        let search = |explicit: Option<&Path>, env: Option<OsString>| {
            search(explicit, env, Some(&root.0), Some(&exe))
        };

        let e = search(Some(&absent), None).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unreadable);
        assert!(e.to_string().contains("--bundle"), "{e}");
        let e = search(None, Some(absent.clone().into())).unwrap_err();
        assert!(e.to_string().contains(ENV), "{e}");
        assert_eq!(search(Some(&share), Some(absent.into())).unwrap(), share);
        assert_eq!(search(Some(&share.join(FILE_NAME)), None).unwrap(), share.join(FILE_NAME));
        let other = root.voice("other");
        assert_eq!(search(None, Some(other.clone().into())).unwrap(), other);
        // An empty variable is none.
        assert!(search(None, Some("".into())).unwrap().ends_with("share/voxgrain/models/voice"));
    }

    #[test]
    fn an_installed_program_finds_its_voice_or_lists_where_it_looked() {
        let root = Root::new("installed");
        let exe = root.folder("prefix/bin").join("voxgrain");
        let found = || search(None, None, Some(&root.0), Some(&exe));
        let text = found().unwrap_err().to_string();
        for place in ["models/voice", "../share/voxgrain/models/voice", "bin/models/voice"] {
            assert!(text.contains(place), "{text}");
        }
        // Not a checkout: a folder that happens to lie above is nobody's voice.
        root.voice("prefix/models/voice");
        assert!(found().is_err());
        root.voice("prefix/bin/models/voice");
        assert!(found().unwrap().ends_with("bin/models/voice"));
        root.voice("prefix/share/voxgrain/models/voice");
        assert!(found().unwrap().ends_with("share/voxgrain/models/voice"));
        root.voice("models/voice");
        assert_eq!(found().unwrap(), Path::new("models/voice"));
    }

    #[test]
    fn a_checkout_speaks_from_wherever_it_is_run() {
        let root = Root::new("checkout");
        let voice = root.voice("source/models/voice");
        root.folder("source/src/cli");
        std::fs::write(root.0.join("source/Cargo.toml"), "").unwrap();
        let exe = root.folder("source/target/release").join("voxgrain");
        let (deep, outside) = (root.folder("source/tools/data"), root.folder("outside"));
        let elsewhere = root.folder("cache/release").join("voxgrain");
        for (here, exe) in [(&deep, &elsewhere), (&outside, &exe), (&deep, &exe)] {
            let found = search(None, None, Some(here), Some(exe)).unwrap();
            assert_eq!(found, voice, "{} {}", here.display(), exe.display());
        }
        assert!(search(None, None, Some(&outside), Some(&elsewhere)).is_err());
        assert_eq!(checkout_around(&exe), Some(root.0.join("source")));
    }
}
