//! What is said of arguments that are wrong, and what is understood beyond clap.

use std::ffi::OsString;

use super::output::{Output, OutputFormat};
use crate::code;
use crate::model::{Problem, Subject};

/// `help problem CODE` is what people try, and clap's `help` knows commands only.
pub fn with_help_of_problems(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let at = args.windows(2).position(|pair| pair[0] == "help" && pair[1] == "problem");
    // Only the first word that is no option, and no value of one, is a command.
    let takes_value = |word: &OsString| word == "--root" || word == "--output-format";
    let is_option = |at: usize| args[at].as_encoded_bytes().starts_with(b"-") || takes_value(&args[at - 1]);
    let is_command = |at: usize| (1..at).all(is_option);
    if let Some(at) = at.filter(|at| is_command(*at)) {
        args.remove(at);
    }
    args
}

/// The form of output that wrong arguments ask for, as far as that can be told.
pub fn format_asked_for(args: impl Iterator<Item = OsString>) -> OutputFormat {
    let args: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    let option = "--output-format";
    let after = args.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1].clone());
    let joined = args.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('=').map(str::to_owned));
    let asked = after.or(joined).or_else(|| std::env::var("PROXMOX_OUTPUT_FORMAT").ok());
    asked.and_then(|name| <OutputFormat as clap::ValueEnum>::from_str(&name, false).ok()).unwrap_or_default()
}

/// Wrong arguments as a failure.
pub fn usage(error: &clap::Error) -> Output {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let sentence = paragraphs.next().unwrap_or_default();
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned();
    let hint = "`pve-public-ip help` shows commands, `pve-public-ip COMMAND --help` the options of one";
    Output::failed(Problem::new(code!("usage"), Subject::Command, sentence, hint), 2)
}
