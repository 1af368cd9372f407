//! Artifacts of other runs of the service (`run-id` of `actions/download-artifact`): listed and downloaded from the
//! server. The digest is verified when an artifact is unpacked.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use shipway_workflow::job::ServerAccess;

use super::{action_error::ActionError, blocking_task::run_blocking, step_context::StepContext};
use crate::{path_error::PathError, runtime::ArtifactEntry, server_request::get_from_server};

#[derive(Deserialize)]
struct ListedArtifact {
    name: String,
    digest: String,
    size: u64,
}

/// The server's description of a run.
#[derive(Deserialize)]
struct RunResponse {
    artifacts: Vec<ListedArtifact>,
}

/// Another run of the same service.
pub(super) struct OtherRun {
    server: ServerAccess,
    /// E.g. `/api/v1/runs/shop/12`.
    path: String,
}

impl OtherRun {
    /// The run given by `run-id`; `None` if it is the job's own run.
    pub(super) fn from_inputs(context: &StepContext<'_>) -> Result<Option<Self>, ActionError> {
        let github = context.github;
        let own = |name: &str| github.get(name).to_text().to_string();
        let repository = own("repository");
        let asked = context.input("repository");
        if asked.is_some_and(|asked| !asked.eq_ignore_ascii_case(&repository)) {
            return Err(ActionError::OtherRepositorysArtifacts(repository));
        }
        let Some(id) = context.input("run-id").filter(|id| *id != own("run_id")) else {
            return Ok(None);
        };
        let number: u32 =
            id.trim_start_matches('r')
                .parse()
                .map_err(|_| ActionError::InvalidInput {
                    input: "run-id".to_owned(),
                    expected: "the number of a run, such as 12".to_owned(),
                    value: id.to_owned(),
                })?;
        let server = context.server.cloned().ok_or(ActionError::NoServer)?;
        let service = repository.rsplit('/').next().unwrap_or_default();
        let path = format!("/api/v1/runs/{service}/{number}");
        Ok(Some(Self { server, path }))
    }

    /// The artifacts of the run, with the paths below `folder` to download them to.
    pub(super) async fn list_artifacts(
        &self,
        folder: &Path,
    ) -> Result<Vec<ArtifactEntry>, ActionError> {
        let (server, path) = (self.server.clone(), self.path.clone());
        let run: RunResponse = run_blocking(move || {
            let mut answer = get_from_server(&server, &path)?;
            let read = answer.body_mut().read_json();
            read.map_err(ActionError::InvalidRunDescription)
        })
        .await?;
        let place = |digest: &str| folder.join(digest.replace(':', "-"));
        let listed = run.artifacts.into_iter();
        Ok(listed
            .map(|it| ArtifactEntry::from_listing(it.name, place(&it.digest), it.digest, it.size))
            .collect())
    }

    /// Downloads an artifact, unless that was done before; returns its tar file.
    pub(super) async fn download_artifact(
        &self,
        kept: &ArtifactEntry,
    ) -> Result<PathBuf, ActionError> {
        if kept.path.exists() {
            return Ok(kept.path.clone());
        }
        let server = self.server.clone();
        let path = format!("{}/artifacts/{}", self.path, percent_encode(&kept.name));
        let to = kept.path.clone();
        run_blocking(move || {
            let answer = get_from_server(&server, &path)?;
            let saved = save_download(answer.into_body().into_reader(), &to);
            saved.map_err(PathError::at(&to))?;
            Ok::<_, ActionError>(to)
        })
        .await
    }
}

fn save_download(mut from: impl io::Read, to: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
    let temp = to.with_extension("new");
    let mut file = fs::File::create(&temp)?;
    io::copy(&mut from, &mut file)?;
    file.flush()?;
    fs::rename(temp, to)
}

/// Percent-encodes a name for use in a URL.
fn percent_encode(name: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_be_asked_for() {
        assert_eq!(percent_encode("dist-1.2"), "dist-1.2");
        assert_eq!(percent_encode("a b%ü"), "a%20b%25%C3%BC");
    }
}
