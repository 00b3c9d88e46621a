//! The stages of a long command: announced when they begin, timed, and listed at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Runs stages one after another; prints the table of times when dropped, after a failure too.
#[derive(Default)]
pub(crate) struct Stages {
    done: Vec<(String, Duration)>,
}

impl Stages {
    /// Runs one stage; its error says which stage it was.
    pub(crate) fn run<T>(&mut self, name: &str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let start = Instant::now();
        let result = stage().with_context(|| format!("stage '{name}' failed"));
        let name = if result.is_ok() { name.to_owned() } else { format!("{name} (failed)") };
        self.done.push((name, start.elapsed()));
        result
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        println!("\n{}", table(&self.done));
    }
}

fn table(done: &[(String, Duration)]) -> String {
    let total: Duration = done.iter().map(|(_, time)| *time).sum();
    let rows = done.iter().map(|(name, time)| (name.as_str(), *time));
    let rows: Vec<_> = rows.chain(std::iter::once(("total", total))).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows.iter().map(|(name, time)| {
        format!(
            "{name:<width$}  {:>3} min {:>4.1} s",
            time.as_secs() / 60,
            time.as_secs_f64() % 60.0
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_each_stage_and_the_total() {
        let done = [
            ("setup".to_owned(), Duration::from_millis(1_500)),
            ("rust tests".to_owned(), Duration::from_secs(125)),
        ];
        let expected = "\
setup         0 min  1.5 s
rust tests    2 min  5.0 s
total         2 min  6.5 s";
        assert_eq!(table(&done), expected);
    }

    #[test]
    fn a_failed_stage_is_named_in_the_error_and_in_the_table() {
        let mut stages = Stages::default();
        let error = stages.run("build", || -> Result<()> { anyhow::bail!("no") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "stage 'build' failed: no");
        assert_eq!(stages.done[0].0, "build (failed)");
    }
}
