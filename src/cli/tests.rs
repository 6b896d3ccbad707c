//! Which command lines are right, and how commands end.

use std::path::Path;

use clap::CommandFactory as _;
use clap::Parser as _;

use super::*;

fn parsed(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Arguments::command().debug_assert();
}

#[test]
fn what_can_be_asked_for() {
    for (line, right) in [
        ("sabir demo", true),
        ("sabir serve --config a.yaml", true),
        ("sabir serve --config a.yaml --workers 2 --log-format json", true),
        ("sabir --log-format text serve --backend http://127.0.0.1:1", true),
        (
            "sabir serve --backend http://127.0.0.1:1 --listen 127.0.0.1:0 --admin 127.0.0.1:0",
            true,
        ),
        (
            "sabir serve --backend http://h --proto a.proto b.proto --proto-path protos --proto-path more",
            true,
        ),
        ("sabir serve --backend http://h --descriptors a.binpb", true),
        ("sabir check a.yaml", true),
        ("sabir routes a.yaml", true),
        ("sabir explain a.yaml GET /v1/books", true),
        (
            "sabir explain a.yaml PURGE http://h/v1/books?a=b -H x-a:b -H x-b:c -d {}",
            true,
        ),
        ("sabir config schema", true),
        ("sabir", false),
        ("sabir serve", false),
        ("sabir serve --config a.yaml --backend http://h", false),
        ("sabir serve --config a.yaml --listen 127.0.0.1:0", false),
        ("sabir serve --config a.yaml --proto a.proto", false),
        ("sabir serve --backend h:1", false),
        ("sabir serve --backend http://h --workers 0", false),
        ("sabir serve --backend http://h --listen localhost:1", false),
        (
            "sabir serve --backend http://h --proto a.proto --descriptors a.binpb",
            false,
        ),
        ("sabir serve --backend http://h --proto-path protos", false),
        ("sabir serve --config a.yaml --log-format xml", false),
        ("sabir check", false),
        ("sabir explain a.yaml GET", false),
        ("sabir explain a.yaml GET v1/books", false),
        ("sabir explain a.yaml GET /v1 -H nothing", false),
        ("sabir explain a.yaml GET /v1 -H b@d:1", false),
        ("sabir openapi a.yaml", false),
    ] {
        let parsed = parsed(line);
        assert_eq!(parsed.is_ok(), right, "{line}: {parsed:?}");
        if let Err(error) = parsed {
            assert!(error.use_stderr() || line == "sabir", "{line}");
        }
    }
}

#[test]
fn commands_end_as_they_should() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let good = examples.join("protos.yaml").display().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.yaml").display().to_string();
    std::fs::write(&bad, "listeners: nowhere\n").expect("a file");
    for (line, code) in [
        (format!("sabir check {good}"), 0),
        (format!("sabir check {bad}"), 2),
        ("sabir check /nowhere.yaml".to_owned(), 2),
        (format!("sabir routes {good}"), 0),
        (format!("sabir routes {good} --format json"), 0),
        (format!("sabir routes {bad}"), 2),
        (format!("sabir explain {good} GET /v1/shelves/1/books/2"), 0),
        (format!("sabir explain {good} GET /v1/nothing"), 1),
        (
            format!("sabir explain {good} GET /v1/shelves/1/books/2?nothing=1"),
            1,
        ),
        (format!("sabir serve --config {bad}"), 2),
        ("sabir config schema".to_owned(), 0),
    ] {
        let outcome = parsed(&line).expect("a command line").run();
        let ended = match &outcome {
            Ok(()) => 0,
            Err(Failure::Config(_)) => 2,
            Err(Failure::Failed(_) | Failure::Refused | Failure::Output(_)) => 1,
        };
        assert_eq!(ended, code, "{line}: {outcome:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let closed = Failure::Output(io::Error::from(io::ErrorKind::BrokenPipe));
    assert_eq!(format!("{:?}", closed.code()), format!("{:?}", ExitCode::SUCCESS));
    let full = Failure::Output(io::Error::from(io::ErrorKind::StorageFull));
    assert_eq!(format!("{:?}", full.code()), format!("{:?}", ExitCode::from(1)));
}
