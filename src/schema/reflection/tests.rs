//! The reflection dialogue, question by question.

use super::*;
use crate::schema::{Rules, Schema, raw};

/// An encoded file that declares a service without methods and imports others.
fn file(name: &str, service: Option<&str>, imports: &[&str]) -> Bytes {
    let mut file = Vec::new();
    raw::put_bytes(&mut file, 1, name.as_bytes());
    for import in imports {
        raw::put_bytes(&mut file, 3, import.as_bytes());
    }
    if let Some(service) = service {
        let mut declaration = Vec::new();
        raw::put_bytes(&mut declaration, 1, service.as_bytes());
        raw::put_bytes(&mut file, 6, &declaration);
    }
    file.into()
}

fn services(names: &[&str]) -> Answer {
    Answer::Services(names.iter().map(|&name| name.to_owned()).collect())
}

fn symbol(name: &str) -> Ask {
    Ask::Symbol(name.to_owned())
}

fn import(name: &str) -> Ask {
    Ask::File(name.to_owned())
}

fn not_found() -> Answer {
    Answer::Refused {
        code: Code::NotFound,
        message: "unheard of".to_owned(),
    }
}

/// The questions come in this order, one at a time, and get these answers.
#[track_caller]
fn hold(limits: DialogueLimits, turns: Vec<(Ask, Answer)>) -> Result<Learned, DialogueError> {
    let mut dialogue = Dialogue::new(limits);
    for (expected, answer) in turns {
        assert_eq!(dialogue.ask(), Some(expected));
        dialogue.take(answer)?;
    }
    assert_eq!(dialogue.ask(), None);
    assert_eq!(dialogue.pending(), 0);
    dialogue.finish()
}

#[test]
fn imports_are_followed_and_asked_for_once() {
    let learned = hold(
        DialogueLimits::default(),
        vec![
            (
                Ask::Services,
                services(&["A", "grpc.reflection.v1.ServerReflection", "B", "A", ""]),
            ),
            (
                symbol("A"),
                Answer::Files(vec![file("a", Some("A"), &["c", "d"])]),
            ),
            (
                symbol("B"),
                Answer::Files(vec![file("b", Some("B"), &["d", "c"]), file("e", None, &[])]),
            ),
            (import("c"), Answer::Files(vec![file("c", None, &["e"])])),
            (import("d"), Answer::Files(vec![file("d", None, &["c"])])),
        ],
    )
    .unwrap();
    assert_eq!(learned.services, ["A", "B"]);
    assert_eq!(learned.files.len(), 5);
    assert_eq!(learned.warnings, []);
}

#[test]
fn a_service_that_came_along_is_not_asked_for() {
    let learned = hold(
        DialogueLimits::default(),
        vec![
            (Ask::Services, services(&["A", "B"])),
            (
                symbol("A"),
                Answer::Files(vec![file("a", Some("A"), &["b"]), file("b", Some("B"), &[])]),
            ),
        ],
    )
    .unwrap();
    assert_eq!(learned.services, ["A", "B"]);
}

#[test]
fn a_service_that_is_not_described_is_a_warning() {
    let learned = hold(
        DialogueLimits::default(),
        vec![
            (Ask::Services, services(&["A", "B", "C", "D"])),
            (symbol("A"), not_found()),
            (symbol("B"), Answer::Files(vec![file("b", Some("B"), &[])])),
            (symbol("C"), Answer::Files(vec![file("b", Some("B"), &[])])),
            (symbol("D"), Answer::Files(vec![Bytes::from_static(b"\x0a")])),
        ],
    )
    .unwrap();
    assert_eq!(learned.services, ["B"]);
    let warnings: Vec<String> = learned.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "service A is left out: the server does not describe it: NOT_FOUND: unheard of",
            "service C is left out: the server's answer does not declare it",
            "service D is left out: a file that the server sent: not a protobuf message: truncated",
        ]
    );
}

#[test]
fn a_server_that_describes_nothing_is_an_error() {
    let turns = vec![(Ask::Services, services(&["A"])), (symbol("A"), not_found())];
    let error = hold(DialogueLimits::default(), turns).unwrap_err();
    assert!(matches!(error, DialogueError::Nothing(_)), "{error}");
    let none = hold(DialogueLimits::default(), vec![(Ask::Services, services(&[]))]).unwrap();
    assert_eq!(none, Learned::default());
}

#[test]
fn answers_that_do_not_fit_end_the_dialogue() {
    let cases = [
        (
            vec![(Ask::Services, Answer::Files(vec![]))],
            DialogueError::Unexpected(Ask::Services),
        ),
        (
            vec![(Ask::Services, services(&["A"])), (symbol("A"), Answer::Other)],
            DialogueError::Unexpected(symbol("A")),
        ),
        (
            vec![(Ask::Services, services(&["A"])), (symbol("A"), services(&["A"]))],
            DialogueError::Unexpected(symbol("A")),
        ),
        (
            vec![(Ask::Services, not_found())],
            DialogueError::Refused {
                code: Code::NotFound,
                message: "unheard of".to_owned(),
            },
        ),
    ];
    for (turns, expected) in cases {
        assert_eq!(hold(DialogueLimits::default(), turns), Err(expected));
    }
    let mut dialogue = Dialogue::new(DialogueLimits::default());
    assert_eq!(dialogue.take(not_found()), Err(DialogueError::Unasked));
}

#[test]
fn what_was_not_answered_is_asked_again_in_order() {
    let mut dialogue = Dialogue::new(DialogueLimits::default());
    assert_eq!(dialogue.ask(), Some(Ask::Services));
    dialogue.take(services(&["A", "B", "C"])).unwrap();
    let asks = |dialogue: &mut Dialogue| std::iter::from_fn(|| dialogue.ask()).collect::<Vec<_>>();
    assert_eq!(asks(&mut dialogue), [symbol("A"), symbol("B"), symbol("C")]);
    dialogue
        .take(Answer::Files(vec![file("a", Some("A"), &["i"])]))
        .unwrap();
    assert_eq!(dialogue.pending(), 2);
    dialogue.interrupted();
    assert_eq!(dialogue.pending(), 0);
    assert_eq!(asks(&mut dialogue), [symbol("B"), symbol("C"), import("i")]);
}

#[test]
fn limits_hold_at_their_number() {
    let turns = || {
        vec![
            (Ask::Services, services(&["A", "B"])),
            (symbol("A"), Answer::Files(vec![file("a", Some("A"), &[])])),
            (symbol("B"), Answer::Files(vec![file("b", Some("B"), &[])])),
        ]
    };
    let bytes = file("a", Some("A"), &[]).len() * 2;
    let just = DialogueLimits {
        services: 2,
        files: 2,
        bytes,
    };
    assert!(hold(just, turns()).is_ok());
    let table = [
        (DialogueLimits { services: 1, ..just }, "services", 1),
        (DialogueLimits { files: 1, ..just }, "files", 1),
        (
            DialogueLimits {
                bytes: bytes - 1,
                ..just
            },
            "bytes",
            bytes - 1,
        ),
    ];
    for (limits, what, limit) in table {
        assert_eq!(hold(limits, turns()), Err(DialogueError::TooMuch { what, limit }));
    }
}

#[test]
fn imports_that_the_server_does_not_serve_are_completed_or_named() {
    let known = hold(
        DialogueLimits::default(),
        vec![
            (Ask::Services, services(&["A"])),
            (
                symbol("A"),
                Answer::Files(vec![file("a", Some("A"), &["google/protobuf/any.proto"])]),
            ),
            (import("google/protobuf/any.proto"), not_found()),
        ],
    )
    .unwrap();
    let schema = Schema::from_learned(known, &Rules::empty()).unwrap();
    assert_eq!(schema.warnings, []);
    let unknown = hold(
        DialogueLimits::default(),
        vec![
            (Ask::Services, services(&["A"])),
            (
                symbol("A"),
                Answer::Files(vec![file("a", Some("A"), &["strange.proto"])]),
            ),
            (import("strange.proto"), not_found()),
        ],
    )
    .unwrap();
    let schema = Schema::from_learned(unknown, &Rules::empty()).unwrap();
    assert_eq!(
        schema
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["a: import \"strange.proto\" is not among the files; nothing of it is needed"]
    );
}

#[test]
fn a_service_whose_files_make_no_schema_is_left_out() {
    let broken = |name: &str, service: &str| {
        let mut bytes = file(name, Some(service), &[]).to_vec();
        raw::put_bytes(&mut bytes, 12, b"proto9");
        Bytes::from(bytes)
    };
    let learned = Learned {
        files: vec![
            file("a", Some("A"), &["c"]),
            broken("b", "B"),
            file("c", None, &[]),
        ],
        services: vec!["A".to_owned(), "B".to_owned()],
        warnings: Vec::new(),
    };
    let schema = Schema::from_learned(learned, &Rules::empty()).unwrap();
    assert!(schema.pool.get_service_by_name("A").is_some());
    let warnings: Vec<String> = schema.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["service B is left out: b: syntax \"proto9\" is none of proto2, proto3 and editions"]
    );
    let alone = Learned {
        files: vec![broken("b", "B")],
        services: vec!["B".to_owned()],
        warnings: Vec::new(),
    };
    assert!(Schema::from_learned(alone, &Rules::empty()).is_err());
}
