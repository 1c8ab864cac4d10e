//! Brings the guard's messages to the administrator: by mail, and to a program of the administrator's own.
//!
//! The guard only leaves them in a directory. Its sandbox is no place for a mail system or for programs that nobody
//! knows; systemd starts `pve-public-ip deliver` outside of it as soon as there is something in the directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::alerts::Message;
use crate::host::command;
use crate::host::files;
use crate::paths::Paths;
use crate::system::run::RunState;

/// How long a mail or the program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Messages that wait; if nobody fetches them, more of them help nobody.
const WAITING: usize = 100;

/// Leaves a message.
pub fn leave(paths: &Paths, message: &Message, at: u64) -> io::Result<()> {
    let directory = paths.messages();
    files::private_directory(&directory)?;
    let names = waiting(&directory);
    if names.len() >= WAITING {
        return Err(io::Error::other(format!("{} messages wait there already", names.len())));
    }
    let number = (0..=WAITING).find(|number| !names.iter().any(|name| *name == file_name(at, *number))).unwrap_or(0);
    // Beside the directory: as long as it is not whole, nobody shall come for it.
    let written = paths.run().join("message");
    files::replace(&written, &serde_json::to_vec(message)?)?;
    fs::rename(written, directory.join(file_name(at, number)))
}

fn file_name(at: u64, number: usize) -> String {
    format!("{at}-{number:02}.json")
}

/// Oldest first.
fn waiting(directory: &Path) -> Vec<String> {
    let is_whole = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "json");
    let mut names: Vec<String> = files::names(directory).into_iter().filter(is_whole).collect();
    names.sort();
    names
}

/// Delivers what waits; says how many messages that was. Whatever fails, the directory is empty after it: the log has
/// everything, and a mail that cannot be sent today would come a hundredfold tomorrow.
pub fn deliver(paths: &Paths) -> io::Result<usize> {
    // One at a time, so that nothing is sent twice.
    let _lock = files::lock(&paths.run().join("deliver.lock"))?;
    let directory = paths.messages();
    let mut delivered = 0;
    let waiting = waiting(&directory);
    for name in files::names(&directory) {
        if !waiting.contains(&name) {
            // Not ours, and systemd would call for ever because of it.
            files::remove(&directory.join(name))?;
        }
    }
    for name in waiting {
        let path = directory.join(name);
        let read = files::read_limited(&path, 1 << 20);
        files::remove(&path)?;
        match read.map(|bytes| serde_json::from_slice::<Message>(&bytes)) {
            Ok(Ok(message)) => {
                bring(paths, message);
                delivered += 1;
            }
            Ok(Err(error)) => log::warn!("a message to the administrator cannot be read: {error}"),
            Err(error) => log::warn!("a message to the administrator cannot be read: {error}"),
        }
    }
    Ok(delivered)
}

fn bring(paths: &Paths, mut message: Message) {
    let (mail, exec) = (message.mail.take(), message.exec.take());
    if let Some(to) = mail.filter(|to| !to.is_empty()) {
        match command::find("sendmail") {
            Some(sendmail) => {
                let sent = command::feed(&sendmail, &["-t", "-oi"], message.mail(&to).as_bytes(), LIMIT);
                if let Err(error) = sent {
                    log::warn!("the mail `{}` could not be sent: {error}", message.subject());
                }
            }
            None if RunState::note::<bool>(paths, "no-sendmail").is_none() => {
                RunState::set_note(paths, "no-sendmail", &true);
                log::warn!("there is no `sendmail` on this node, so nobody gets mail from the guard");
                log::warn!("hint: `apt install postfix`, or `\"alert_mail\": \"\"` in the node's file of the registry");
            }
            None => {}
        }
    }
    if let Some(program) = exec {
        let given = serde_json::to_vec(&message).unwrap_or_default();
        let run = trusted(&program).and_then(|()| {
            command::feed(&program, &[], &given, LIMIT).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                format!("{error}{cause}")
            })
        });
        if let Err(error) = run {
            log::warn!("`{}` did not take the message `{}`: {error}", program.display(), message.subject());
        }
    }
}

/// What root runs must be what root wrote.
fn trusted(program: &PathBuf) -> Result<(), String> {
    let meta = fs::metadata(program).map_err(|error| error.to_string())?;
    if !command::is_executable(program) {
        return Err("it is no program".to_owned());
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err("others than root may write it; `chown root`, `chmod go-w`".to_owned());
    }
    Ok(())
}
