//! What comes from the program's own description of its options: man pages, and what shells
//! complete. Whoever packages the program calls it.

use super::files::{make_folder, write_whole};
use super::output::status;
use super::usage;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;
use voxgrain::{Error, ErrorKind};

/// Write man pages and shell completions into a folder, laid out as below /usr/share
#[derive(Args)]
pub struct Manual {
    /// The folder; it is made if it is not there
    dir: PathBuf,
}

impl Manual {
    pub fn run(self) -> anyhow::Result<()> {
        let man = self.dir.join("man/man1");
        make_folder(&man)?;
        // Not wrapped for a terminal: readers of man pages have their own widths.
        let command = super::Cli::command().max_term_width(0);
        clap_mangen::generate_to(command, &man).map_err(|e| {
            let what = format!("cannot write the man pages to {}", man.display());
            Error::with_source(ErrorKind::Unwritable, what, e)
        })?;
        for (shell, file) in [
            (Shell::Bash, "bash-completion/completions/voxgrain"),
            (Shell::Zsh, "zsh/site-functions/_voxgrain"),
            (Shell::Fish, "fish/vendor_completions.d/voxgrain.fish"),
        ] {
            let mut bytes = Vec::new();
            clap_complete::generate(shell, &mut super::Cli::command(), "voxgrain", &mut bytes);
            let path = self.dir.join(file);
            make_folder(path.parent().ok_or_else(|| usage("name a folder"))?)?;
            write_whole(&path, &bytes)?;
        }
        status(&format!("wrote man pages and completions to {}", self.dir.display()));
        Ok(())
    }
}
