//! The stages of a long command: announced when they begin, timed, and listed at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Runs stages one after another; prints the table of times when dropped, after a failure too.
#[derive(Default)]
pub(crate) struct Stages {
    done: Vec<(String, Duration)>,
    /// Names of the stages that were attempted and failed.
    failed: Vec<String>,
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

    /// Runs one stage that no later one needs: its failure is shown now, and counts at the end.
    pub(crate) fn attempt(&mut self, name: &str, stage: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.run(name, stage) {
            eprintln!("error: {error:#}");
            self.failed.push(name.to_owned());
        }
    }

    /// Errors if an attempted stage failed.
    pub(crate) fn finish(self) -> Result<()> {
        ensure!(self.failed.is_empty(), "failed: {}", self.failed.join(", "));
        Ok(())
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

    #[test]
    fn an_attempt_that_fails_lets_the_next_run_and_counts_at_the_end() {
        let mut stages = Stages::default();
        stages.attempt("format", || anyhow::bail!("no"));
        stages.attempt("tidy", || Ok(()));
        assert_eq!(stages.done.len(), 2);
        assert_eq!(stages.finish().unwrap_err().to_string(), "failed: format");
    }
}
