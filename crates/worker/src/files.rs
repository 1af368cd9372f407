//! What a step writes into `GITHUB_OUTPUT`, `GITHUB_ENV`, `GITHUB_STATE` and `GITHUB_PATH`.

/// Reads `name=value` lines and `name<<DELIMITER` blocks. Whichever of `=` and `<<` comes first decides the form.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .enumerate();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        match (equals, heredoc) {
            (Some(equals), heredoc) if heredoc.is_none_or(|heredoc| equals < heredoc) => {
                let name = &line[..equals];
                if name.is_empty() {
                    return Err(format!("line {}: a name is missing before `=`", number + 1));
                }
                found.push((name.to_owned(), line[equals + 1..].to_owned()));
            }
            (_, Some(heredoc)) => {
                let (name, delimiter) = (&line[..heredoc], &line[heredoc + 2..]);
                if name.is_empty() || delimiter.is_empty() {
                    return Err(format!("line {}: `name<<DELIMITER` needs both", number + 1));
                }
                let mut value: Vec<&str> = Vec::new();
                loop {
                    match lines.next() {
                        Some((_, line)) if line == delimiter => break,
                        Some((_, line)) => value.push(line),
                        None => {
                            return Err(format!(
                                "line {}: the delimiter {delimiter:?} of {name} never comes",
                                number + 1
                            ));
                        }
                    }
                }
                found.push((name.to_owned(), value.join("\n")));
            }
            _ => {
                return Err(format!(
                    "line {}: {:?} is neither name=value nor name<<DELIMITER",
                    number + 1,
                    line.chars().take(80).collect::<String>()
                ));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_and_heredoc_decides() {
        let read = |text: &str| pairs(text).unwrap();
        assert_eq!(
            read("a=b<<c\nd<<E\n1=2\n\n3\nE\nf=\n"),
            [
                ("a".into(), "b<<c".into()),
                ("d".into(), "1=2\n\n3".into()),
                ("f".into(), String::new())
            ]
        );
        assert_eq!(read("x=1\r\n"), [("x".into(), "1".into())]);
    }

    #[test]
    fn what_is_neither_is_refused_with_its_line() {
        assert!(pairs("a=1\nnonsense\n").unwrap_err().starts_with("line 2"));
        assert!(
            pairs("a<<EOF\nnever\n")
                .unwrap_err()
                .contains("never comes")
        );
        assert!(pairs("=x").is_err());
    }
}
