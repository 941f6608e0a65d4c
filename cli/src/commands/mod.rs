//! The commands, one file each.

mod config;
mod demo;
mod doctor;
mod follow;
mod gateway;
mod home;
mod id;
mod inbox;
mod input;
mod int;
mod invite;
mod join;
mod keys;
mod leave;
mod outbox;
mod peers;
mod rename;
mod run;
mod send;
mod shell;
mod status;
mod texts;
mod trust;
mod who;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pimesh_node::{config::parse_duration, control::client::Client};

/// Encrypted messages and integers between Raspberry Pis, with no server.
///
/// Each machine runs a node (`pimesh run`). One node invites another (`pimesh invite`), the other
/// joins (`pimesh join`), and from then on they find each other.
#[derive(Debug, Parser)]
#[command(
    name = "pimesh",
    version,
    after_help = "Begin with:\n  pi-1$ pimesh run                        # leave it running\n  \
                  pi-1$ pimesh invite                     # prints a ticket\n  \
                  pi-2$ pimesh run                        # on the other machine\n  \
                  pi-2$ pimesh join pimesh1:…             # the ticket\n  \
                  pi-2$ pimesh send pi-1 \"door open\"\n  \
                  pi-1$ pimesh inbox --follow\n  \
                  pi-1$ pimesh int 42\n\n\
                  Older systems, whose programs go on unchanged (`pimesh gateway --help`):\n  \
                  IID   integers of numbered devices, with dates; over WebSocket and UDP\n  \
                  P2SN  short messages between two programs, sealed with their RSA keys\n  \
                  Syft  agents that send each other signed and sealed messages over WebSocket\n\n\
                  Exit codes:\n  \
                  0  done\n  \
                  1  could not be done\n  \
                  2  the command, or what it was given, is wrong\n  \
                  3  no node is running here\n  \
                  4  what was named is not known: a member, a user, a client\n  \
                  5  not done in time: no answer, or a message's time ran out\n  \
                  6  refused by the other side\n\n\
                  With --json an error is one object on stderr: kind, message, hint."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command; in the help of a command they stand behind its own.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Folder with keys, `pimesh.toml`, store and control socket
    #[arg(long, global = true, env = "PIMESH_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Control socket of the node [default: `control.sock` in the home folder, or that of the
    /// system's service in /run/pimesh]
    #[arg(long, global = true, env = "PIMESH_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON: one object, or one object a line
    #[arg(long, global = true)]
    json: bool,
}

impl Cli {
    /// Says whether the answer, and an error, are JSON.
    pub(crate) const fn json(&self) -> bool {
        self.global.json
    }
}

impl Global {
    /// Returns the whole path of the folder that a node of this user runs in: as given, as systemd
    /// gives it, or the user's data folder.
    fn own_home(&self) -> anyhow::Result<PathBuf> {
        let own = || {
            let folders = directories::ProjectDirs::from("", "", "pimesh")?;
            Some(folders.data_dir().to_owned())
        };
        let home = self.given_home().or_else(own);
        let home = home.context("no home folder is known: name one with `--home`")?;
        Ok(std::path::absolute(home)?)
    }

    fn given_home(&self) -> Option<PathBuf> {
        let given = self.home.clone();
        given.or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
    }

    /// Returns the whole path of the home folder of the node that commands are for: the user's own,
    /// or that of the system's service if that runs and the own one does not.
    fn home(&self) -> anyhow::Result<PathBuf> {
        let own = self.own_home()?;
        let service = Path::new(SERVICE_HOME);
        Ok(if self.is_for_service(&own) && service.is_dir() {
            service.to_owned()
        } else {
            own
        })
    }

    fn is_for_service(&self, own: &Path) -> bool {
        self.given_home().is_none()
            && self.socket.is_none()
            && !socket_of(own).exists()
            // It is there, too, if this user may not look at it: then that is what to say.
            && Path::new(SERVICE_SOCKET).try_exists().unwrap_or(true)
    }

    fn client(&self) -> anyhow::Result<Client> {
        if let Some(socket) = &self.socket {
            return Ok(Client::new(socket));
        }
        let own = self.own_home()?;
        let socket = socket_of(&own);
        let is_service =
            self.is_for_service(&own) || (own == Path::new(SERVICE_HOME) && !socket.exists());
        Ok(Client::new(if is_service {
            PathBuf::from(SERVICE_SOCKET)
        } else {
            socket
        }))
    }
}

/// The home folder of the service in the README, as systemd makes it.
const SERVICE_HOME: &str = "/var/lib/pimesh";

/// Its control socket, where other users reach it.
const SERVICE_SOCKET: &str = "/run/pimesh/control.sock";

/// Returns the control socket of the node in a home folder.
fn socket_of(home: &Path) -> PathBuf {
    let config = pimesh_node::Config::load(home).ok();
    let configured = config.and_then(|config| config.control.socket);
    configured.unwrap_or_else(|| home.join("control.sock"))
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Demo(demo::Demo),
    Invite(invite::Invite),
    Join(join::Join),
    Leave(leave::Leave),
    Peers(peers::Peers),
    Rename(rename::Rename),
    Who(who::Who),
    Trust(trust::Trust),
    Send(send::Send),
    Inbox(inbox::Inbox),
    Outbox(outbox::Outbox),
    Int(int::Int),
    Status(status::Status),
    Gateway(gateway::Gateway),
    P2sn(gateway::P2sn),
    Id(id::Id),
    Doctor(doctor::Doctor),
    Config(config::Config),
    MeshKey(keys::MeshKey),
    Passphrase(keys::PassphraseCommand),
    Home(home::Home),
    Completions(shell::Completions),
    Man(shell::Man),
}

pub(crate) use self::texts::mark;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    match command {
        Command::Config(command) => return command.run(&global),
        Command::Passphrase(command) => return command.run(&global),
        Command::Home(command) => return command.run(&global),
        Command::Completions(command) => return command.run(),
        Command::Man(command) => return command.run(),
        _ => {}
    }
    // One thread serves everything but the disk and RSA: between cores, a small message costs more
    // to hand over than to handle.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let done = runtime.block_on(async {
        match command {
            Command::Run(command) => command.run(&global).await,
            Command::Demo(command) => command.run(&global).await,
            Command::Invite(command) => command.run(&global).await,
            Command::Join(command) => command.run(&global).await,
            Command::Peers(command) => command.run(&global).await,
            Command::Rename(command) => command.run(&global).await,
            Command::Who(command) => command.run(&global).await,
            Command::Trust(command) => command.run(&global).await,
            Command::Send(command) => command.run(&global).await,
            Command::Inbox(command) => command.run(&global).await,
            Command::Outbox(command) => command.run(&global).await,
            Command::Int(command) => command.run(&global).await,
            Command::Status(command) => command.run(&global).await,
            Command::Gateway(command) => command.run(&global).await,
            Command::P2sn(command) => command.run(&global).await,
            Command::Id(command) => command.run(&global).await,
            Command::Doctor(command) => command.run(&global).await,
            Command::Leave(command) => command.run(&global).await,
            Command::MeshKey(command) => command.run(&global).await,
            Command::Config(_)
            | Command::Passphrase(_)
            | Command::Home(_)
            | Command::Completions(_)
            | Command::Man(_) => Ok(()),
        }
    });
    // Nothing that still waits or computes on a thread of its own holds the program, such as a read of
    // standard input or an RSA key: key files are there as a whole or not at all, and the store was
    // closed before.
    runtime.shutdown_background();
    done
}

/// Reads a duration such as `30s`, `15min` or `7d`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).ok_or_else(|| "write it as `30s`, `15min`, `2h` or `7d`".to_owned())
}

/// Returns a time in the seconds that the node counts. A part of a second is one more; nothing stays
/// nothing, for the node to refuse.
fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_own_options_of_a_command_stand_before_those_of_all() {
        fn check(command: &mut clap::Command) {
            let help = command.render_help().to_string();
            let global = help.find("\nOptions of every command:\n");
            let global = global.expect("has a heading of its own");
            assert!(help[global..].contains("--home <DIR>"), "{help}");
            for own in command.get_arguments().filter(|arg| !arg.is_global_set()) {
                let Some(name) = own.get_long() else { continue };
                let at = help.find(&format!("--{name}"));
                assert!(at.is_some_and(|at| at < global), "{name}: {help}");
            }
            let below = command.get_subcommands_mut();
            below.filter(|c| c.get_name() != "help").for_each(check);
        }
        let mut cli = Cli::command();
        cli.build();
        check(&mut cli);
    }

    #[test]
    fn negative_integers_are_values_and_not_flags() {
        let cli = Cli::try_parse_from(["pimesh", "int", "-42", "7", "--index", "-3"]);

        let Command::Int(int) = cli.expect("parses").command else {
            panic!("not `int`")
        };
        assert_eq!(int.values, [-42, 7]);
        assert_eq!(int.index, Some(-3));
    }

    fn send(words: &[&str]) -> send::Send {
        let words = ["pimesh", "send"].iter().chain(words).map(Into::into);
        let cli = Cli::try_parse_from(mark(words));
        match cli.expect("parses").command {
            Command::Send(send) => send,
            _ => panic!("not `send`"),
        }
    }

    #[test]
    fn the_last_word_of_send_is_the_text() {
        let sent = send(&["pi-1", "pi-2", "door open"]);
        assert_eq!(sent.words, ["pi-1", "pi-2", "door open"]);
    }

    #[test]
    fn a_text_that_begins_with_a_minus_is_a_text_and_options_stay_options() {
        let cold = send(&["pi-1", "-5 degrees", "--all"]);
        assert_eq!(cold.words, ["pi-1", "-5 degrees"]);
        assert!(cold.all);
        let sent = send(&["pi-1", "--", "--all"]);
        assert_eq!(
            (sent.words, sent.text),
            (vec!["pi-1".into()], Some("--all".into()))
        );
        assert!(!sent.all);
    }
}
