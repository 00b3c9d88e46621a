//! What libFuzzer says of a run, as a table.

/// One target's run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) target: String,
    /// Inputs that were run.
    executions: u64,
    /// Places of the code that were reached, by the corpus it began with and at the end.
    covered: (u64, u64),
    /// Where the inputs that broke something are.
    pub(super) findings: Vec<String>,
}

impl Report {
    /// Reads what libFuzzer printed. What it does not say, a run that ended early, counts as zero.
    pub(super) fn read(target: String, said: &str, findings: Vec<String>) -> Self {
        let executions = said.lines().find_map(|line| {
            line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
        });
        let begun = said.lines().find(|line| line.contains("INITED")).and_then(covered);
        let reached = said.lines().filter_map(covered).next_back();
        let reached = reached.unwrap_or_default();
        Self {
            target,
            executions: executions.unwrap_or_default(),
            covered: (begun.unwrap_or(reached), reached),
            findings,
        }
    }
}

/// The coverage in a line such as `#8192 pulse  cov: 911 ft: 3164 corp: 152/17Kb …`.
fn covered(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix('#')?.split_once("cov: ")?;
    rest.split(' ').next()?.parse().ok()
}

/// One line a target under a heading.
pub(super) fn table(reports: &[Report]) -> String {
    let heading = ["target", "executions", "coverage", "new", "crashes"].map(str::to_owned);
    let row = |report: &Report| {
        let (begun, reached) = report.covered;
        [
            report.target.clone(),
            report.executions.to_string(),
            reached.to_string(),
            reached.saturating_sub(begun).to_string(),
            report.findings.len().to_string(),
        ]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(reports.iter().map(row)).collect();
    let width = rows.iter().map(|[target, ..]| target.len()).max().unwrap_or_default();
    let lines = rows.iter().map(|[target, executions, coverage, new, crashes]| {
        format!("{target:<width$}  {executions:>12}  {coverage:>8}  {new:>6}  {crashes:>7}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#28\tINITED cov: 812 ft: 1304 corp: 25/1820b exec/s: 0 rss: 61Mb
#64\tNEW    cov: 820 ft: 1312 corp: 26/1843b lim: 4096 exec/s: 0 rss: 61Mb L: 23/88 MS: 1 EraseBytes-
#524288\tDONE   cov: 911 ft: 3164 corp: 152/17Kb lim: 4096 exec/s: 8738 rss: 91Mb
Done 524288 runs in 60 second(s)
stat::number_of_executed_units: 524288
stat::new_units_added:          127
";

    #[test]
    fn a_run_is_read_from_what_it_printed() {
        let report = Report::read("onnx".to_owned(), SAID, Vec::new());
        assert_eq!((report.executions, report.covered), (524_288, (812, 911)));
    }

    #[test]
    fn a_run_that_ended_at_once_counts_nothing() {
        let report = Report::read("onnx".to_owned(), "cannot start\n", vec!["crash-1".to_owned()]);
        assert_eq!((report.executions, report.covered), (0, (0, 0)));
        let expected = "\
target    executions  coverage     new  crashes
onnx               0         0       0        1";
        assert_eq!(table(&[report]), expected);
    }

    #[test]
    fn the_table_has_a_line_for_each_target() {
        let report = |target: &str| Report::read(target.to_owned(), SAID, Vec::new());
        let expected = "\
target         executions  coverage     new  crashes
oip_request        524288       911      99        0
onnx               524288       911      99        0";
        assert_eq!(table(&[report("oip_request"), report("onnx")]), expected);
    }
}
