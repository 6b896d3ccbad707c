//! Endpoints in a file: a list in YAML or JSON, in the form that the configuration has. Read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use notify::{RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Feed, SourceError};
use crate::balance::Listed;

/// How often the file is looked at, whatever the system tells: network file systems tell nothing.
const LOOK: Duration = Duration::from_secs(5);
/// The largest file.
const MAX_BYTES: u64 = 4 << 20;

/// An entry of the file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Url(String),
    More {
        url: String,
        weight: Option<u32>,
        zone: Option<String>,
    },
}

/// The endpoints that a file lists.
///
/// # Errors
/// The file can't be read, or is not a list of endpoints.
pub(super) fn read(path: &Path) -> Result<Vec<Listed>, SourceError> {
    let wrong = |what: String| SourceError::File {
        path: path.to_owned(),
        what,
    };
    let size = std::fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if size > MAX_BYTES {
        return Err(wrong(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    listed(&text).map_err(wrong)
}

fn listed(text: &str) -> Result<Vec<Listed>, String> {
    let entries: Vec<Entry> = serde_saphyr::from_str(text)
        .map_err(|_| "it is no list of URLs, or of {url: URL, weight: NUMBER, zone: NAME}".to_owned())?;
    if entries.is_empty() {
        return Err("it lists no endpoint".to_owned());
    }
    entries
        .into_iter()
        .map(|entry| {
            let (text, weight, zone) = match entry {
                Entry::Url(url) => (url, None, None),
                Entry::More { url, weight, zone } => (url, weight, zone),
            };
            let uri: Uri = text
                .parse()
                .map_err(|error| format!("\"{text}\" is no URL: {error}"))?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
                return Err(format!(
                    "\"{text}\" is no endpoint; write such as http://10.0.0.5:50051"
                ));
            }
            Ok(Listed {
                uri,
                weight: weight.unwrap_or(1).max(1),
                zone: zone.as_deref().map(Into::into),
            })
        })
        .collect()
}

/// Reads the file, and reads it again whenever it changes, and puts what it lists into `feed`.
pub(super) async fn follow(path: PathBuf, mut feed: Feed) {
    let changed = Arc::new(Notify::new());
    let waker = Arc::clone(&changed);
    // The folder, not the file: a file that is replaced, as editors and Kubernetes do, is another file.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut watcher = notify::recommended_watcher(move |_event| waker.notify_one()).ok();
    if let Some(watcher) = &mut watcher {
        let folder = folder.unwrap_or_else(|| Path::new("."));
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, "a folder can't be watched; its file is looked at once in a while");
        }
    }
    let mut said: Option<String> = None;
    loop {
        // A file of endpoints is small, and reading it once in a while keeps nobody waiting.
        match read(&path) {
            Ok(found) => {
                said = None;
                feed.put(&found);
            }
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(%error, "endpoints can't be found; those that are known stay");
                    said = Some(text);
                }
            }
        }
        // Which of the two it was does not matter: the file is read.
        let _ = timeout(LOOK, changed.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_both_forms_and_in_json() {
        let yaml = "- http://10.0.0.5:1\n- {url: \"http://10.0.0.6:1\", weight: 3, zone: a}\n";
        let json = r#"["http://10.0.0.5:1", {"url": "http://10.0.0.6:1", "weight": 3, "zone": "a"}]"#;
        for text in [yaml, json] {
            let found = listed(text).unwrap();
            assert_eq!(found[0], Listed::new("http://10.0.0.5:1".parse().unwrap()));
            assert_eq!((found[1].weight, found[1].zone.as_deref()), (3, Some("a")));
        }
        for (text, expected) in [
            ("", "lists no endpoint"),
            ("[]", "lists no endpoint"),
            ("a: b", "no list"),
            ("- ftp://a", "no endpoint"),
            ("- 'http://'", "no"),
        ] {
            let error = listed(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
