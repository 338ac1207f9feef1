//! What was probably meant by a command line that clap refuses.

use super::output::status;
use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Commands and options that are built with the feature `lab` only.
const LAB: [&str; 5] = ["eval", "passes", "--kernels", "--predict", "--from"];

/// Options by the names that other programs give them, where the letters alone mislead.
const ALIASES: [(&str, &str); 3] =
    [("--speed", "--rate"), ("--tempo", "--rate"), ("--model", "--bundle")];

/// Says what is wrong, or prints the help that was asked for; the exit code.
pub fn refuse(mut error: Error, mut command: Command) -> ExitCode {
    // Usages get the names of what they are part of.
    command.build();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let hint = explain(&mut error, &command, &args);
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        if let Some(hint) = hint {
            status(&format!("\n{hint}"));
        }
        return ExitCode::from(2);
    }
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            status(&format!("voxgrain: cannot write to standard output: {e}"));
            ExitCode::from(5)
        }
    }
}

/// Puts the right suggestion into the error; what it has no words for comes back.
fn explain(error: &mut Error, command: &Command, args: &[OsString]) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(given)) = error.get(kind) else { return None };
    let given = given.split('=').next().unwrap_or_default().to_owned();
    if LAB.contains(&given.as_str()) && in_lab(command, args, &given) {
        error.remove(ContextKind::SuggestedSubcommand);
        forget_suggestion(error, command, args);
        return Some(format!(
            "`{given}` is for research and not in this build of the program: \
             cargo build --release --features lab"
        ));
    }
    if let Some((_, ours)) = ALIASES.iter().find(|(theirs, _)| *theirs == given) {
        forget_suggestion(error, command, args);
        let name = ours.trim_start_matches('-');
        let has = |c: &Command| c.get_arguments().any(|a| a.get_long() == Some(name));
        if called(command, args).is_some_and(has) {
            error.insert(ContextKind::SuggestedArg, ContextValue::String((*ours).to_owned()));
        }
    }
    None
}

/// The suggestion is in the usage as well.
fn forget_suggestion(error: &mut Error, command: &Command, args: &[OsString]) {
    error.remove(ContextKind::SuggestedArg);
    if let Some(called) = called(command, args) {
        let usage = called.clone().render_usage();
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
}

/// The command that is called.
fn called<'c>(command: &'c Command, args: &[OsString]) -> Option<&'c Command> {
    args.iter().find_map(|arg| command.find_subcommand(arg))
}

/// Whether the name would mean something in that place with the feature: a command, or an
/// option of `bench`.
fn in_lab(command: &Command, args: &[OsString], given: &str) -> bool {
    !given.starts_with('-') || called(command, args).is_some_and(|c| c.get_name() == "bench")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    /// A program as it is without the laboratory.
    fn program() -> Command {
        let option = |name: &'static str| Arg::new(name).long(name);
        let say = Command::new("say").args(["seed", "rate", "bundle"].map(option));
        let bench = Command::new("bench").args(["seed", "bundle"].map(option));
        Command::new("voxgrain").subcommands([say, bench])
    }

    /// The message with its hint.
    fn refused(line: &str) -> String {
        let mut command = program();
        command.build();
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let all = std::iter::once(OsString::from("voxgrain")).chain(args.iter().cloned());
        let mut error = command.clone().try_get_matches_from(all).unwrap_err();
        let hint = explain(&mut error, &command, &args).unwrap_or_default();
        format!("{}{hint}", error.render())
    }

    #[test]
    fn an_option_by_another_name_is_told_its_own() {
        let text = refused("say --speed 2");
        assert!(text.contains("'--rate'") && !text.contains("--seed"), "{text}");
        assert!(refused("say --speed=2").contains("'--rate'"));
        assert!(refused("bench --model x").contains("'--bundle'"));
        // Never an option that the command does not have.
        let text = refused("bench --speed 2");
        assert!(!text.contains("--rate") && !text.contains("--seed"), "{text}");
        // What clap finds by itself stays.
        assert!(refused("say --sed 2").contains("'--seed'"));
    }

    #[test]
    fn what_only_the_laboratory_has_says_how_to_get_it() {
        for line in ["eval", "eval groups --out x", "passes m.onnx", "bench --kernels --quick"] {
            let text = refused(line);
            assert!(text.contains("cargo build --release --features lab"), "{line}: {text}");
        }
        for line in ["evil", "say --predict", "bench --sed 1"] {
            assert!(!refused(line).contains("features lab"), "{line}");
        }
    }
}
