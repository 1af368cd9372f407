//! The Markdown of job summaries: GitHub's, with tables, strikethrough and task lists.
//!
//! # Invariants
//!
//! - Anyone with push access can write a summary, and it must not run a script in another user's browser: every element is written
//!   here, all text is escaped, and so is HTML, which is shown as text.
//! - Only `http`, `https` and `mailto` are links. Images are not loaded, because another server would learn the reader's address:
//!   their text is a link.

use std::fmt::Write as _;

use maud::{Escaper, Markup, PreEscaped};
use pulldown_cmark::{Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};

/// A text as Markdown.
pub(crate) fn markdown(text: &str) -> Markup {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = SummaryWriter::default();
    for event in Parser::new_ext(text, options) {
        writer.write_event(event);
    }
    PreEscaped(writer.html)
}

/// Writes the events of a parser as HTML.
#[derive(Default)]
struct SummaryWriter {
    html: String,
    /// The closing tag of each open link and image; empty where none was opened.
    links: Vec<&'static str>,
    in_table_head: bool,
}

impl SummaryWriter {
    fn write_event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.open_tag(tag),
            Event::End(tag) => self.close_tag(tag),
            Event::Code(text) => {
                self.html.push_str("<code>");
                self.write_text(&text);
                self.html.push_str("</code>");
            }
            Event::SoftBreak => self.html.push('\n'),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(true) => self
                .html
                .push_str("<input type=\"checkbox\" disabled checked> "),
            Event::TaskListMarker(false) => {
                self.html.push_str("<input type=\"checkbox\" disabled> ")
            }
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text)
            | Event::FootnoteReference(text) => self.write_text(&text),
        }
    }

    fn write_text(&mut self, text: &str) {
        // Writing to a string doesn't fail.
        let _ = Escaper::new(&mut self.html).write_str(text);
    }

    fn open_tag(&mut self, tag: Tag<'_>) {
        let html = match tag {
            Tag::Paragraph | Tag::HtmlBlock => "<p>",
            Tag::Heading { level, .. } if level <= HeadingLevel::H2 => "<h3>",
            Tag::Heading { .. } => "<h4>",
            Tag::BlockQuote(_) => "<blockquote>",
            Tag::CodeBlock(_) => "<pre><code>",
            Tag::List(None) => "<ul>",
            Tag::List(Some(1)) => "<ol>",
            Tag::List(Some(start)) => {
                let _ = write!(self.html, "<ol start=\"{start}\">");
                return;
            }
            Tag::Item => "<li>",
            Tag::Table(_) => "<div class=\"scroll\"><table>",
            Tag::TableHead => {
                self.in_table_head = true;
                "<thead><tr>"
            }
            Tag::TableRow => "<tr>",
            Tag::TableCell if self.in_table_head => "<th>",
            Tag::TableCell => "<td>",
            Tag::Emphasis => "<em>",
            Tag::Strong => "<strong>",
            Tag::Strikethrough => "<del>",
            Tag::Link {
                link_type: LinkType::Email,
                dest_url,
                ..
            } => return self.open_link(&format!("mailto:{dest_url}")),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                return self.open_link(&dest_url);
            }
            // Syntax that isn't enabled.
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => return,
        };
        self.html.push_str(html);
    }

    /// Opens a link, unless the scheme is another or there is a link around this one.
    fn open_link(&mut self, url: &str) {
        let is_allowed = ["https://", "http://", "mailto:"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        let is_nested = self.links.iter().any(|closing| !closing.is_empty());
        if !is_allowed || is_nested {
            self.links.push("");
            return;
        }
        self.html.push_str("<a href=\"");
        self.write_text(url);
        self.html
            .push_str("\" rel=\"nofollow noopener noreferrer\">");
        self.links.push("</a>");
    }

    fn close_tag(&mut self, tag: TagEnd) {
        let html = match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => "</p>",
            TagEnd::Heading(level) if level <= HeadingLevel::H2 => "</h3>",
            TagEnd::Heading(_) => "</h4>",
            TagEnd::BlockQuote(_) => "</blockquote>",
            TagEnd::CodeBlock => {
                // The newline before the closing fence isn't part of the code.
                if self.html.ends_with('\n') {
                    self.html.pop();
                }
                "</code></pre>"
            }
            TagEnd::List(false) => "</ul>",
            TagEnd::List(true) => "</ol>",
            TagEnd::Item => "</li>",
            TagEnd::Table => "</tbody></table></div>",
            TagEnd::TableHead => {
                self.in_table_head = false;
                "</tr></thead><tbody>"
            }
            TagEnd::TableRow => "</tr>",
            TagEnd::TableCell if self.in_table_head => "</th>",
            TagEnd::TableCell => "</td>",
            TagEnd::Emphasis => "</em>",
            TagEnd::Strong => "</strong>",
            TagEnd::Strikethrough => "</del>",
            TagEnd::Link | TagEnd::Image => self.links.pop().unwrap_or_default(),
            TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => return,
        };
        self.html.push_str(html);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        markdown(text).into_string()
    }

    #[test]
    fn a_summary_is_shown_as_it_was_meant() {
        assert_eq!(
            shown(
                "# Tests\n3 of **4** pass, see `a.rs`\n\n- one\n- [two](https://x.org/?a=1&b=2)\n"
            ),
            "<h3>Tests</h3><p>3 of <strong>4</strong> pass, see <code>a.rs</code></p><ul><li>one</li><li><a href=\"https://x.org/?a=1&amp;b=2\" rel=\"nofollow noopener noreferrer\">two</a></li></ul>"
        );
        assert_eq!(
            shown("| a | b |\n|---|:-:|\n| 1 | 2 |"),
            "<div class=\"scroll\"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table></div>"
        );
        assert_eq!(
            shown("```\n# no\n<b>\n"),
            "<pre><code># no\n&lt;b&gt;</code></pre>"
        );
    }

    #[test]
    fn tables_lists_and_links_are_those_of_github() {
        assert_eq!(
            shown("- [x] done\n- [ ] ~~not~~ *yet*\n  1. inner\n"),
            "<ul><li><input type=\"checkbox\" disabled checked> done</li><li><input type=\"checkbox\" disabled> <del>not</del> <em>yet</em><ol><li>inner</li></ol></li></ul>"
        );
        assert_eq!(
            shown("a | b\n--|--\n`x\\|y` | **1**"),
            "<div class=\"scroll\"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td><code>x|y</code></td><td><strong>1</strong></td></tr></tbody></table></div>"
        );
        assert_eq!(
            shown("<a@x.org> [docs](docs/a.md) <b>&amp;</b>"),
            "<p><a href=\"mailto:a@x.org\" rel=\"nofollow noopener noreferrer\">a@x.org</a> docs &lt;b&gt;&amp;&lt;/b&gt;</p>"
        );
        // An image is not loaded from another server: its text is a link, or part of the link around it.
        assert_eq!(
            shown("[![passing](https://x.org/i.svg)](https://x.org) ![chart](https://x.org/c.png)"),
            "<p><a href=\"https://x.org\" rel=\"nofollow noopener noreferrer\">passing</a> <a href=\"https://x.org/c.png\" rel=\"nofollow noopener noreferrer\">chart</a></p>"
        );
        assert_eq!(
            shown("> a  \n> b\n\n---\n3. c"),
            "<blockquote><p>a<br>b</p></blockquote><hr><ol start=\"3\"><li>c</li></ol>"
        );
    }

    #[test]
    fn nothing_in_a_summary_is_run() {
        for text in [
            "<script>alert(1)</script>",
            "[x](javascript:alert(1))",
            "# <img src=x onerror=alert(1)>",
            "| <script> |\n|-|",
            "- [a](https://x\" onclick=\"alert(1))",
            "`<script>`",
            "**<script>**",
            "```<script>",
            "<a href=\"javascript:alert(1)\">a</a>",
            "a <img src=x onerror=alert(1)> b",
            "[x](JavaScript:alert(1))",
            "[x](&#106;avascript:alert(1))",
            "[x](data:text/html,<script>)",
            "![x](javascript:alert(1))",
            "![<script>](https://x.org/a.png)",
            "<javascript:alert(1)>",
            "[x]: javascript:alert(1)\n\n[x]",
            "&lt;script>",
            "- [x] <script>",
            "~~<script>~~",
            "[x](https://x.org \"\" onclick=alert(1)\")",
        ] {
            let shown = shown(text);
            let lower = shown.to_lowercase();
            for bad in [
                "<script",
                "<img",
                "href=\"javascript",
                "href=\"data",
                "\" onclick",
                "<a href=\"\"",
            ] {
                assert!(!lower.contains(bad), "{text}: {shown}");
            }
        }
        // However odd, it has an end.
        for text in [
            "```",
            "[",
            "**",
            "`ä`ö`",
            "|",
            "#",
            "- ",
            "[a](",
            "ä**ö**ü[ß](http://ß)",
        ] {
            shown(text);
        }
    }
}
