//! Requests against routes, and a search through every template as the judge.

use super::*;
use crate::schema::template::Segment;
use crate::schema::template::random::Random;

const GET: Method = Method::GET;
const POST: Method = Method::POST;

fn method(text: &str) -> HttpMethod {
    match text {
        "*" => HttpMethod::Any,
        text => HttpMethod::Exact(text.parse().unwrap()),
    }
}

/// Routes from lines such as `GET /v1/{id}`; the entry is the index of the line.
fn routes(lines: &[&str]) -> Routes {
    with_options(PathOptions::default(), lines)
}

fn with_options(options: PathOptions, lines: &[&str]) -> Routes {
    let mut builder = RoutesBuilder::new();
    builder.options(options);
    for (entry, line) in lines.iter().enumerate() {
        let entry = u32::try_from(entry).unwrap();
        match line.split_once(' ').unwrap() {
            ("RPC", path) => builder.rpc(&[], path, entry).unwrap(),
            (kind, template) => builder
                .bind(&[], method(kind), &Template::parse(template).unwrap(), entry, 0)
                .unwrap(),
        }
    }
    builder.build()
}

/// What a request finds, in one line: the entry and the captures, or the refusal.
fn show(found: Result<Matched, NoRoute>) -> String {
    match found {
        Ok(matched) => {
            let mut shown = matched.entry.to_string();
            for value in matched.captures.iter() {
                shown.push_str(&format!(" [{value}]"));
            }
            shown
        }
        Err(NoRoute::MethodNotAllowed { allow }) => format!("allow {allow}"),
        Err(error) => error.to_string(),
    }
}

fn check(routes: &Routes, table: &[(&str, &str)]) {
    for (request, expected) in table {
        let (method, path) = request.split_once(' ').unwrap();
        let got = show(routes.find(None, &method.parse().unwrap(), path));
        assert_eq!(got, *expected, "{request}");
    }
}

const UNKNOWN: &str = "no route for this path";

#[test]
fn rule_1_a_path_is_split_before_it_is_decoded_and_decoded_once() {
    let routes = routes(&["GET /v1/{id}", "GET /v1/{a}/{b}", "GET /v1/names/{name=x/*}"]);
    check(
        &routes,
        &[
            ("GET /v1/a%2Fb", "0 [a/b]"),
            ("GET /v1/a%2Fb/c", "1 [a/b] [c]"),
            ("GET /v1/50%25", "0 [50%]"),
            ("GET /v1/50%2525", "0 [50%25]"),
            ("GET /v1/a+b", "0 [a+b]"),
            ("GET /v1/%D0%BA", "0 [к]"),
        ],
    );
}

#[test]
fn a_literal_is_compared_with_the_decoded_segment() {
    let routes = routes(&["GET /v1/me", "GET /v1/{id}", "GET /v1/@all/a%20b", "GET /v1/x:go"]);
    check(
        &routes,
        &[
            ("GET /v1/%6De", "0"),
            ("GET /%761/me", "0"),
            ("GET /v1/%40all/a%20b", "2"),
            ("GET /v1%2Fme", UNKNOWN),
            (
                "GET /v1/%FF",
                "the path is not valid: the escapes at byte 4 are not UTF-8",
            ),
        ],
    );
}

#[test]
fn rule_2_an_escaped_slash_stays_in_a_value_of_several_segments() {
    let routes = routes(&[
        "GET /a/{name=x/*}",
        "GET /b/{name=**}",
        "GET /c/{name=*}",
        "GET /d/{name=**}/e",
    ]);
    check(
        &routes,
        &[
            ("GET /a/x/y%2Fz%2fw%3A", "0 [x/y%2Fz%2fw:]"),
            ("GET /a/%78/y", "0 [x/y]"),
            ("GET /b/one%2Ftwo", "1 [one%2Ftwo]"),
            ("GET /b/one/t%20o", "1 [one/t o]"),
            ("GET /c/one%2Ftwo", "2 [one/two]"),
            ("GET /d/e", "3 []"),
            ("GET /d/e/e", "3 [e]"),
            ("GET /d/a//b/e", "3 [a//b]"),
        ],
    );
}

#[test]
fn rule_3_reserved_characters_stay_by_option() {
    let options = PathOptions {
        unescape: PathUnescape::AllExceptReserved,
        ..PathOptions::default()
    };
    let routes = with_options(options, &["GET /a/{name=**}", "GET /b/{name}"]);
    check(
        &routes,
        &[
            ("GET /a/x%23%2f%3A%20", "0 [x%23%2f%3A ]"),
            ("GET /b/x%23%2f%3A%20", "1 [x#/: ]"),
        ],
    );
}

#[test]
fn rule_4_and_ambiguous_paths_are_refused_before_they_are_matched() {
    let routes = routes(&["* /**"]);
    for (path, expected) in [
        ("/%", PathError::Escape(url::EscapeError::Digits { at: 1 })),
        ("/a/b%2", PathError::Escape(url::EscapeError::Digits { at: 4 })),
        ("/a%zz", PathError::Escape(url::EscapeError::Digits { at: 2 })),
        ("/a%u0041", PathError::Escape(url::EscapeError::Digits { at: 2 })),
        ("/a\0b", PathError::Control { at: 2 }),
        ("/a\tb", PathError::Control { at: 2 }),
        ("/a\x7f", PathError::Control { at: 2 }),
        ("/a%00b", PathError::Control { at: 2 }),
        ("/a\\b", PathError::Backslash { at: 2 }),
        ("/a%5Cb", PathError::Backslash { at: 2 }),
        ("/a%5cb", PathError::Backslash { at: 2 }),
        ("/.", PathError::DotSegment { at: 1 }),
        ("/..", PathError::DotSegment { at: 1 }),
        ("/a/../b", PathError::DotSegment { at: 3 }),
        ("/a/./", PathError::DotSegment { at: 3 }),
        ("/a/%2e%2E/b", PathError::DotSegment { at: 3 }),
        ("/a/.%2e", PathError::DotSegment { at: 3 }),
        ("/a/..;x=1/b", PathError::DotSegment { at: 3 }),
        ("/a/.;/b", PathError::DotSegment { at: 3 }),
        ("/a/%2e%2e%3bx", PathError::DotSegment { at: 3 }),
        ("", PathError::Relative),
        ("*", PathError::Relative),
        ("a/b", PathError::Relative),
    ] {
        let got = routes.find(None, &GET, path);
        assert_eq!(got, Err(NoRoute::Malformed(expected)), "{path:?}");
    }
    for path in [
        "/...",
        "/.a",
        "/a.",
        "/..a",
        "/a..",
        "/%2e%2e%2e",
        "/;a",
        "/a;..",
        "/a/%0A",
        "/..%2Fa",
        "/..:x",
        "//",
        "/a//b",
    ] {
        assert!(routes.find(None, &GET, path).is_ok(), "{path:?}");
    }
}

#[test]
fn rule_5_the_most_specific_template_wins_in_any_order_of_declaration() {
    let lines = [
        "GET /a/b/c",
        "GET /a/b/*",
        "GET /a/*/c",
        "GET /a/*/*",
        "GET /a/**",
        "GET /**",
        "GET /a/**/z/z",
        "GET /a/**/z",
        "GET /*/b/c/d/e",
        "POST /a/b/c/d",
    ];
    let table = [
        ("GET /a/b/c", 0),
        ("GET /a/b/x", 1),
        ("GET /a/x/c", 2),
        ("GET /a/x/y", 3),
        ("GET /a/x/y/w", 4),
        ("GET /a", 4),
        ("GET /", 5),
        ("GET /x/y", 5),
        ("GET /a/1/2/z/z", 6),
        ("GET /a/1/2/3/z", 7),
        // `/a/b/c/d` has this method's sibling only, which does not end the search.
        ("GET /a/b/c/d", 4),
        ("POST /a/b/c/d", 9),
        // A literal is tried first; what follows `a` does not fit, so the search comes back.
        ("GET /x/b/c/d/e", 8),
    ];
    for turn in 0..lines.len() {
        let mut turned = lines;
        turned.rotate_left(turn);
        let routes = routes(&turned);
        for (request, line) in table {
            let (method, path) = request.split_once(' ').unwrap();
            let found = routes.find(None, &method.parse().unwrap(), path).unwrap();
            assert_eq!(
                turned[found.entry as usize], lines[line],
                "{request}, turned by {turn}"
            );
        }
    }
}

#[test]
fn rule_5_any_method_comes_after_the_exact_one_at_the_same_node() {
    let routes = routes(&[
        "* /v1/{id}",
        "GET /v1/{id}",
        "GET /v1/**",
        "* /v1/a",
        "LINK /v1/a",
    ]);
    check(
        &routes,
        &[
            ("GET /v1/x", "1 [x]"),
            ("HEAD /v1/x", "1 [x]"),
            ("PUT /v1/x", "0 [x]"),
            ("PURGE /v1/x", "0 [x]"),
            ("GET /v1/a", "3"),
            ("LINK /v1/a", "4"),
            ("PUT /v1/x/y", "allow GET, HEAD"),
        ],
    );
}

#[test]
fn rule_6_the_later_of_two_bindings_with_one_shape_is_refused() {
    let api: Host = "api.example.com".parse().unwrap();
    let mut builder = RoutesBuilder::new();
    let mut bind = |hosts: &[Host], kind: &str, template: &str, entry| {
        let template = Template::parse(template).unwrap();
        builder
            .bind(hosts, method(kind), &template, entry, 3)
            .map_err(|conflict| conflict.to_string())
    };
    assert_eq!(bind(&[], "GET", "/v1/{a=x/*}:go", 0), Ok(()));
    assert_eq!(
        bind(&[], "GET", "/v1/x/{b}:go", 1),
        Err("`GET /v1/x/{b}:go` answers what `GET /v1/{a=x/*}:go` answers already".into())
    );
    for (kind, template) in [
        ("POST", "/v1/x/{b}:go"),
        ("*", "/v1/x/{b}:go"),
        ("GET", "/v1/x/{b}"),
        ("GET", "/v1/x/{b}:stop"),
        ("GET", "/v1/x/{b=**}:go"),
    ] {
        assert_eq!(bind(&[], kind, template, 2), Ok(()), "{kind} {template}");
    }
    assert_eq!(bind(std::slice::from_ref(&api), "GET", "/v1/x/{b}", 4), Ok(()));
    let other: Host = "other.example.com".parse().unwrap();
    let refused = bind(&[other.clone(), api], "GET", "/v1/%78/{c}", 5).unwrap_err();
    assert!(refused.ends_with(" on api.example.com"), "{refused}");
    // Nothing of the refused one is kept, on its other host either.
    assert_eq!(bind(&[other], "GET", "/v1/x/{d}", 6), Ok(()));

    assert_eq!(builder.rpc(&[], "/p.S/M", 7), Ok(()));
    let refused = builder.rpc(&[], "/p.S/M", 8).unwrap_err();
    assert_eq!((refused.held.entry, refused.refused.entry), (7, 8));
    let routes = builder.build();
    check(&routes, &[("GET /v1/x/1:go", "0 [x/1]"), ("POST /p.S/M", "7")]);
}

#[test]
fn rule_7_a_colon_is_a_verb_only_where_a_template_that_matches_has_it() {
    let routes = routes(&[
        "GET /v1/{name=vessels/*}",
        "POST /v1/{name=vessels/*}:depart",
        "POST /v1/other/*:arrive",
        "GET /v1/list:all",
        "GET /v1/{rest=deep/**}",
        "POST /v1/{rest=deep/**}:go",
    ]);
    check(
        &routes,
        &[
            ("POST /v1/vessels/alpha:depart", "1 [vessels/alpha]"),
            ("POST /v1/vessels/a:b:depart", "1 [vessels/a:b]"),
            ("GET /v1/vessels/alpha:depart", "0 [vessels/alpha:depart]"),
            ("GET /v1/vessels/alpha:arrive", "0 [vessels/alpha:arrive]"),
            ("GET /v1/vessels/a:b", "0 [vessels/a:b]"),
            ("GET /v1/vessels/:", "0 [vessels/:]"),
            ("POST /v1/vessels/alpha%3Adepart", "allow GET, HEAD"),
            ("GET /v1/vessels/alpha%3Adepart", "0 [vessels/alpha:depart]"),
            ("POST /v1/vessels/alpha:dep%61rt", "1 [vessels/alpha]"),
            ("POST /v1/vessels/alpha:arrive", "allow GET, HEAD"),
            ("DELETE /v1/vessels/alpha:depart", "allow GET, HEAD, POST"),
            ("POST /v1/vessels/:depart", "allow GET, HEAD"),
            ("GET /v1/list:all", "3"),
            ("GET /v1/list%3Aall", UNKNOWN),
            ("GET /v1/list", UNKNOWN),
            ("GET /v1/list:none", UNKNOWN),
            ("POST /v1/deep/a/b:go", "5 [deep/a/b]"),
            ("POST /v1/deep/a:go/b", "allow GET, HEAD"),
            ("GET /v1/deep/a:go/b", "4 [deep/a:go/b]"),
        ],
    );
}

#[test]
fn rule_8_segments_after_the_rest_are_counted_from_the_end() {
    let routes = routes(&["GET /v1/{name=a/**/b}/c/{id}", "GET /v1/{x}/{rest=**}/end:go"]);
    check(
        &routes,
        &[
            ("GET /v1/a/b/c/7", "0 [a/b] [7]"),
            ("GET /v1/a/1/2/b/c/7", "0 [a/1/2/b] [7]"),
            ("GET /v1/a/c/7", UNKNOWN),
            ("GET /v1/q/end:go", "1 [q] []"),
            ("GET /v1/q/1/2/end:go", "1 [q] [1/2]"),
        ],
    );
}

#[test]
fn rule_9_slashes_count() {
    let lines = [
        "GET /v1/vessels/{id}",
        "GET /v1/vessels",
        "GET /v1/all/{name=**}",
        "GET /",
        "POST /v1/x/{id}:go",
    ];
    check(
        &routes(&lines),
        &[
            ("GET /v1/vessels/", UNKNOWN),
            ("GET /v1/vessels/a/", UNKNOWN),
            ("GET /v1//vessels", UNKNOWN),
            ("GET //", UNKNOWN),
            ("GET /", "3"),
            ("GET /v1/all/", "2 []"),
            ("GET /v1/all", "2 []"),
            ("GET /v1/all/a/", "2 [a/]"),
            ("GET /v1/all//a", "2 [/a]"),
            ("POST /v1/x/y:go/", UNKNOWN),
        ],
    );
    let ignore = PathOptions {
        trailing_slash: TrailingSlash::Ignore,
        ..PathOptions::default()
    };
    check(
        &with_options(ignore, &lines),
        &[
            ("GET /v1/vessels/", "1"),
            ("GET /v1/vessels/a/", "0 [a]"),
            ("GET /v1/vessels/a//", UNKNOWN),
            ("GET /v1/vessels//", UNKNOWN),
            ("PUT /v1/vessels/", "allow GET, HEAD"),
            // `**` takes the empty segment as it is.
            ("GET /v1/all/a/", "2 [a/]"),
            ("POST /v1/x/y:go/", "4 [y]"),
            ("GET /", "3"),
        ],
    );
}

#[test]
fn a_trailing_slash_is_ignored_by_the_routes_that_say_so_only() {
    let mut builder = RoutesBuilder::new();
    let template = |text| Template::parse(text).unwrap();
    builder
        .bind(&[], method("GET"), &template("/strict/{id}"), 0, 0)
        .unwrap();
    builder.options(PathOptions {
        trailing_slash: TrailingSlash::Ignore,
        ..PathOptions::default()
    });
    builder
        .bind(&[], method("GET"), &template("/loose/{id}"), 1, 0)
        .unwrap();
    check(
        &builder.build(),
        &[("GET /strict/a/", UNKNOWN), ("GET /loose/a/", "1 [a]")],
    );
}

#[test]
fn rule_10_allow_names_every_method_of_the_path_and_nothing_else() {
    let routes = routes(&[
        "GET /v1/books/{id}",
        "DELETE /v1/books/{id}",
        "PATCH /v1/{name=books/*}",
        "PUT /v1/**",
        "POST /v1/books",
        "HEAD /v1/heads",
        "GET /v1/heads",
        "HEAD /v1/only",
        "RPC /lib.v1.Lib/Get",
    ]);
    check(
        &routes,
        &[
            ("POST /v1/books/7", "allow DELETE, GET, HEAD, PATCH, PUT"),
            ("OPTIONS /v1/books/7", "allow DELETE, GET, HEAD, PATCH, PUT"),
            ("GET /v1/books", "allow POST, PUT"),
            ("GET /v2", UNKNOWN),
            ("HEAD /v1/books/7", "0 [7]"),
            ("HEAD /v1/heads", "5"),
            ("GET /v1/heads", "6"),
            ("HEAD /v1/only", "7"),
            ("GET /v1/only", "allow HEAD, PUT"),
            ("HEAD /v1/books", "allow POST, PUT"),
            ("POST /lib.v1.Lib/Get", "8"),
            ("GET /lib.v1.Lib/Get", "allow POST"),
            ("HEAD /lib.v1.Lib/Get", "allow POST"),
            ("POST /lib.v1.Lib/get", UNKNOWN),
            ("POST /lib.v1.Lib/Get/", UNKNOWN),
        ],
    );
}

#[test]
fn an_rpc_path_comes_before_templates_but_a_binding_of_the_very_path() {
    let routes = routes(&[
        "RPC /p.S/A",
        "RPC /p.S/B",
        "* /**",
        "POST /p.S/B",
        "POST /{a}/{b}",
    ]);
    check(
        &routes,
        &[
            ("POST /p.S/A", "0"),
            ("GET /p.S/A", "2"),
            ("POST /p.S/B", "3"),
            ("POST /p.S/C", "4 [p.S] [C]"),
        ],
    );
    for (path, expected) in [
        ("/p.S/A", Some(0)),
        ("/p.S/B", Some(1)),
        ("/p.S/C", None),
        ("", None),
        ("/p.S/%41", None),
    ] {
        assert_eq!(routes.find_rpc(None, path), expected, "{path}");
    }
}

#[test]
fn hosts_are_searched_from_the_most_specific_pattern() {
    let mut builder = RoutesBuilder::new();
    let hosts = [
        &["api.example.com"][..],
        &["*.example.com"],
        &["*.b.example.com"],
        &[],
        &["[::1]", "a.test"],
    ];
    for (entry, patterns) in (0..).zip(hosts) {
        let patterns: Vec<Host> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let path = "/v1/books";
        builder
            .bind(
                &patterns,
                method("GET"),
                &Template::parse(path).unwrap(),
                entry,
                0,
            )
            .unwrap();
        builder.rpc(&patterns, "/p.S/M", entry).unwrap();
    }
    builder
        .bind(&[], method("POST"), &Template::parse("/v1/books").unwrap(), 9, 0)
        .unwrap();
    let routes = builder.build();
    for (host, entry) in [
        (Some("api.example.com"), 0),
        (Some("API.Example.COM:8080"), 0),
        (Some("api.example.com."), 0),
        (Some("api.example.com.:1"), 0),
        (Some("www.example.com"), 1),
        (Some("x.y.example.com"), 1),
        (Some("x.api.example.com"), 1),
        (Some("x.b.example.com"), 2),
        (Some("b.example.com"), 1),
        (Some("example.com"), 3),
        (Some(".example.com"), 3),
        (Some("notexample.com"), 3),
        (Some("[::1]:80"), 4),
        (Some("[::1]"), 4),
        (Some("a.test"), 4),
        (Some(""), 3),
        (Some(":80"), 3),
        (None, 3),
    ] {
        assert_eq!(
            show(routes.find(host, &GET, "/v1/books")),
            entry.to_string(),
            "{host:?}"
        );
        assert_eq!(routes.find_rpc(host, "/p.S/M"), Some(entry), "{host:?}");
        // What a narrower pattern does not bind is looked for in the wider ones.
        assert_eq!(show(routes.find(host, &POST, "/v1/books")), "9", "{host:?}");
        assert_eq!(
            show(routes.find(host, &Method::PUT, "/v1/books")),
            "allow GET, HEAD, POST",
            "{host:?}"
        );
    }
}

#[test]
fn host_patterns() {
    for (text, shown) in [
        ("Example.com", Some("example.com")),
        ("*.Example.com", Some("*.example.com")),
        ("localhost", Some("localhost")),
        ("127.0.0.1", Some("127.0.0.1")),
        ("[::1]", Some("[::1]")),
        ("", None),
        ("*", None),
        ("*.", None),
        ("a.*.com", None),
        ("a:80", None),
        ("a..b", None),
        (".a", None),
        ("a/b", None),
        ("*.[::1]", None),
    ] {
        let got = text.parse::<Host>().ok().map(|host| host.to_string());
        assert_eq!(got.as_deref(), shown, "{text}");
    }
}

/// The same rules without a trie: every template against the path, the best kept.
mod reference {
    use super::*;

    pub(super) struct Line {
        pub(super) method: HttpMethod,
        pub(super) template: Template,
    }

    fn decoded(raw: &str, escapes: Escapes) -> Option<String> {
        let mut out = String::new();
        url::decode(raw, escapes, &mut out).ok()?;
        Some(out)
    }

    /// How many raw segments each of the template's segments takes.
    fn fit(template: &[Segment], raw: &[&str]) -> Option<Vec<usize>> {
        let Some((segment, after)) = template.split_first() else {
            return raw.is_empty().then(Vec::new);
        };
        let takes = match segment {
            Segment::Rest => 0..=raw.len(),
            Segment::One | Segment::Literal(_) if raw.is_empty() => return None,
            Segment::One if raw[0].is_empty() => return None,
            Segment::Literal(text) if decoded(raw[0], Escapes::All).as_deref() != Some(text) => return None,
            Segment::One | Segment::Literal(_) => 1..=1,
        };
        for take in takes {
            if let Some(mut rest) = fit(after, &raw[take..]) {
                rest.insert(0, take);
                return Some(rest);
            }
        }
        None
    }

    /// Smaller is more specific, segment by segment.
    fn rank(template: &Template) -> Vec<(u8, usize)> {
        let segments = template.segments();
        let mut rank: Vec<_> = segments
            .iter()
            .enumerate()
            .map(|(at, segment)| match segment {
                Segment::Literal(_) => (1, 0),
                Segment::One => (2, 0),
                Segment::Rest => (3, usize::MAX - (segments.len() - at)),
            })
            .collect();
        rank.push((0, 0));
        rank
    }

    pub(super) fn find(lines: &[Line], method: &Method, path: &str) -> String {
        let whole = path.strip_prefix('/').unwrap();
        let mut readings = Vec::new();
        let last = whole.rsplit('/').next().unwrap();
        if let Some(colon) = last.rfind(':') {
            let cut = whole.len() - last.len() + colon;
            readings.push((&whole[..cut], decoded(&whole[cut + 1..], Escapes::All)));
        }
        readings.push((whole, None));
        let mut allow = BTreeSet::new();
        for (index, (text, verb)) in readings.iter().enumerate() {
            let is_verb = index + 1 < readings.len();
            if is_verb && verb.is_none() {
                continue;
            }
            let raw: Vec<&str> = if path == "/" {
                Vec::new()
            } else {
                text.split('/').collect()
            };
            let mut best = None;
            for (entry, line) in lines.iter().enumerate() {
                if line.template.verb() != verb.as_deref() {
                    continue;
                }
                let Some(takes) = fit(line.template.segments(), &raw) else {
                    continue;
                };
                let kind = match &line.method {
                    HttpMethod::Exact(own) if own == method => 0,
                    HttpMethod::Exact(own) if *own == GET && *method == Method::HEAD => 1,
                    HttpMethod::Any => 2,
                    HttpMethod::Exact(other) => {
                        allow.insert(other.to_string());
                        continue;
                    }
                };
                let key = (rank(&line.template), kind);
                if best.as_ref().is_none_or(|(held, _, _)| key < *held) {
                    best = Some((key, entry, takes));
                }
            }
            if let Some((_, entry, takes)) = best {
                return show(entry, &lines[entry].template, &raw, &takes);
            }
        }
        if allow.is_empty() {
            return UNKNOWN.to_owned();
        }
        if allow.contains("GET") {
            allow.insert("HEAD".to_owned());
        }
        format!("allow {}", Vec::from_iter(allow).join(", "))
    }

    fn show(entry: usize, template: &Template, raw: &[&str], takes: &[usize]) -> String {
        let mut shown = entry.to_string();
        for variable in template.variables() {
            let start: usize = takes[..variable.segments.start].iter().sum();
            let len: usize = takes[variable.segments.clone()].iter().sum();
            let escapes = if variable.multi {
                Escapes::ButSlash
            } else {
                Escapes::All
            };
            match decoded(&raw[start..start + len].join("/"), escapes) {
                Some(value) => shown.push_str(&format!(" [{value}]")),
                None => return "not UTF-8".to_owned(),
            }
        }
        shown
    }
}

fn random_template(random: &mut Random) -> String {
    let pieces = ["a", "b", "c", "a%20b", "*", "*", "**"];
    let mut text = String::new();
    let mut rest = false;
    let mut variables = 0;
    for _ in 0..=random.below(4) {
        text.push('/');
        let mut piece = random.pick(&pieces);
        if rest && piece == "**" {
            piece = "*";
        }
        rest |= piece == "**";
        if random.below(3) == 0 {
            variables += 1;
            let more = if random.below(2) == 0 { "/a" } else { "" };
            text.push_str(&format!("{{v{variables}={piece}{more}}}"));
        } else {
            text.push_str(piece);
        }
    }
    if random.below(3) == 0 {
        text.push_str(random.pick(&[":go", ":stop"]));
    }
    text
}

fn random_path(random: &mut Random) -> String {
    let pieces = [
        "a",
        "b",
        "c",
        "a%20b",
        "%61",
        "a%2Fb",
        "x:y",
        "%FF",
        "",
        "a:go",
        "b:stop:go",
        "c%3Ago",
        "x:%67o",
    ];
    let mut path = String::new();
    for _ in 0..=random.below(6) {
        path.push('/');
        path.push_str(random.pick(&pieces));
    }
    path
}

#[test]
fn the_trie_agrees_with_a_search_through_every_template() {
    let kinds = ["GET", "GET", "POST", "HEAD", "*"];
    let methods = [GET, POST, Method::HEAD, Method::PUT];
    let mut random = Random::new(1);
    let mut matched = 0;
    for _ in 0..200 {
        let mut builder = RoutesBuilder::new();
        let mut lines = Vec::new();
        for _ in 0..30 {
            let template = Template::parse(&random_template(&mut random)).unwrap();
            let method = method(random.pick(&kinds));
            let entry = u32::try_from(lines.len()).unwrap();
            let twin = lines.iter().any(|line: &reference::Line| {
                line.method == method
                    && line.template.segments() == template.segments()
                    && line.template.verb() == template.verb()
            });
            let added = builder.bind(&[], method.clone(), &template, entry, 0);
            assert_eq!(added.is_err(), twin, "{template}");
            if !twin {
                lines.push(reference::Line { method, template });
            }
        }
        let routes = builder.build();
        for _ in 0..100 {
            let path = random_path(&mut random);
            let method = &methods[random.below(methods.len())];
            let expected = reference::find(&lines, method, &path);
            let mut got = show(routes.find(None, method, &path));
            if got.ends_with("are not UTF-8") {
                got = "not UTF-8".to_owned();
            }
            let templates: Vec<_> = lines.iter().map(|line| line.template.to_string()).collect();
            assert_eq!(got, expected, "{method} {path} among {templates:#?}");
            matched += usize::from(got.starts_with(|first: char| first.is_ascii_digit()));
        }
    }
    assert!(matched > 5_000, "only {matched} paths matched");
}

#[test]
fn mutated_paths_never_panic() {
    let routes = routes(&[
        "GET /v1/{name=shelves/*/books/**}/x:go",
        "* /**",
        "POST /v1/{a}/{b=c/*}",
    ]);
    let seeds = ["/v1/shelves/1/books/2/x:go", "/v1/%D0%BA/c/%2F", "/..;a/%2e/b:c"];
    let alphabet: Vec<char> = "/%:.;2F5CeE0\\aé\0 ".chars().collect();
    let mut random = Random::new(3);
    for round in 0..20_000 {
        let mut path: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=random.below(4) {
            let at = random.below(path.len());
            if random.below(2) == 0 {
                path[at] = random.pick(&alphabet);
            } else {
                path.insert(at, random.pick(&alphabet));
            }
        }
        let path: String = path.into_iter().collect();
        match routes.find(Some("a.b"), &GET, &path) {
            Ok(_) | Err(NoRoute::Malformed(_)) => {}
            Err(other) => panic!("{path}: `* /**` answers every path, and this says {other}"),
        }
    }
}

#[test]
fn an_adversarial_path_costs_no_more_than_the_templates_allow() {
    // Every template fits almost to its end, at every place where `**` may stop.
    let mut builder = RoutesBuilder::new();
    for depth in 0..30 {
        for star in 0..depth {
            let text = format!("{}/**{}/end", "/a".repeat(depth - star), "/*".repeat(star));
            let template = Template::parse(&text).unwrap();
            builder.bind(&[], method("GET"), &template, 0, 0).unwrap();
        }
    }
    let routes = builder.build();
    let path = "/a".repeat(4_000);
    let mut visited = 0;
    let split = Segments::split(&path).unwrap();
    let all: ControlFlow<()> = routes.any.trie.walk(&split, &mut |_| {
        visited += 1;
        ControlFlow::Continue(())
    });
    assert!(all.is_continue());
    assert!(visited < 1_000, "{visited} nodes");
    assert_eq!(routes.find(None, &GET, &path), Err(NoRoute::NotFound));
}
