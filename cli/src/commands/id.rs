//! `pimesh id`

use clap::Args;
use serde::Serialize;

use super::{Global, invite::qr_code};
use crate::output;

/// Show who this node is: peer id, name, index, keys
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Id {
    /// Draw the peer id as a QR code
    #[arg(long)]
    qr: bool,
}

#[derive(Serialize)]
struct Shown {
    peer_id: String,
    name: String,
    index: i32,
    messaging_key: String,
    rsa_fingerprint: Option<String>,
}

impl Id {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let node = global.client()?.status().await?.node;
        let shown = Shown {
            peer_id: node.peer_id.to_string(),
            name: node.name,
            index: node.index.0,
            messaging_key: node.messaging_key,
            rsa_fingerprint: node.rsa_fingerprint,
        };
        if global.json {
            return output::json(&shown);
        }
        output::own_line(format!("peer id        {}", shown.peer_id))?;
        output::line(format!("name           {}", shown.name))?;
        output::line(format!("index          {}", shown.index))?;
        output::own_line(format!("messaging key  {}", shown.messaging_key))?;
        let rsa = shown
            .rsa_fingerprint
            .unwrap_or_else(|| "being made".to_owned());
        output::own_line(format!("RSA key        {rsa}"))?;
        if self.qr {
            output::generated(&qr_code(&shown.peer_id)?)?;
        }
        Ok(())
    }
}
