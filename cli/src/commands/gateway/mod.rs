//! `pimesh gateway`

mod iid;
mod p2sn;
mod settings;
mod syft;

use std::net::SocketAddr;

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use pimesh_node::{
    Config,
    config::unencrypted::Unencrypted,
    control::client::Client,
    gateway::{GatewayReport, visit::ClientReport},
    state::io::Gateway as Name,
};

pub(super) use self::p2sn::P2sn;
use super::Global;
use crate::output;

/// Gateways for clients of older systems: open and close them, see and send away who is behind them
///
/// A gateway is off until it is enabled. In the list, SIGN-INS counts those that succeeded since the
/// node started, and REFUSED the connections that were refused or sent away. The settings are in
/// `pimesh.toml`, section `[gateway.NAME]` (`pimesh config example` shows them all).
#[derive(Debug, Args)]
#[command(
    after_help = "IID:  integers of numbered devices, with dates; over WebSocket and UDP\n\
                  P2SN: short messages between two programs, sealed with their RSA keys\n\
                  Syft: agents that send each other signed and sealed messages over WebSocket\n\n\
                  Example:\n  pimesh gateway enable iid --listen 0.0.0.0:4615\n  \
                        pimesh gateway list\n  pimesh gateway clients"
)]
pub(super) struct Gateway {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the gateways: where they listen, how many clients they have
    List,
    /// List the clients behind the gateways
    Clients,
    /// Send a client away; it may come back
    Kick {
        /// Its number, or a name (then all clients with that name go)
        client: String,
    },
    /// Open a gateway, now and at every start
    ///
    /// If it cannot open, for example because its port is taken, the command says why and ends with
    /// exit code 1, and the node tries again until it can. One that was open goes on as it was, and
    /// `pimesh.toml` stays as it was.
    Enable {
        /// Which
        #[arg(value_parser = names())]
        name: Name,
        /// Where it listens [default: as configured, or on loopback at the old system's port]
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
    /// The gateway for Syft agents, and foreign Syft servers
    Syft {
        #[command(subcommand)]
        action: syft::Syft,
    },
    P2sn(P2sn),
    /// Close a gateway; its clients are sent away
    Disable {
        /// Which
        #[arg(value_parser = names())]
        name: Name,
    },
    Iid(iid::Iid),
}

/// Reads the name of a gateway.
fn names() -> impl TypedValueParser<Value = Name> {
    let names = PossibleValuesParser::new(Name::ALL.map(Name::name));
    names.try_map(|given| Name::named(&given).ok_or("there is no such gateway"))
}

impl Gateway {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self.action {
            Action::List => show_gateways(global, &global.client()?.gateways().await?),
            Action::Clients => show_clients(global, &global.client()?.clients().await?),
            Action::Kick { client } => {
                let kicked = global.client()?.kick(&client).await?;
                if global.json {
                    return kicked.iter().try_for_each(output::json);
                }
                kicked.iter().try_for_each(|client| {
                    let name = client.name.as_deref().unwrap_or("-");
                    output::line(format!("sent away {name} at {}", client.address))
                })
            }
            Action::Enable { name, listen } => {
                let home = global.home()?;
                let before = settings::text(&home)?;
                settings::set(&home, name.name(), true, listen)?;
                warn_of_unencrypted(&Config::load(&home)?, name);
                let written = settings::text(&home)?;
                in_force(global, name, true, || {
                    settings::put_back(&home, before.as_deref(), written.as_deref())
                })
                .await
            }
            Action::Syft { action } => action.run(global).await,
            Action::Disable { name } => {
                settings::set(&global.home()?, name.name(), false, None)?;
                in_force(global, name, false, || Ok(false)).await
            }
            Action::Iid(command) => command.run(global).await,
            Action::P2sn(command) => command.run(global).await,
        }
    }
}

/// Warns of listeners of a gateway that other machines reach and that do not encrypt.
fn warn_of_unencrypted(config: &Config, name: Name) {
    let all = config.gateways.unencrypted();
    for found in all.iter().filter(|found| found.gateway == name.name()) {
        output::note(format!(
            "warning: {}; {}",
            found.problem(),
            Unencrypted::TODO
        ));
    }
}

/// Says what was done; with `--json` as one object.
fn said(global: &Global, text: impl Into<String>) -> anyhow::Result<()> {
    if global.json {
        return output::json(&serde_json::json!({ "done": text.into() }));
    }
    output::line(text.into())
}

/// Has a running node read its settings and lists again; says whether one is running.
async fn reload(client: &Client) -> anyhow::Result<bool> {
    match client.reload().await {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_running() => {
            output::note("the node is not running; it reads this when it starts");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Has a running node take the settings, and shows how the gateway is. Settings with which it does
/// not open, while it goes on with those before, are put back.
async fn in_force(
    global: &Global,
    name: Name,
    enabled: bool,
    put_back: impl FnOnce() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let client = global.client()?;
    if !reload(&client).await? {
        return Ok(());
    }
    let gateways = client.gateways().await?;
    let is_it = |gateway: &&GatewayReport| gateway.gateway == name;
    let gateways: Vec<GatewayReport> = gateways.iter().filter(is_it).cloned().collect();
    show_gateways(global, &gateways)?;
    let section = name.name();
    if let Some(why) = gateways
        .first()
        .and_then(|gateway| gateway.refused.as_ref())
    {
        let kept = if put_back()? {
            reload(&client).await?;
            "and `pimesh.toml` is as it was"
        } else {
            "but `pimesh.toml` has the new ones"
        };
        return Err(output::hinted(
            format!(
                "the gateway {section} does not open with these settings: {why}; it goes on with \
                 those before, {kept}"
            ),
            "an address is one of this machine, with a port that no other program has; `0.0.0.0` \
             stands for all of them",
        ));
    }
    let why = match gateways.first() {
        Some(GatewayReport {
            error: Some(error), ..
        }) => error.clone(),
        Some(gateway) if enabled && !gateway.open => "it takes longer than usual".to_owned(),
        _ => return Ok(()),
    };
    Err(output::hinted(
        format!("the gateway {section} is not open: {why}"),
        format!(
            "the node tries again by itself; `pimesh gateway list` shows whether it is open by \
             then, `pimesh gateway disable {section}` gives it up"
        ),
    ))
}

fn show_gateways(global: &Global, gateways: &[GatewayReport]) -> anyhow::Result<()> {
    if global.json {
        return gateways.iter().try_for_each(output::json);
    }
    let row = |gateway: &GatewayReport| {
        let addresses: Vec<String> = gateway
            .addresses
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        let state = match (&gateway.error, gateway.open) {
            (Some(_), _) => "failed",
            (None, true) => "open",
            (None, false) => "off",
        };
        let place = gateway.error.clone().unwrap_or_else(|| addresses.join(" "));
        let place = match &gateway.refused {
            Some(why) => format!("{place} (new settings: {why})"),
            None => place,
        };
        vec![
            gateway.gateway.name().to_owned(),
            state.to_owned(),
            gateway.clients.to_string(),
            gateway.signing_in.to_string(),
            gateway.sign_ins.to_string(),
            gateway.kicks.to_string(),
            if place.is_empty() {
                "-".to_owned()
            } else {
                place
            },
        ]
    };
    let rows: Vec<_> = gateways.iter().map(row).collect();
    output::table(
        &[
            "GATEWAY",
            "STATE",
            "CLIENTS",
            "SIGNING IN",
            "SIGN-INS",
            "REFUSED",
            "ADDRESS",
        ],
        &rows,
    )?;
    Ok(())
}

fn show_clients(global: &Global, clients: &[ClientReport]) -> anyhow::Result<()> {
    if global.json {
        return clients.iter().try_for_each(output::json);
    }
    let row = |client: &ClientReport| {
        vec![
            client.client.0.to_string(),
            client.gateway.name().to_owned(),
            client
                .name
                .clone()
                .unwrap_or_else(|| "signing in".to_owned()),
            client.address.to_string(),
            client.received.to_string(),
            client.sent.to_string(),
            client.detail.clone(),
        ]
    };
    let rows: Vec<_> = clients.iter().map(row).collect();
    output::table(
        &[
            "NUMBER", "GATEWAY", "NAME", "ADDRESS", "RECEIVED", "SENT", "DETAIL",
        ],
        &rows,
    )?;
    Ok(())
}
