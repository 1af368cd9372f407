//! SHA-256 of files, and `hashFiles`: the hash of the hashes of all matching files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha2::{Digest, Sha256};
use shipway_workflow::expr::{HashFiles, HashFilesError};

use crate::path_patterns::{self, HiddenFiles};

/// Accepted before the patterns.
const FOLLOW: &str = "--follow-symbolic-links";

/// The workspace, for `hashFiles`.
pub(crate) struct WorkspaceFiles<'w>(pub(crate) &'w Path);

impl HashFiles for WorkspaceFiles<'_> {
    fn hash_files(&self, patterns: &[String]) -> Result<String, HashFilesError> {
        let failed =
            |path: &Path, error: io::Error| HashFilesError(format!("{}: {error}", path.display()));
        let root = self
            .0
            .canonicalize()
            .map_err(|error| failed(self.0, error))?;
        let patterns = match patterns.split_first() {
            // The option has no effect: links to files are always followed, links to folders never.
            Some((option, rest)) if option.eq_ignore_ascii_case(FOLLOW) => rest,
            Some((option, _)) if option.starts_with("--") => {
                return Err(HashFilesError(format!(
                    "unknown option `{option}`; there is `{FOLLOW}`"
                )));
            }
            _ => patterns,
        };
        let (mut all, mut any) = (Sha256::new(), false);
        for file in path_patterns::find_files(self.0, patterns, HiddenFiles::Include)
            .map_err(|error| HashFilesError(error.to_string()))?
            .files
        {
            // A link is hashed as its target, unless that is outside of the workspace.
            let Ok(real) = file.canonicalize() else {
                continue;
            };
            if !real.is_file() || !real.starts_with(&root) {
                continue;
            }
            all.update(hash_file(&real).map_err(|error| failed(&file, error))?);
            any = true;
        }
        Ok(if any {
            to_hex(&all.finalize())
        } else {
            String::new()
        })
    }
}

pub(crate) fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&chunk[..count]),
        }
    }
}

/// Lower-case hex digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hash_as_githubs_function_does() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.lock"), "a").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("b.lock")).unwrap();
        let hash = |pattern: &str| WorkspaceFiles(folder.path()).hash_files(&[pattern.to_owned()]);
        // SHA-256 of the 32 bytes of the SHA-256 of "a".
        let expected = to_hex(&Sha256::digest(Sha256::digest(b"a")));
        assert_eq!(hash("*.lock"), Ok(expected.clone()));
        let with_option = |option: &str| {
            WorkspaceFiles(folder.path()).hash_files(&[option.to_owned(), "*.lock".to_owned()])
        };
        assert_eq!(with_option("--Follow-Symbolic-Links"), Ok(expected));
        assert_eq!(
            with_option("--other").unwrap_err().to_string(),
            "unknown option `--other`; there is `--follow-symbolic-links`"
        );
        assert_eq!(hash("none"), Ok(String::new()));
        assert!(hash("../*").is_err());
    }
}
