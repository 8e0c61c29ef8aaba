//! `tributary-agent user`: the file of users, changed by a command. Passwords come from the
//! terminal without being shown, or from standard input; an argument would show them to everybody.

use crate::config::Config;
use crate::limits::PASSWORD_BYTES_MAX;
use crate::source::access::acl::{Filter, Grants, Readable};
use crate::source::access::password::{Hashed, Password};
use crate::source::access::store::{self, Editing};
use crate::source::access::users::{User, is_user_name};
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Read, Stdin, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tributary_settings::say;
use zeroize::Zeroize;

/// What to do with the users.
#[derive(Subcommand, Debug)]
pub enum UserCommand {
    /// Add a user; the password is asked for, or read from the first line of standard input.
    Add(Add),
    /// Give a user another password.
    Passwd(Named),
    /// Remove a user.
    Rm(Named),
    /// List the users and what each may do.
    Ls(Place),
}

/// Where the users are.
#[derive(Args, Debug)]
pub struct Place {
    /// The file of users; without it, the one that `users` in [source.listener] names.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A user, and where it is.
#[derive(Args, Debug)]
pub struct Named {
    /// The user's name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: Place,
}

/// A user to be.
#[derive(Args, Debug)]
pub struct Add {
    #[command(flatten)]
    user: Named,
    /// A topic filter that the user may publish to; may be given several times. In it, %u is the
    /// user's name and %c the client's identifier. Without one: everything, or nothing with --read.
    #[arg(long, value_name = "FILTER")]
    publish: Vec<String>,
    /// May read the alerts, aggregates and status that the agent publishes: those of devices that
    /// the user may publish for, or, without --publish, of all. With a filter, which may be given
    /// several times, those of each device and metric that it holds, like
    /// --read=hall-4/+/temperature.
    #[arg(
        long,
        value_name = "FILTER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    read: Vec<String>,
    /// Has no password: it comes with a client certificate that names it.
    #[arg(long)]
    no_password: bool,
}

/// Why a command did nothing; 2 is usage, 1 everything else.
struct Failure(u8, String);

fn usage(text: impl Into<String>) -> Failure {
    Failure(2, text.into())
}

fn failed(error: impl ToString) -> Failure {
    Failure(1, error.to_string())
}

/// Carries a command out.
#[allow(clippy::print_stdout, reason = "what a program says to its user")]
pub fn run(command: &UserCommand, config: Option<&Path>) -> ExitCode {
    let done = match command {
        UserCommand::Add(add) => add.run(config),
        UserCommand::Passwd(user) => user.change_password(config),
        UserCommand::Rm(user) => user.remove(config),
        UserCommand::Ls(place) => place.list(config),
    };
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Failure(code, text)) => {
            say!("{text}");
            ExitCode::from(code)
        }
    }
}

impl Place {
    fn path(&self, config: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let config = Config::load(config).map_err(|error| usage(error.to_string()))?;
        config.listener.users.ok_or_else(|| {
            usage("which file? Give --file FILE, or --config with `users` in [source.listener]")
        })
    }

    fn list(&self, config: Option<&Path>) -> Result<String, Failure> {
        let users = store::load(&self.path(config)?).map_err(failed)?;
        let lines = users.iter().map(|(name, user)| {
            let mut line = format!("{name}\tpublish {}", joined(&user.grants.publish));
            line.push_str(&read_of(&user.grants).map_or(String::new(), |read| format!("\t{read}")));
            let certificate = user.password.is_none();
            line.push_str(if certificate {
                "\tcertificate only"
            } else {
                ""
            });
            line.push('\n');
            line
        });
        Ok(lines.collect())
    }
}

fn joined(filters: &[Filter]) -> String {
    let filters = filters.iter().map(Filter::to_string);
    filters.collect::<Vec<_>>().join(" ")
}

/// What a user may read, for people.
fn read_of(grants: &Grants) -> Option<String> {
    match grants.read.as_ref()? {
        Readable::Own => Some("read its own".into()),
        Readable::These(filters) => Some(format!("read {}", joined(filters))),
    }
}

impl Named {
    fn check(&self) -> Result<(), Failure> {
        match is_user_name(&self.name) {
            true => Ok(()),
            false => Err(usage(format!(
                "{:?} is no user name: expected 1 to 256 bytes without control characters",
                self.name
            ))),
        }
    }

    /// Changes the file; what `change` says against it is said, and nothing changes.
    fn edit(
        &self,
        config: Option<&Path>,
        change: impl FnOnce(&mut Editing, &Path) -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        let path = self.place.path(config)?;
        let mut editing = Editing::begin(&path).map_err(failed)?;
        let said = change(&mut editing, &path)?;
        editing.save().map_err(failed)?;
        Ok(said)
    }

    fn nobody(&self, path: &Path) -> Failure {
        failed(format!(
            "{}: there is no user {:?}",
            path.display(),
            self.name
        ))
    }

    fn change_password(&self, config: Option<&Path>) -> Result<String, Failure> {
        let path = self.place.path(config)?;
        let users = store::load(&path).map_err(failed)?;
        users.find(&self.name).ok_or_else(|| self.nobody(&path))?;
        // Asked for before the file is locked: others need not wait for a person.
        let password = Some(Hashed::of(&ask(&self.name)?).map_err(failed)?);
        self.edit(config, |editing, path| {
            let found = editing.users.find(&self.name);
            let (_, user) = found.ok_or_else(|| self.nobody(path))?;
            let grants = Arc::clone(&user.grants);
            let user = User { password, grants };
            editing.users.insert(&self.name, user).map_err(failed)?;
            Ok(format!(
                "{}: {} has a new password\n",
                path.display(),
                self.name
            ))
        })
    }

    fn remove(&self, config: Option<&Path>) -> Result<String, Failure> {
        self.edit(config, |editing, path| {
            if !editing.users.remove(&self.name) {
                return Err(self.nobody(path));
            }
            Ok(format!("{}: {} is removed\n", path.display(), self.name))
        })
    }
}

impl Add {
    fn run(&self, config: Option<&Path>) -> Result<String, Failure> {
        let name = &self.user.name;
        self.user.check()?;
        let grants = self.grants()?;
        let path = self.user.place.path(config)?;
        let taken = |path: &Path| {
            failed(format!(
                "{}: there is a user {name:?} already: `user passwd` changes its password, and \
                 what it may do is changed in the file",
                path.display()
            ))
        };
        if Editing::begin(&path)
            .map_err(failed)?
            .users
            .find(name)
            .is_some()
        {
            return Err(taken(&path));
        }
        let password = match self.no_password {
            true => None,
            // Asked for while the file is not locked: others need not wait for a person.
            false => Some(Hashed::of(&ask(name)?).map_err(failed)?),
        };
        let read = read_of(&grants).map_or(String::new(), |read| format!("; may {read}"));
        let may = format!("may publish to: {}{read}", joined(&grants.publish));
        let grants = Arc::new(grants);
        self.user.edit(config, |editing, path| {
            if editing.users.find(name).is_some() {
                return Err(taken(path));
            }
            let user = User { password, grants };
            editing.users.insert(name, user).map_err(failed)?;
            Ok(format!("{}: {name} is added, {may}\n", path.display()))
        })
    }

    /// What it may do.
    fn grants(&self) -> Result<Grants, Failure> {
        let everything = [String::from("#")];
        let publish = match self.publish.is_empty() && self.read.is_empty() {
            true => &everything[..],
            false => &self.publish,
        };
        let given = self.read.iter().filter(|filter| !filter.is_empty());
        let read: Vec<String> = match self.publish.is_empty() && !self.read.is_empty() {
            // There are no devices of its own.
            true if given.clone().count() == 0 => everything.to_vec(),
            _ => given.cloned().collect(),
        };
        let wrong = |option| move |(filter, error)| usage(format!("--{option} {filter:?} {error}"));
        let grants = Grants::parse(publish, !self.read.is_empty()).map_err(wrong("publish"))?;
        match read.is_empty() {
            true => Ok(grants),
            false => grants.reading(&read).map_err(wrong("read")),
        }
    }
}

/// Asks for a password: twice where a person types it unseen, otherwise once.
fn ask(name: &str) -> Result<Password, Failure> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let first = prompt(&stdin, &format!("password of {name}: "))?;
        let second = prompt(&stdin, "once more: ")?;
        if first != second {
            return Err(usage("the two differ: nothing is changed"));
        }
        first
    } else {
        line(&stdin).map_err(failed)?
    };
    match password.is_usable() {
        true => Ok(password),
        false => Err(usage(format!(
            "a password has 1 to {PASSWORD_BYTES_MAX} bytes: type one, or give it as the first \
             line of standard input"
        ))),
    }
}

/// The terminal as it was, put back when this is dropped.
struct Unseen<'a>(&'a Stdin, Termios);

impl<'a> Unseen<'a> {
    fn begin(stdin: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(stdin)?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        unseen.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(stdin, OptionalActions::Flush, &unseen)?;
        Ok(Self(stdin, before))
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        // There is nobody to tell: the terminal is gone, too.
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

fn prompt(stdin: &Stdin, text: &str) -> Result<Password, Failure> {
    let mut stderr = io::stderr();
    stderr.write_all(text.as_bytes()).map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let _unseen = Unseen::begin(stdin).map_err(failed)?;
    line(stdin).map_err(failed)
}

/// One line, without its end.
fn line(stdin: &Stdin) -> io::Result<Password> {
    // One more than may be, and the line's end: what is too long is seen to be.
    let mut bytes = Vec::with_capacity(PASSWORD_BYTES_MAX + 3);
    let most = bytes.capacity() as u64;
    let read = stdin.lock().take(most).read_until(b'\n', &mut bytes);
    if let Err(error) = read {
        bytes.zeroize();
        return Err(error);
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    Ok(Password::new(bytes))
}
