//! `sabir token`: what is in a token, and why it is believed or not.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tokio::runtime::Builder;

use super::{Failure, answer, load};
use crate::config::{self, Source};
use crate::policy::jwt::MAX_TOKEN_BYTES;
use crate::policy::time::unix_now;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
    /// The token; `-` reads it from standard input, where no list of processes shows it.
    token: String,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = config::load(&Source::file(&self.file)).map_err(Failure::Config)?;
        let plan = config::check(&file).map_err(Failure::Config)?;
        let token = read_token(&self.token)?;
        let mut text = contents(&token);
        let mut believed = false;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        for setup in plan.auth.iter().filter(|setup| !setup.issuers.is_empty()) {
            let authenticator = runtime.block_on(load::authenticator(setup))?;
            let verdict = match authenticator.tokens().verify(&token, unix_now()) {
                Ok(verified) => match authenticator.unrevoked(&verified.identity, unix_now()) {
                    Err(no) => format!("refused: {no}"),
                    Ok(()) => {
                        believed = true;
                        let claims = verified.identity.claims();
                        let mut verdict = format!("believed: {:?}", claims.principal);
                        for (what, names) in [("scopes", &claims.scopes), ("roles", &claims.roles)] {
                            if !names.is_empty() {
                                // Writing to a string never fails.
                                let _ = write!(verdict, ", {what} {}", names.join(" "));
                            }
                        }
                        verdict
                    }
                },
                Err(no) => format!("refused: the token {}", no.error),
            };
            // As above.
            let _ = writeln!(text, "auth \"{}\": {verdict}", setup.name);
        }
        answer(text)?;
        if believed { Ok(()) } else { Err(Failure::Refused) }
    }
}

/// A token as it was given, or what is on standard input for `-`.
pub(super) fn read_token(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut token = String::new();
    let limit = MAX_TOKEN_BYTES as u64 + 2;
    io::stdin().lock().take(limit).read_to_string(&mut token)?;
    Ok(token.trim_end_matches(['\r', '\n']).to_owned())
}

/// Header and claims as far as they can be read; nobody has vouched for them.
fn contents(token: &str) -> String {
    let mut text = String::new();
    for (name, part) in ["header", "claims"].into_iter().zip(token.split('.')) {
        let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(part.trim_end_matches('='));
        let value = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        // Writing to a string never fails.
        let _ = match value {
            Some(value) => writeln!(text, "{name} {value:#}"),
            None => writeln!(text, "{name}: not JSON in base64url"),
        };
    }
    text
}
