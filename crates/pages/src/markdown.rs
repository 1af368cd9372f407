//! The subset of Markdown used in job summaries: headings, lists, tables, code, bold, links. Unsupported syntax is shown as text,
//! and all text is escaped: anyone with push access can write a summary, and it must not run a script in another user's browser.

use maud::{Markup, html};

/// A text as Markdown.
pub(crate) fn markdown(text: &str) -> Markup {
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    let mut rest = lines.as_slice();
    while let [line, after @ ..] = rest {
        let count = if line.trim().is_empty() {
            1
        } else if line.starts_with("```") {
            let end = after.iter().position(|line| line.starts_with("```"));
            let code = &after[..end.unwrap_or(after.len())];
            blocks.push(html! { pre { code { (code.join("\n")) } } });
            code.len() + 2
        } else if let Some((level, title)) = heading(line) {
            blocks.push(html! {
                @if level <= 2 { h3 { (inline(title)) } } @else { h4 { (inline(title)) } }
            });
            1
        } else if let Some(count) = run_of(rest, |line| item(line).is_some()) {
            let items = rest[..count].iter().filter_map(|line| item(line));
            blocks.push(html! { ul { @for item in items { li { (inline(item)) } } } });
            count
        } else if let Some(count) = run_of(rest, |line| line.trim_start().starts_with('|')) {
            blocks.push(table(&rest[..count]));
            count
        } else {
            let count = run_of(rest, is_plain).unwrap_or(1);
            blocks.push(html! { p { (inline(&rest[..count].join("\n"))) } });
            count
        };
        rest = &rest[count.min(rest.len())..];
    }
    html! { @for block in blocks { (block) } }
}

/// How many lines from the first on are of a kind; none when the first isn't.
fn run_of(lines: &[&str], is: impl Fn(&str) -> bool) -> Option<usize> {
    Some(lines.iter().take_while(|line| is(line)).count()).filter(|count| *count > 0)
}

fn is_plain(line: &str) -> bool {
    let start = line.trim_start();
    !start.is_empty()
        && !start.starts_with('|')
        && !line.starts_with("```")
        && heading(line).is_none()
        && item(line).is_none()
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let title = line[level..].strip_prefix(' ')?;
    (1..=6).contains(&level).then_some((level, title.trim()))
}

fn item(line: &str) -> Option<&str> {
    let line = line.trim_start();
    (line.strip_prefix("- ")).or_else(|| line.strip_prefix("* "))
}

fn table(lines: &[&str]) -> Markup {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let is_rule = |line: &&str| line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let headed = lines.get(1).is_some_and(is_rule);
    let rows: Vec<Vec<String>> = (lines.iter().filter(|line| !is_rule(line)))
        .map(|line| cells(line))
        .collect();
    let (head, body) = rows.split_at(usize::from(headed).min(rows.len()));
    html! {
        div.scroll { table {
            @for row in head { thead { tr { @for cell in row { th { (inline(cell)) } } } } }
            tbody { @for row in body { tr { @for cell in row { td { (inline(cell)) } } } } }
        } }
    }
}

/// Inline markup: code, bold, links.
fn inline(text: &str) -> Markup {
    let mut parts = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let found = between(rest, "`", "`")
            .map(|(inner, length)| (html! { code { (inner) } }, length))
            .or_else(|| {
                between(rest, "**", "**")
                    .map(|(inner, length)| (html! { strong { (inner) } }, length))
            })
            .or_else(|| link(rest));
        match found {
            Some((part, length)) => {
                parts.push(html! { (text[plain..at]) (part) });
                at += length;
                plain = at;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    html! { @for part in parts { (part) } (text[plain..]) }
}

/// The text between two marks at the beginning of `text`, and its length including the marks.
fn between<'t>(text: &'t str, open: &str, close: &str) -> Option<(&'t str, usize)> {
    let inner = text.strip_prefix(open)?;
    let end = inner.find(close).filter(|end| *end > 0)?;
    Some((&inner[..end], open.len() + end + close.len()))
}

/// `[text](https://…)`; no other scheme is a link.
fn link(text: &str) -> Option<(Markup, usize)> {
    let (label, length) = between(text, "[", "]")?;
    let (url, more) = between(&text[length..], "(", ")")?;
    let of_web = url.starts_with("https://") || url.starts_with("http://");
    let shown = html! { a href=(url) rel="nofollow noopener noreferrer" { (label) } };
    of_web.then_some((shown, length + more))
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
        ] {
            let shown = shown(text);
            for bad in ["<script", "<img", "href=\"javascript", "\" onclick"] {
                assert!(!shown.contains(bad), "{text}: {shown}");
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
