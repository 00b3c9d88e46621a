//! Films by their titles, as people write them.

use std::collections::HashMap;

/// The films that are known.
pub(crate) struct Films {
    titles: Vec<String>,
    /// Films by their titles in lower case, with and without the year.
    numbers: HashMap<String, i64>,
}

impl Films {
    /// The films of a list of titles, one a line.
    pub(crate) fn named(titles: &str) -> Self {
        let titles: Vec<_> = titles.lines().map(str::to_owned).collect();
        let mut numbers = HashMap::new();
        for (title, number) in titles.iter().zip(0..) {
            let title = title.to_lowercase();
            let without_year = title.rsplit_once(" (").map(|(name, _)| name.to_owned());
            // Of two films of one name the first has it; with their years both are known.
            without_year.into_iter().for_each(|name| _ = numbers.entry(name).or_insert(number));
            numbers.insert(title, number);
        }
        Self { titles, numbers }
    }

    /// The numbers of the films with these titles.
    ///
    /// # Errors
    /// Which of them is not known.
    pub(crate) fn numbers(&self, titles: &[String]) -> Result<Vec<i64>, String> {
        let number = |title: &String| {
            let number = self.numbers.get(&title.trim().to_lowercase()).copied();
            let known = self.titles.len();
            number.ok_or_else(|| format!("'{title}' is none of the {known} films known here"))
        };
        titles.iter().map(number).collect()
    }

    /// The title of a film; empty where there is none of this number.
    pub(crate) fn title(&self, number: i64) -> &str {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        self.titles.get(place).map_or("", String::as_str)
    }
}
