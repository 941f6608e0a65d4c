//! Figures of pimesh, beside the limits of the machine and bare libp2p, in one run.
//!
//! `cargo bench --workspace --bench figures -- [--json] [machine|bare|pair|many|cable]…`
//!
//! Nothing in here passes or fails: a figure that misses its target is marked, and that is all.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are for the terminal"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are approximate")]

mod bare;
mod cable;
mod child;
mod machine;
mod mesh;
mod node;
mod report;

use report::{Report, Target};

fn main() -> anyhow::Result<()> {
    // A node's own runtime has one thread, so the children's have too.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["--bare"] => runtime.block_on(bare::run()),
        ["--node", home, name] => runtime.block_on(node::run(home, name)),
        _ => runtime.block_on(measure(&words)),
    }
}

async fn measure(words: &[&str]) -> anyhow::Result<()> {
    let json = words.contains(&"--json");
    let groups: Vec<&str> = words.iter().copied().filter(|w| *w != "--json").collect();
    let wanted = |group| groups.is_empty() || groups.contains(&group);
    let mut report = Report::default();
    let flush = if wanted("machine") || wanted("pair") {
        machine::measure(&mut report)?
    } else {
        f64::NAN
    };
    if wanted("bare") || wanted("pair") {
        let bare = bare::measure(&mut report).await?;
        if wanted("pair") {
            mesh::pair(&mut report, &bare, flush).await?;
        }
    }
    if wanted("many") {
        for receivers in [2, 5, 10] {
            mesh::many(&mut report, receivers).await?;
        }
        binary(&mut report)?;
    }
    if wanted("cable") {
        cable::measure(&mut report).await?;
    }
    if json {
        return report.print_json();
    }
    report.print_table();
    Ok(())
}

/// Measures the packaged program, if it was built (`cargo build --profile dist`).
fn binary(report: &mut Report) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let target = own
        .ancestors()
        .nth(3)
        .map(|target| target.join("dist/pimesh"));
    match target.filter(|path| path.exists()) {
        Some(path) => {
            let size = std::fs::metadata(path)?.len() as f64 / 1e6;
            report.aim("packaged program", size, "MB", Target::AtMost(18.0));
        }
        None => eprintln!("  no target/dist/pimesh: `cargo build --profile dist` makes it"),
    }
    Ok(())
}
