//! Numbers as people read them: bytes, durations, ratios and times of day.

/// A count of bytes: `512 B`, `33.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    scaled(
        count as f64,
        &[("B", 1024.0), ("KiB", 1024.0), ("MiB", 1024.0), ("GiB", 1024.0), ("TiB", 0.0)],
    )
}

/// A duration given in nanoseconds: `850 ns`, `1.5 ms`, `12.0 s`, `3.4 h`.
pub(crate) fn nanoseconds(count: u64) -> String {
    scaled(
        count as f64,
        &[
            ("ns", 1000.0),
            ("us", 1000.0),
            ("ms", 1000.0),
            ("s", 60.0),
            ("min", 60.0),
            ("h", 24.0),
            ("d", 0.0),
        ],
    )
}

/// A ratio with three digits, or `-` where there is nothing to divide by.
pub(crate) fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// A point in time given in milliseconds since 1970, in UTC to the second: `2026-11-24 04:06:55Z`.
pub(crate) fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Divides `value` by each unit's size until it is smaller than the next; the last unit has none.
fn scaled(mut value: f64, units: &[(&str, f64)]) -> String {
    for (place, (unit, next)) in units.iter().enumerate() {
        if value < *next || *next == 0.0 {
            let decimals = usize::from(place > 0);
            return format!("{value:.decimals$} {unit}");
        }
        value /= next;
    }
    String::new()
}

/// The Gregorian date that lies `days` after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of year 0, so that a leap day is the last of its year and the whole
    // calendar repeats every 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, twice over: 153 days in five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(34_800_000), "33.2 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(nanoseconds(999), "999 ns");
        assert_eq!(nanoseconds(1_500_000), "1.5 ms");
        assert_eq!(nanoseconds(90_000_000_000), "1.5 min");
        assert_eq!(ratio(Some(0.93)), "0.930");
        assert_eq!(ratio(None), "-");
    }

    #[test]
    fn times_are_right_around_leap_days_and_turns_of_years() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00Z");
        assert_eq!(time(1_798_761_599_000), "2026-12-31 23:59:59Z");
    }
}
