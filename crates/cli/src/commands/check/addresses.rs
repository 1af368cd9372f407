//! `shipway check` asks the named server whether another environment has claimed an address; a push would be refused for it.
//! Without a named server nothing is checked.

use shipway_api::ApiClient;
use shipway_core::{address::claims::ClaimStage, config::ServiceConfig};
use shipway_syntax::{Diagnostic, SourceFile, Span, YamlNode, parse};

use crate::client::ServerConnection;

/// What the server's claims mean for a `shipway.yaml` that reads well. Warnings: another push may come first.
pub(super) fn warnings(
    source: &SourceFile,
    config: &ServiceConfig,
    server: &ServerConnection,
) -> Vec<Diagnostic> {
    let Some(tree) = parse(source).ok().filter(|_| server.is_named()) else {
        return Vec::new();
    };
    let environments = tree.get("environments").and_then(YamlNode::as_mapping);
    let span_of = |name: &str| -> Option<Span> {
        let (key, _) = environments?.iter().find(|(key, _)| key.text == name)?;
        Some(key.span)
    };
    let whole = tree.span;
    let claims = match server.address_claims() {
        Ok(claims) => claims,
        Err(error) => {
            let message = format!("can't check whether its addresses are free: {error}");
            return vec![Diagnostic::warning("address-unknown", whole, message)];
        }
    };
    let ports = claims.reserved_ports.clone();
    let compared = claims.compare(&config.claim_request(ports, ClaimStage::Push));
    let span_or_whole = |name: &str| span_of(name).unwrap_or(whole);
    let taken = compared.conflicts.iter().map(|conflict| {
        let span = span_or_whole(conflict.environment.as_str());
        let message = format!("{conflict} at {}", server.server);
        Diagnostic::warning("address-taken", span, message).help(
            "a push of this file is refused; choose another address with `hosts`, `path` or `port`",
        )
    });
    let moved = compared.moves.iter().map(|moved| {
        let span = span_or_whole(moved.environment.as_str());
        Diagnostic::warning("address-change", span, moved.to_string())
    });
    let within = compared
        .overlaps
        .iter()
        .map(|overlap| Diagnostic::warning("address-overlap", whole, overlap.to_string()));
    taken.chain(moved).chain(within).collect()
}
