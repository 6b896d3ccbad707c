//! Templates as text and what they parse to.

use super::random::Random;
use super::*;

/// Parses, and shows the segments, the variables and the verb in one line.
fn show(text: &str) -> String {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => return error.to_string(),
    };
    let mut shown: Vec<String> = template
        .segments()
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => format!("'{text}'"),
            Segment::One => "*".into(),
            Segment::Rest => "**".into(),
        })
        .collect();
    for variable in template.variables() {
        let kind = if variable.multi { "multi" } else { "single" };
        shown.push(format!("{}={:?} {kind}", variable.name(), variable.segments));
    }
    shown.extend(template.verb().map(|verb| format!(":{verb}")));
    shown.join(" ")
}

fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(show(text), *expected, "{text}");
    }
}

#[test]
fn the_grammar() {
    check(&[
        ("/", ""),
        ("/v1", "'v1'"),
        ("/v1/*/**", "'v1' * **"),
        ("/v1/{id}", "'v1' * id=1..2 single"),
        ("/v1/{id=*}", "'v1' * id=1..2 single"),
        ("/v1/{name=shelves/*}", "'v1' 'shelves' * name=1..3 multi"),
        ("/v1/{name=**}", "'v1' ** name=1..2 multi"),
        ("/v1/{name=shelves}", "'v1' 'shelves' name=1..2 single"),
        (
            "/{a.b_c.d1}/{e=x/*}/y",
            "* 'x' * 'y' a.b_c.d1=0..1 single e=1..3 multi",
        ),
        ("/v1/{name=a/*}:move", "'v1' 'a' * name=1..3 multi :move"),
        ("/v1/books:batchGet", "'v1' 'books' :batchGet"),
        ("/v1/*:x", "'v1' * :x"),
        ("/v1/**:x", "'v1' ** :x"),
    ]);
}

#[test]
fn rule_7_the_last_colon_of_the_last_segment_begins_the_verb() {
    check(&[
        ("/v1/a:b:c", "'v1' 'a:b' :c"),
        ("/v1/a:b/c", "'v1' 'a:b' 'c'"),
        ("/v1/a:b/{c}", "'v1' 'a:b' * c=2..3 single"),
        ("/v1/{n=a:b/*}:c", "'v1' 'a:b' * n=1..3 multi :c"),
        ("/v1/a%3Ab", "'v1' 'a:b'"),
        ("/v1/{c}:b:c", "column 10: expected a verb without a colon"),
        ("/v1/a:", "column 7: expected a verb"),
        (
            "/v1/:a",
            "column 5: expected a segment: a literal, `*`, `**` or a variable",
        ),
    ]);
}

#[test]
fn rule_8_literals_after_the_rest_are_accepted_and_known() {
    check(&[
        ("/v1/**/x", "'v1' ** 'x'"),
        ("/{name=a/**/b}/c/*", "'a' ** 'b' 'c' * name=0..3 multi"),
        ("/**/{a=**}", "column 8: expected at most one `**`"),
    ]);
    for (text, beyond) in [
        ("/a/**", false),
        ("/a/**:x", false),
        ("/a/**/x", true),
        ("/a/*/x", false),
    ] {
        assert_eq!(
            Template::parse(text).unwrap().goes_on_after_rest(),
            beyond,
            "{text}"
        );
    }
}

#[test]
fn rule_11_what_is_wrong_is_told_with_its_column() {
    let path = "a character of a path, or its escape";
    let escape = "`%` and two hexadecimal digits, UTF-8 when decoded";
    let segment = "a segment: a literal, `*`, `**` or a variable";
    let never = "a literal without NUL or backslash, and neither `.` nor `..`";
    for (text, column, expected) in [
        ("", 1, "`/`"),
        ("v1", 1, "`/`"),
        ("//", 2, segment),
        ("/v1/", 5, segment),
        ("/v1//a", 5, segment),
        ("/v1/{", 6, "a field name"),
        ("/v1/{}", 6, "a field name"),
        ("/v1/{1a}", 6, "a field name"),
        ("/v1/{a.}", 8, "a field name"),
        ("/v1/{a", 7, "`.`, `=` or `}`"),
        ("/v1/{a-b}", 7, "`.`, `=` or `}`"),
        ("/v1/{a=", 8, segment),
        ("/v1/{a=}", 8, segment),
        ("/v1/{a=b", 9, "`/` or `}`"),
        ("/v1/{a=b/}", 10, segment),
        ("/v1/{a={b}}", 8, "a segment; a variable can't hold another"),
        ("/v1/{a=b/{c}}", 10, "a segment; a variable can't hold another"),
        ("/v1/{a=b:c}:d", 0, ""),
        ("/{a}/{a}", 7, "a variable that is not there already"),
        ("/v1/{a}b", 8, "`/`, `:` or the end"),
        ("/v1/a{b}", 6, "`/`, `:` or the end"),
        ("/v1/a*", 6, "`/`, `:` or the end"),
        ("/v1/*a", 6, "`/`, `:` or the end"),
        ("/v1/***", 7, "`/`, `:` or the end"),
        ("/v1/a}", 6, path),
        ("/v1/a b", 6, path),
        ("/v1/a?b", 6, path),
        ("/é/a#b", 5, path),
        ("/v1/a:b?", 8, path),
        ("/v1/%2", 5, escape),
        ("/v1/a%FF", 6, escape),
        ("/v1/..", 5, never),
        ("/v1/%2e/a", 5, never),
        ("/v1/a%00", 5, never),
        ("/v1/a%5C", 5, never),
    ] {
        let got = Template::parse(text);
        if column == 0 {
            assert!(got.is_ok(), "{text}: {got:?}");
        } else {
            assert_eq!(got, Err(TemplateError { column, expected }), "{text}");
        }
    }
    assert!(Template::parse(&"/a".repeat(MAX_SEGMENTS)).is_ok());
    let long = Template::parse(&"/a".repeat(MAX_SEGMENTS + 1)).unwrap_err();
    assert_eq!((long.column, long.expected), (130, "at most 64 segments"));
}

#[test]
fn a_template_is_written_as_it_would_be_parsed() {
    for (text, written) in [
        ("/", "/"),
        ("/v1/{id=*}", "/v1/{id}"),
        (
            "/v1/{name=shelves/*/books/**}/x/*:go",
            "/v1/{name=shelves/*/books/**}/x/*:go",
        ),
        ("/v1/a%2fb/%2A", "/v1/a%2Fb/%2A"),
        ("/v1/a%3Ab", "/v1/a%3Ab"),
        ("/v1/a:b:c", "/v1/a:b:c"),
        ("/v1/a%20b/книги", "/v1/a%20b/книги"),
        ("/v1/%7Eme/{x=a%7D/b}", "/v1/~me/{x=a%7D/b}"),
    ] {
        let template = Template::parse(text).unwrap();
        assert_eq!(template.to_string(), written);
        assert_eq!(Template::parse(written).unwrap(), template);
    }
}

#[test]
fn mutated_templates_never_panic_and_round_trip_when_they_parse() {
    let seeds = [
        "/v1/{name=shelves/*/books/**}/x/*:go",
        "/v1/{a.b.c}/{d=e/*}:f%3Ag",
        "/v1/a:b/%D0%BA/{x}",
        "/**/a/{b=*}",
    ];
    let alphabet: Vec<char> = "/*{}=.:%2F5Cab_é \\".chars().collect();
    let mut random = Random::new(7);
    let mut parsed = 0;
    for round in 0..20_000 {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..random.below(4) {
            let at = random.below(text.len() + 1);
            let character = alphabet[random.below(alphabet.len())];
            match random.below(3) {
                0 => text.insert(at, character),
                1 if at < text.len() => text[at] = character,
                _ if at < text.len() => drop(text.remove(at)),
                _ => text.truncate(random.below(at + 1)),
            }
            if text.is_empty() {
                text.push('/');
            }
        }
        let text: String = text.into_iter().collect();
        match Template::parse(&text) {
            Ok(template) => {
                parsed += 1;
                let written = template.to_string();
                assert_eq!(
                    Template::parse(&written).as_ref(),
                    Ok(&template),
                    "{text} -> {written}"
                );
            }
            Err(error) => assert!(
                (1..=text.chars().count() + 1).contains(&error.column),
                "{text}: {error}"
            ),
        }
    }
    assert!(parsed > 4_000, "only {parsed} mutants parsed");
}
