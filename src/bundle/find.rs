//! Where a bundle is looked for when nobody says where it is.

use super::{Bundle, FILE_NAME};
use crate::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that names a bundle where no `--bundle` is given.
pub const ENV: &str = "VOXGRAIN_BUNDLE";

impl Bundle {
    /// The folder of the bundle to use: `explicit`, else the environment variable
    /// [`ENV`], else the first of these that holds a `bundle.toml`: `./models/voice`,
    /// `../share/voxgrain/models/voice` and `./models/voice` next to the executable,
    /// `models/voice` in the source tree.
    ///
    /// An explicit choice is never replaced by a default: if it holds no bundle, that is the
    /// error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreadable`], listing every place that was looked at.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf> {
        let exe = std::env::current_exe().ok();
        Self::find_in(explicit, std::env::var_os(ENV), exe.as_deref())
    }

    /// [`Bundle::find`] with the surroundings as arguments.
    fn find_in(
        explicit: Option<&Path>,
        env: Option<OsString>,
        exe: Option<&Path>,
    ) -> Result<PathBuf> {
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
        let mut places = vec![PathBuf::from("models/voice")];
        if let Some(bin) = exe.and_then(Path::parent) {
            places.push(bin.join("../share/voxgrain/models/voice"));
            places.push(bin.join("models/voice"));
        }
        places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/voice"));
        if let Some(found) = places.iter().find(|p| holds(p)) {
            return Ok(found.clone());
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_prefers_the_explicit_choice_and_lists_places() {
        let root = std::env::temp_dir().join(format!("voxgrain-find-{}", std::process::id()));
        let prefix = root.join("prefix");
        let share = prefix.join("share/voxgrain/models/voice");
        let bin = prefix.join("bin");
        std::fs::create_dir_all(&share).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        let exe = bin.join("voxgrain");
        let absent = root.join("absent");

        let e = Bundle::find_in(Some(&absent), None, Some(&exe)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unreadable);
        assert!(e.to_string().contains("--bundle"), "{e}");
        let e = Bundle::find_in(None, Some(absent.clone().into()), Some(&exe)).unwrap_err();
        assert!(e.to_string().contains(ENV), "{e}");

        if let Err(e) = Bundle::find_in(None, None, Some(&exe)) {
            let text = e.to_string();
            for place in ["models/voice", "../share/voxgrain/models/voice", "bin/models/voice"] {
                assert!(text.contains(place), "{text}");
            }
            std::fs::write(share.join(FILE_NAME), "format = 1").unwrap();
            let found = Bundle::find_in(None, Some("".into()), Some(&exe)).unwrap();
            assert!(found.ends_with("share/voxgrain/models/voice"));
        }
        std::fs::write(share.join(FILE_NAME), "format = 1").unwrap();
        assert_eq!(Bundle::find_in(Some(&share), None, None).unwrap(), share);
        assert_eq!(
            Bundle::find_in(Some(&share), Some(absent.into()), None).unwrap(),
            share,
            "--bundle wins over the environment"
        );
        std::fs::remove_dir_all(&root).unwrap();
    }
}
