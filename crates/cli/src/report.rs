//! Diagnostics on the terminal: the line, the problem and the solution.

use std::io::IsTerminal;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use shipway_syntax::{Diagnostic, SourceFile};

/// A diagnostic with the text it is about.
#[must_use]
pub fn render(source: &SourceFile, diagnostic: &Diagnostic) -> String {
    let level = if diagnostic.is_error() {
        Level::ERROR
    } else {
        Level::WARNING
    };
    let title = level
        .primary_title(&*diagnostic.message)
        .id(diagnostic.code);
    let group = match diagnostic.span {
        Some(span) => {
            let end = span.end.max(span.start).min(source.text.len());
            let snippet = Snippet::source(&*source.text).path(&*source.path);
            title
                .element(snippet.annotation(AnnotationKind::Primary.span(span.start.min(end)..end)))
        }
        None => Group::with_title(title),
    };
    let group = match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(&**help)),
        None => group,
    };
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let renderer = if colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[group]).to_string()
}
