//! What a descriptor set of ten thousand methods costs: the time until the gateway serves, the time of a reload that changes
//! nothing, one key, or the set itself, and the memory of the process after each. Run it with `cargo bench --bench reload`.

#![allow(clippy::print_stdout, reason = "it prints what it finds")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sabir::config::{self, Source};
use sabir::observe::{Log, LogFormat};
use sabir::serve;
use tokio::time::Instant;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICES: usize = 200;
const METHODS: usize = 50;
/// Reloads of each sort.
const ROUNDS: usize = 5;

type Failure = Box<dyn Error>;

/// Ten thousand methods with two HTTP rules each, over messages with all sorts of fields.
fn proto(more: bool) -> Result<String, Failure> {
    let mut text = String::from(
        "syntax = \"proto3\";\npackage large.v1;\nimport \"google/api/annotations.proto\";\n\
         import \"google/protobuf/timestamp.proto\";\n",
    );
    for service in 0..SERVICES {
        writeln!(
            text,
            "message Item{service} {{ string name = 1; repeated string tags = 2; map<string, int64> counts = 3;\n\
             \x20 google.protobuf.Timestamp at = 4; double rating = 5; bytes data = 6; Item{service} parent = 7;\n\
             \x20 oneof kind {{ string text = 8; uint64 number = 9; }} optional bool is_open = 10; }}\n\
             message Get{service} {{ string name = 1; int32 page = 2; string filter = 3; }}\n\
             service Items{service} {{"
        )?;
        let many = METHODS + usize::from(more && service == 0);
        for method in 0..many {
            writeln!(
                text,
                "  rpc Get{method}(Get{service}) returns (Item{service}) {{ option (google.api.http) = {{\n\
                 \x20   get: \"/v1/items{service}/m{method}/{{name=shelves/*/items/*}}\"\n\
                 \x20   additional_bindings {{ post: \"/v1/items{service}/m{method}:ask\" body: \"*\" }} }}; }}"
            )?;
        }
        text.push_str("}\n");
    }
    Ok(text)
}

/// The compiled set.
fn set(folder: &Path, more: bool) -> Result<Vec<u8>, Failure> {
    fs::write(folder.join("large.proto"), proto(more)?)?;
    let imports = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.to_owned(), imports])?;
    compiler.include_imports(true).open_file("large.proto")?;
    Ok(compiler.encode_file_descriptor_set())
}

/// Memory of this process in MiB.
fn resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no memory")?
        .parse()?;
    Ok(kib >> 10)
}

fn configuration(round: usize) -> String {
    format!(
        "workers: 2\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\n\
         limits: {{request_timeout: {}s}}\n\
         backends:\n  large: {{endpoints: [\"http://127.0.0.1:9\"], schema: {{descriptors: large.binpb}}}}\n\
         routes:\n  - {{services: [\"*\"], backend: large}}\n",
        10 + round % 2
    )
}

async fn run() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (set, other) = (set(folder.path(), false)?, set(folder.path(), true)?);
    let (file, descriptors) = (
        folder.path().join("sabir.yaml"),
        folder.path().join("large.binpb"),
    );
    fs::write(&file, configuration(0))?;
    fs::write(&descriptors, &set)?;
    println!("{} methods, a set of {} KiB", SERVICES * METHODS, set.len() >> 10);
    println!("before: {} MiB", resident()?);
    let began = Instant::now();
    let read = config::load(&Source::file(&file)).map_err(|errors| format!("{errors:?}"))?;
    let (log, writer) = Log::start(LogFormat::Json)?;
    let running = serve::start(&read, log).await?;
    println!("until it serves: {:?}, {} MiB", began.elapsed(), resident()?);
    for sort in ["nothing", "a key", "the set"] {
        for round in 0..ROUNDS {
            match sort {
                "a key" => fs::write(&file, configuration(round + 1))?,
                "the set" => fs::write(&descriptors, if round % 2 == 0 { &other } else { &set })?,
                _ => {}
            }
            let began = Instant::now();
            let told = running.reload().await?;
            if !told.errors.is_empty() {
                return Err(told.errors.join("; ").into());
            }
            println!(
                "reload {round}, {sort} changed: {:?}, {} MiB, generation {}",
                began.elapsed(),
                resident()?,
                told.generation
            );
        }
    }
    running.stop().await?;
    writer.join();
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(run())
}
