//! Figures of pimesh, beside the limits of the machine and bare libp2p, in one run.
//!
//! `cargo bench --workspace --bench figures -- [--json] [GROUP]…`
//!
//! Groups: `machine`, `bare`, `pair`, `many`, `packaged`, `cable`, `iid`, `syft`; all without any.
//!
//! `packaged`, `cable`, `iid` and `syft` run the packaged program: `cargo build --profile dist` first. With
//! `cargo build --release` alone they run that one, which is larger.
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
mod iid;
mod machine;
mod mesh;
mod node;
mod packaged;
mod report;
mod syft;

use std::path::PathBuf;

use report::Report;

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
        ["--bare"] => runtime.block_on(bare::run(bare::Which::Bare)),
        ["--pimesh-transport"] => runtime.block_on(bare::run(bare::Which::Pimesh)),
        ["--syft-relay"] => runtime.block_on(syft::relay::run()),
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
            mesh::pair(&mut report, bare, flush).await?;
        }
    }
    if wanted("many") {
        for receivers in [2, 5, 10] {
            mesh::many(&mut report, receivers).await?;
        }
    }
    match packaged_program()? {
        Some(program) => {
            pimesh_tests::use_program(program.clone());
            if wanted("packaged") {
                packaged::measure(&mut report, &program).await?;
            }
            if wanted("cable") {
                cable::measure(&mut report).await?;
            }
            if wanted("iid") {
                iid::measure(&mut report).await?;
            }
            if wanted("syft") {
                syft::measure(&mut report).await?;
            }
        }
        None => eprintln!("  no packaged program: `cargo build --profile dist` makes it"),
    }
    if json {
        return report.print_json();
    }
    report.print_table();
    Ok(())
}

fn packaged_program() -> anyhow::Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    // It runs from TARGET/release/deps.
    let target = own.ancestors().nth(3);
    let programs = ["dist/pimesh", "release/pimesh"];
    let mut programs = programs.iter().filter_map(|p| target.map(|t| t.join(p)));
    Ok(programs.find(|path| path.exists()))
}
