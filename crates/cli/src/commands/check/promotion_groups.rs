//! `shipway check` asks the named server whether it has the services of a promotion group; a push would be refused without
//! them. Without a named server nothing is checked.

use shipway_api::ApiClient;
use shipway_syntax::{Diagnostic, SourceFile, Span, YamlNode, parse};

use crate::client::{ClientError, ServerConnection};

/// A name in `promote_with` and its position.
struct PromotionTie {
    environment: String,
    service: String,
    span: Span,
}

/// What the server says against the ties of a `shipway.yaml` that reads well. Warnings: another push may come first.
pub(super) fn warnings(source: &SourceFile, server: &ServerConnection) -> Vec<Diagnostic> {
    let Some(tree) = parse(source).ok().filter(|_| server.is_named()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for tie in promotion_groups(&tree) {
        let (name, of) = (&tie.service, &tie.environment);
        match server.service(name) {
            Ok(known) if known.environments.iter().any(|it| it.name.as_str() == of) => {}
            Ok(_) => found.push(
                Diagnostic::warning(
                    "unknown-service",
                    tie.span,
                    format!("{name} has no environment {of} at {}", server.server),
                )
                .help("a push of this file is refused until it has one"),
            ),
            Err(ClientError::Refused(why)) => found.push(
                Diagnostic::warning(
                    "unknown-service",
                    tie.span,
                    format!(
                        "`promote_with` names {name}, and {} says: {why}",
                        server.server
                    ),
                )
                .help("a push of this file is refused until it exists"),
            ),
            // If one request fails, the others would fail too.
            Err(error) => {
                found.push(
                    Diagnostic::warning(
                        "unknown-service",
                        tie.span,
                        format!("can't check whether {name} exists: {error}"),
                    )
                    .help("unset SHIPWAY_URL and omit --server to check only the file"),
                );
                break;
            }
        }
    }
    found
}

fn promotion_groups(tree: &YamlNode) -> Vec<PromotionTie> {
    let environments = tree.get("environments").and_then(YamlNode::as_mapping);
    let mut found = Vec::new();
    for (environment, node) in environments.unwrap_or_default() {
        let names =
            (node.get("promote_with").or_else(|| node.get("with"))).and_then(YamlNode::as_sequence);
        for name in names.unwrap_or_default() {
            if let Some(service) = name.as_scalar_text() {
                found.push(PromotionTie {
                    environment: environment.text.clone(),
                    service: service.to_owned(),
                    span: name.span,
                });
            }
        }
    }
    found
}
