//! Properties that hold for any bytes that a step prints or writes to files: the targets of `fuzz/`, which ordinary
//! tests also run for a short time. Each panics if its property is violated. Not part of the crate's API.

use crate::{command_file_parser, mask, workflow_command};

/// Lines of output as commands, and the whole input as a command file.
pub fn commands(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut resume = None;
    for line in text.lines() {
        let read = workflow_command::parse_command(line, resume);
        if let Some(read) = &read {
            assert!(
                workflow_command::may_be_command(line.as_bytes()),
                "never wrong about a no: {line:?}"
            );
            assert!(
                read.value.len() <= line.len(),
                "nothing is made up: {line:?}"
            );
            for (name, value) in &read.properties {
                assert!(read.property(name).is_some(), "{name:?}={value:?}");
            }
            if read.name == workflow_command::CommandName::StopCommands {
                resume = line.rsplit("::").next().filter(|word| !word.is_empty());
            }
        }
    }
    let (pairs, result) = command_file_parser::parse_pairs(&text);
    for (name, value) in &pairs {
        assert!(!name.is_empty(), "a value has a name");
        assert!(name.len() + value.len() <= text.len(), "nothing is made up");
    }
    if let Err(why) = result {
        assert!(!why.to_string().is_empty(), "a mistake is told");
    }
}

/// Secrets in a text that is processed in pieces: none is left, all other text is kept, whatever the pieces.
///
/// Input format: the number of secrets, their lengths, the secrets, the length of a piece, the text. Bytes from 0xF8
/// on in the text insert a secret or one of its forms.
pub fn masks(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let count = bytes.next().unwrap_or_default() % 4;
    let lengths: Vec<usize> = (0..count)
        .filter_map(|_| bytes.next())
        .map(|byte| usize::from(byte % 33))
        .collect();
    let secrets: Vec<String> = lengths
        .iter()
        .map(|&length| {
            String::from_utf8_lossy(&bytes.by_ref().take(length).collect::<Vec<_>>()).into_owned()
        })
        .collect();
    let masker = mask::Masker::new(secrets.iter().cloned());
    let piece = usize::from(bytes.next().unwrap_or_default() % 40) + 1;
    let forms = masker.all_patterns();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            0xF8..=0xFB if !secrets.is_empty() => {
                text.extend_from_slice(
                    secrets[usize::from(byte - 0xF8) % secrets.len()].as_bytes(),
                );
            }
            0xFC..=0xFF if !forms.is_empty() => {
                let which = usize::from(bytes.next().unwrap_or_default());
                text.extend_from_slice(forms[which % forms.len()].as_bytes());
            }
            _ => text.push(byte),
        }
    }
    let expected = reference_masking(&forms, &text);
    let whole = masker.mask_bytes(&text);
    assert_eq!(
        &*whole,
        expected,
        "{secrets:?} in {:?}",
        String::from_utf8_lossy(&text)
    );
    let mut stream = mask::MaskStream::default();
    let mut pieces = Vec::new();
    for part in text.chunks(piece) {
        stream.push(&masker, part, &mut pieces);
    }
    stream.finish(&masker, &mut pieces);
    assert_eq!(pieces, expected, "{secrets:?} in pieces of {piece}");
}

/// Reference implementation of masking: marks each byte of each form and replaces each marked range by `***`.
fn reference_masking(forms: &[&str], text: &[u8]) -> Vec<u8> {
    let mut covered = vec![false; text.len()];
    for form in forms {
        for (at, window) in text.windows(form.len()).enumerate() {
            if window == form.as_bytes() {
                covered[at..at + form.len()].fill(true);
            }
        }
    }
    let mut out = Vec::new();
    for (at, &byte) in text.iter().enumerate() {
        match covered[at] {
            false => out.push(byte),
            true if at == 0 || !covered[at - 1] => out.extend_from_slice(b"***"),
            true => {}
        }
    }
    out
}
