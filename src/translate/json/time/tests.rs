//! Every day, and the forms that are taken and given.

use bytes::BytesMut;

use super::{Out, Time, date, day_number, duration, low32, mask_paths, mask_text, timestamp};

fn written(write: impl FnOnce(&mut Out<'_>) -> bool) -> Option<String> {
    let mut buffer = BytesMut::new();
    let mut out = Out::new(&mut buffer, 0, 100);
    let fine = write(&mut out);
    out.finish();
    fine.then(|| String::from_utf8(buffer.to_vec()).unwrap())
}

#[test]
fn every_day_of_ten_thousand_years_goes_both_ways() {
    let mut expected = (1_u64, 1_u64, 1_u64);
    for day in 0..3_652_059_u32 {
        assert_eq!(
            date(day),
            (low32(expected.0), low32(expected.1), low32(expected.2))
        );
        let (year, month, of_month) = (
            expected.0.cast_signed(),
            expected.1.cast_signed(),
            expected.2.cast_signed(),
        );
        assert_eq!(day_number(year, month, of_month), i64::from(day) - 719_162);
        expected = if of_month < super::days(year, month) {
            (expected.0, expected.1, expected.2 + 1)
        } else if month < 12 {
            (expected.0, expected.1 + 1, 1)
        } else {
            (expected.0 + 1, 1, 1)
        };
    }
    assert_eq!(expected, (10_000, 1, 1));
}

#[test]
fn timestamps() {
    let check = |text: &str, expected: Option<&str>| {
        let time = timestamp(text.as_bytes());
        let back = time.map(|time| written(|out| time.write_timestamp(out)).unwrap());
        assert_eq!(
            back.as_deref(),
            expected.map(|text| format!("\"{text}\"")).as_deref(),
            "{text}"
        );
    };
    check("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z"));
    check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z"));
    check(
        "9999-12-31T23:59:59.999999999Z",
        Some("9999-12-31T23:59:59.999999999Z"),
    );
    check("2024-02-29T23:59:59.5+02:00", Some("2024-02-29T21:59:59.500Z"));
    check(
        "2024-02-29T00:00:00.000001-00:30",
        Some("2024-02-29T00:30:00.000001Z"),
    );
    for wrong in [
        "2023-02-29T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:59:60Z",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00z",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00.1234567890Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00Z ",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "0000-01-01T00:00:00Z",
        "",
    ] {
        check(wrong, None);
    }
}

#[test]
fn durations() {
    let check = |text: &str, expected: Option<&str>| {
        let time = duration(text.as_bytes());
        let back = time.map(|time| written(|out| time.write_duration(out)).unwrap());
        assert_eq!(
            back.as_deref(),
            expected.map(|text| format!("\"{text}\"")).as_deref(),
            "{text}"
        );
    };
    check("0s", Some("0s"));
    check("-0.5s", Some("-0.500s"));
    check("1.000001s", Some("1.000001s"));
    check("315576000000s", Some("315576000000s"));
    check("-315576000000.999999999s", Some("-315576000000.999999999s"));
    for wrong in [
        "1",
        "s",
        "1.s",
        "+1s",
        "1m",
        "315576000001s",
        "1.0000000000s",
        "--1s",
        " 1s",
    ] {
        check(wrong, None);
    }
}

#[test]
fn a_time_that_has_no_text_is_refused() {
    let time = |seconds, nanos| Time { seconds, nanos };
    assert_eq!(written(|out| time(253_402_300_800, 0).write_timestamp(out)), None);
    assert_eq!(written(|out| time(0, -1).write_timestamp(out)), None);
    assert_eq!(written(|out| time(1, -1).write_duration(out)), None);
    assert_eq!(written(|out| time(i64::MIN + 1, 0).write_duration(out)), None);
    assert_eq!(written(|out| time(0, 1_000_000_000).write_duration(out)), None);
}

#[test]
fn field_mask_paths() {
    let mut paths = Vec::new();
    assert!(mask_paths(b"fooBar.x,y1", |path| paths.push(path.to_vec())));
    assert_eq!(paths, [b"foo_bar.x".to_vec(), b"y1".to_vec()]);
    assert!(!mask_paths(b"foo_bar", |_| {}));
    let text = |path: &[u8]| {
        let mut text = Vec::new();
        mask_text(path, &mut text).then_some(text)
    };
    assert_eq!(text(b"foo_bar.x").as_deref(), Some(&b"fooBar.x"[..]));
    for wrong in [&b"fooBar"[..], b"foo_1", b"foo__bar", b"foo_", b"foo_.x"] {
        assert_eq!(text(wrong), None);
    }
}
