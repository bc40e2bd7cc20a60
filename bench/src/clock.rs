//! Wall-clock time, as numbers and in the two spellings an Ollama server uses (RFC 3339 with nanoseconds, HTTP date).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970. Two processes on one machine read the same clock, so stamps may be compared across them.
#[expect(clippy::disallowed_methods, reason = "this package has no clock of its own to inject")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Nanoseconds since 1970.
pub fn nanos() -> u64 {
    u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
}

/// A point in time as year, month, day, hour, minute, second, weekday (0 is Sunday).
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: u64,
}

/// Days to dates after Howard Hinnant, "chrono-compatible low-level date algorithms", for dates from 1970 on.
fn civil(seconds: u64) -> Civil {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * march_month + 2) / 5 + 1,
        hour: rest / 3_600,
        minute: rest % 3_600 / 60,
        second: rest % 60,
        weekday: (days + 4) % 7,
    }
}

/// `2026-11-23T14:21:51.917690246Z`
pub fn rfc3339(at: Duration) -> String {
    let c = civil(at.as_secs());
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", c.year, c.month, c.day, c.hour, c.minute, c.second, at.subsec_nanos())
}

/// `Mon, 23 Nov 2026 14:21:51 GMT`
pub fn http_date(at: Duration) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let c = civil(at.as_secs());
    let day = DAYS[usize::try_from(c.weekday).unwrap_or(0) % 7];
    let month = MONTHS[usize::try_from(c.month - 1).unwrap_or(0) % 12];
    format!("{day}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT", c.day, c.year, c.hour, c.minute, c.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_spelled_right() {
        assert_eq!(rfc3339(Duration::new(0, 1)), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(rfc3339(Duration::from_secs(951_782_401)), "2000-02-29T00:00:01.000000000Z");
        assert_eq!(rfc3339(Duration::from_secs(1_795_443_711)), "2026-11-23T14:21:51.000000000Z");
        assert_eq!(http_date(Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
