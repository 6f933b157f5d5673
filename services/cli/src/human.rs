//! Amounts and times as people read them.

use std::{fmt::Write as _, time::Duration};

use airfleet_domain::resources::Resources;
use jiff::{Timestamp, Unit};

/// A time span in its two largest units, as `kubectl` shows ages: `42s`, `5m10s`, `3d4h`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |first: u64, unit: char, second: u64, small: char| {
        if second == 0 { format!("{first}{unit}") } else { format!("{first}{unit}{second}{small}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 && seconds < 3600 => two(minutes, 'm', seconds % 60, 's'),
        () if seconds < 3 * 3600 => format!("{}m", seconds / 60),
        () if days == 0 => two(hours, 'h', minutes, 'm'),
        () if days < 8 => two(days, 'd', hours, 'h'),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, 'y', days % 365, 'd'),
    }
}

/// A short span with its fraction: `0ms`, `250ms`, `1.5s`, then as [`span`].
pub fn short_span(span_ms: i64) -> String {
    let span_ms = span_ms.max(0);
    match span_ms {
        0..=999 => format!("{span_ms}ms"),
        1000..=9999 => format!("{}.{}s", span_ms / 1000, span_ms % 1000 / 100),
        _ => span(Duration::from_millis(span_ms as u64)),
    }
}

/// How long ago it was; a time to come is now.
pub fn age(time: Timestamp, now: Timestamp) -> String {
    let elapsed = now.duration_since(time);
    span(Duration::try_from(elapsed).unwrap_or_default())
}

/// A time in UTC, to the second.
pub fn time(time: Timestamp) -> String {
    let time = time.round(Unit::Second).unwrap_or(time);
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A time and how long ago it was.
pub fn time_and_age(when: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", time(when), age(when, now))
}

/// Bytes in binary units: `512 B`, `1.5 MiB`.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count.unsigned_abs() < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be rounded up to 1024.0.
    while value.abs() >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its noun, in the plural where there is not one.
pub fn count(number: impl TryInto<i64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(i64::MAX);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Parse time as a share of a minute: `250ms/min`, `1.5s/min`.
pub fn parse_time(ms_per_minute: i64) -> String {
    format!("{}{}/min", if ms_per_minute < 0 { "-" } else { "" }, short_span(ms_per_minute.abs()))
}

/// Every dimension that is not zero, in words; empty where all are.
pub fn resources(amounts: &Resources) -> String {
    let Resources {
        dags,
        task_starts_per_hour,
        running_slots,
        metadata_bytes,
        parse_ms_per_minute,
    } = *amounts;
    let parts = [
        (dags, count(dags, "DAG")),
        (task_starts_per_hour, format!("{}/h", count(task_starts_per_hour, "task start"))),
        (running_slots, count(running_slots, "slot")),
        (metadata_bytes, format!("{} of metadata", bytes(metadata_bytes))),
        (parse_ms_per_minute, format!("{} of parsing", parse_time(parse_ms_per_minute))),
    ];
    let shown: Vec<String> =
        parts.into_iter().filter(|(amount, _)| *amount != 0).map(|(_, text)| text).collect();
    shown.join(", ")
}

/// What is taken of what there is: `12/200`, or `12` where there is no limit.
pub fn of_capacity(taken: i64, capacity: i64) -> String {
    if capacity == 0 { taken.to_string() } else { format!("{taken}/{capacity}") }
}

/// A list of texts, cut where it gets long.
pub fn list(texts: &[String], most: usize) -> String {
    let mut text = texts.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(",");
    if texts.len() > most {
        let _ = write!(text, ",… (+{})", texts.len() - most);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (660, "11m"),
            (7260, "121m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (86_400, "1d"),
            (86_400 * 3 + 3600 * 4, "3d4h"),
            (86_400 * 30, "30d"),
            (86_400 * 800, "2y70d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text, "{seconds}");
        }
        assert_eq!(short_span(-5), "0ms");
        assert_eq!(short_span(1560), "1.5s");
        assert_eq!(short_span(61_000), "61s");
    }

    #[test]
    fn a_clock_that_is_behind_shows_now() {
        let time = Timestamp::from_second(1000).unwrap();
        assert_eq!(age(time, Timestamp::from_second(990).unwrap()), "0s");
        assert_eq!(age(time, Timestamp::from_second(1042).unwrap()), "42s");
    }

    #[test]
    fn bytes_have_binary_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (-1536, "-1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (i64::MAX, "8.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn amounts_name_only_what_is_there() {
        assert_eq!(resources(&Resources::ZERO), "");
        let amounts = Resources { dags: 1, task_starts_per_hour: 40, ..Resources::ZERO };
        assert_eq!(resources(&amounts), "1 DAG, 40 task starts/h");
        assert_eq!(of_capacity(3, 0), "3");
        assert_eq!(of_capacity(3, 10), "3/10");
    }

    #[test]
    fn long_lists_are_cut() {
        let texts: Vec<String> = (1..=4).map(|n| format!("p{n}")).collect();
        assert_eq!(list(&texts, 4), "p1,p2,p3,p4");
        assert_eq!(list(&texts, 2), "p1,p2,… (+2)");
    }
}
