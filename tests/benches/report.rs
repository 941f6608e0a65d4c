//! Figures, and how they are printed.

use serde::Serialize;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// What is aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure, and says so on stderr: a run takes minutes.
    pub(crate) fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.push(what.into(), value, unit, None);
    }

    /// Adds a figure that has a target.
    pub(crate) fn aim(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        self.push(what.into(), value, unit, Some(target));
    }

    /// Adds the median and the 99th percentile of times in microseconds.
    pub(crate) fn times(
        &mut self,
        what: &str,
        mut times: Vec<f64>,
        targets: [Option<Target>; 2],
    ) -> f64 {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = times.len().saturating_sub(1);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            times
                .get((share * last as f64).round() as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let (median, p99) = (at(0.5), at(0.99));
        self.push(format!("{what}, p50"), median, "us", targets[0]);
        self.push(format!("{what}, p99"), p99, "us", targets[1]);
        median
    }

    fn push(&mut self, what: String, value: f64, unit: &'static str, target: Option<Target>) {
        eprintln!("  {what}: {} {unit}", readable(value));
        self.figures.push(Figure {
            what,
            value,
            unit,
            target,
        });
    }

    /// Prints a table.
    pub(crate) fn print_table(&self) {
        let width = self.figures.iter().map(|f| f.what.chars().count()).max();
        let width = width.unwrap_or(0);
        println!("{:width$}  {:>12}  unit    target", "figure", "value");
        for figure in &self.figures {
            let target = match figure.target {
                None => String::new(),
                Some(Target::AtMost(most)) => {
                    format!("<= {} {}", readable(most), mark(figure.value <= most))
                }
                Some(Target::AtLeast(least)) => {
                    format!(">= {} {}", readable(least), mark(figure.value >= least))
                }
            };
            println!(
                "{:width$}  {:>12}  {:<6}  {target}",
                figure.what,
                readable(figure.value),
                figure.unit
            );
        }
    }

    /// Prints one JSON object.
    pub(crate) fn print_json(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string_pretty(self)?);
        Ok(())
    }
}

const fn mark(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

fn readable(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
