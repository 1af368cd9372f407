//! The endpoints over plain HTTP, as the toolkit's clients use them.

use std::{fs, io::Write as _};

use serde_json::{Value, json};
use ureq::http::Response;

use super::*;
use crate::artifact_tar;

/// A job's endpoints.
struct Bench {
    root: tempfile::TempDir,
    runtime: RuntimeEndpoints,
    masker: Masker,
    env: Vec<(String, String)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(earlier: &[shipway_workflow::job::StoredArtifact]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folders = JobFolders::create(root.path(), root.path()).unwrap();
        let artifact_store =
            ArtifactStore::new(earlier, crate::job_inputs::no_inputs(), RunAttempt::First);
        let github = json!({"ref": "refs/heads/topic"});
        let github = shipway_workflow::expr::ExprValue::from(&github);
        let caches = JobCaches::for_folder(&root.path().join("caches"), &github);
        let mut runtime =
            RuntimeEndpoints::with_ids(artifact_store, Some(caches), "run", "job", &folders);
        let mut masker = Masker::default();
        let env = runtime
            .endpoint_variables(Ipv4Addr::LOCALHOST, &mut masker)
            .unwrap();
        Self {
            root,
            runtime,
            masker,
            env,
        }
    }

    fn env(&self, name: &str) -> &str {
        let found = self.env.iter().find(|(known, _)| known == name);
        &found.unwrap().1
    }

    fn call(&self, service: &str, method: &str, request: Value) -> (u16, Value) {
        self.call_with(self.env("ACTIONS_RUNTIME_TOKEN"), service, method, request)
    }

    fn call_with(&self, token: &str, service: &str, method: &str, request: Value) -> (u16, Value) {
        let url = self.env("ACTIONS_RESULTS_URL");
        let url = format!("{url}twirp/github.actions.results.api.v1.{service}/{method}");
        let request = agent()
            .post(url)
            .header("Authorization", format!("Bearer {token}"))
            .content_type("application/json")
            .send(request.to_string());
        let mut response = request.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_str(&text).unwrap(),
        )
    }

    fn artifact(&self, method: &str, request: Value) -> (u16, Value) {
        self.call("ArtifactService", method, request)
    }

    fn begin(&self, name: &str) -> String {
        let (status, answer) = self.artifact("CreateArtifact", json!({"name": name, "version": 4}));
        assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
        answer["signed_upload_url"].as_str().unwrap().to_owned()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.build().into()
}

fn put(url: &str, body: &[u8]) -> u16 {
    agent().put(url).send(body).unwrap().status().as_u16()
}

fn get(url: &str, range: Option<&str>) -> Response<ureq::Body> {
    let request = agent().get(url);
    let request = match range {
        Some(range) => request.header("x-ms-range", range),
        None => request,
    };
    request.call().unwrap()
}

fn zip_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, text) in files {
        let options = ::zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn an_artifact_goes_up_in_blocks_and_comes_back_as_a_zip() {
    let bench = Bench::new();
    let zip = zip_of(&[("a.txt", "one"), ("sub/b.txt", "two")]);
    let url = bench.begin("shop");
    let (first, second) = zip.split_at(10);
    assert_eq!(
        put(&format!("{url}&comp=block&blockid=Mg%3D%3D"), second),
        201
    );
    assert_eq!(put(&format!("{url}&comp=block&blockid=MQ=="), first), 201);
    let list = "<BlockList><Latest>MQ==</Latest><Latest>Mg==</Latest></BlockList>";
    assert_eq!(put(&format!("{url}&comp=blocklist"), list.as_bytes()), 201);
    let size = zip.len().to_string();
    let hash = format!("sha256:{}", file_hash::to_hex(&Sha256::digest(&zip)));
    let finalize = json!({"name": "shop", "size": size, "hash": hash});
    let (status, answer) = bench.artifact("FinalizeArtifact", finalize);
    assert_eq!(status, 200, "{answer}");
    // The URL is valid for one upload.
    assert_eq!(put(&url, &zip), 403);

    let told = bench.runtime.artifact_store.take_unrecorded();
    let [
        shipway_workflow::job::JournalBody::ArtifactSaved {
            name,
            path,
            digest,
            size,
        },
    ] = told.as_slice()
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        (name.as_str(), *size),
        ("shop", path.metadata().unwrap().len())
    );
    let out = bench.root.path().join("out");
    assert_eq!(artifact_tar::unpack_tar(path, digest, &out).unwrap(), 2);
    assert_eq!(fs::read_to_string(out.join("sub/b.txt")).unwrap(), "two");

    let by_id = json!({"id_filter": answer["artifact_id"]});
    let (_, listed) = bench.artifact("ListArtifacts", by_id);
    assert_eq!(listed["artifacts"][0]["name"], "shop");
    assert_eq!(listed["artifacts"][0]["database_id"], answer["artifact_id"]);
    let (_, none) = bench.artifact("ListArtifacts", json!({"name_filter": "other"}));
    assert_eq!(none["artifacts"], json!([]));
    let (_, signed) = bench.artifact("GetSignedArtifactURL", json!({"name": "shop"}));
    let mut response = get(signed["signed_url"].as_str().unwrap(), None);
    assert_eq!(response.headers()["content-type"], "application/zip");
    let bytes = response.body_mut().read_to_vec().unwrap();
    let archive = ::zip::ZipArchive::new(io::Cursor::new(bytes)).unwrap();
    let names: Vec<_> = archive.file_names().map(Result::unwrap).collect();
    assert_eq!(names, ["a.txt", "sub/b.txt"]);
    let (status, _) = bench.artifact("DeleteArtifact", json!({"name": "shop"}));
    assert_eq!(status, 200);
    assert_eq!(
        bench.artifact("DeleteArtifact", json!({"name": "shop"})).0,
        404
    );
}

#[test]
fn files_are_read_in_parts_as_azures_clients_read_them() {
    let bench = Bench::new();
    let url = bench.begin("text.txt");
    let request = json!({"name": "text.txt", "mime_type": "text/plain"});
    let (_, answer) = bench.artifact("CreateArtifact", request);
    assert_eq!(
        put(&url, b"given up"),
        403,
        "a second beginning ends the first"
    );
    assert_eq!(
        put(answer["signed_upload_url"].as_str().unwrap(), b"as it is"),
        201
    );
    let (status, answer) =
        bench.artifact("FinalizeArtifact", json!({"name": "text.txt", "size": "8"}));
    assert_eq!(status, 200, "{answer}");
    let (_, signed) = bench.artifact("GetSignedArtifactURL", json!({"name": "text.txt"}));
    let url = signed["signed_url"].as_str().unwrap();
    let head = agent().head(url).call().unwrap();
    let length: usize = head.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(head.headers()["x-ms-blob-type"], "BlockBlob");
    let mut part = get(url, Some("bytes=2-4"));
    assert_eq!(part.status(), 206);
    assert_eq!(
        part.headers()["content-range"],
        format!("bytes 2-4/{length}").as_str()
    );
    assert_eq!(part.headers()["etag"], head.headers()["etag"]);
    assert_eq!(
        part.body_mut().read_to_vec().unwrap(),
        b"\x03\x04\x14"[..].to_vec()
    );
    assert_eq!(get(url, Some("bytes=99999-")).status(), 416);
    let changed = agent()
        .get(url)
        .header("if-match", "\"0xOTHER\"")
        .call()
        .unwrap();
    assert_eq!(changed.status(), 412);
}

#[test]
fn nobody_gets_in_without_the_token_or_a_signature() {
    let bench = Bench::new();
    let token = bench.env("ACTIONS_RUNTIME_TOKEN");
    assert_eq!(bench.masker.mask(token), "***");
    let other = RuntimeSecret::new_token("run", "job").unwrap();
    for wrong in ["", "x", &token[..token.len() - 1], other.as_str()] {
        let (status, answer) =
            bench.call_with(wrong, "ArtifactService", "ListArtifacts", json!({}));
        assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")));
    }
    let url = bench.begin("a");
    let unsigned = url.split('?').next().unwrap();
    assert_eq!(put(unsigned, b"x"), 403);
    assert_eq!(
        get(&url, None).status(),
        403,
        "an address for writing is not for reading"
    );
    let base = bench.env("ACTIONS_RESULTS_URL");
    for elsewhere in [
        "",
        "_apis/artifactcache/cache?keys=a",
        "blobs/artifacts/../x",
    ] {
        assert!(
            get(&format!("{base}{elsewhere}"), None)
                .status()
                .is_client_error()
        );
    }
    let (status, _) = bench.call("JobService", "Cancel", json!({}));
    assert_eq!(status, 404);
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    for bad in ["", "../x", "a/b", ".."] {
        let (status, _) = bench.artifact("CreateArtifact", json!({"name": bad}));
        assert_eq!(status, 400, "{bad:?}");
    }
    let zip = zip_of(&[("a", "x")]);
    let evil = zip_of(&[("../../evil", "x")]);
    for (body, finalize, why) in [
        (&zip[..], json!({"size": "1"}), "bytes received"),
        (&zip, json!({"hash": "sha256:00"}), "the received bytes are"),
        (&evil, json!({}), "is outside its folder"),
        (b"no zip", json!({}), "not a zip file"),
    ] {
        assert_eq!(put(&bench.begin("a"), body), 201);
        let mut finalize = finalize;
        finalize["name"] = json!("a");
        let (status, answer) = bench.artifact("FinalizeArtifact", finalize);
        assert_eq!(status, 400);
        assert!(answer["msg"].as_str().unwrap().contains(why), "{answer}");
    }
    bench.begin("never");
    assert_eq!(
        bench
            .artifact("FinalizeArtifact", json!({"name": "never"}))
            .0,
        400
    );
    assert_eq!(
        bench
            .artifact("FinalizeArtifact", json!({"name": "nobody"}))
            .0,
        404
    );
    assert!(bench.runtime.artifact_store.list_artifacts().is_empty());
    let artifacts = fs::read_dir(bench.root.path().join("artifacts"));
    assert_eq!(artifacts.into_iter().flatten().count(), 0);
    let uploads = bench.root.path().join("temp/_runtime/uploads");
    assert_eq!(fs::read_dir(uploads).unwrap().count(), 0);
}

#[test]
fn a_name_is_given_once() {
    let earlier = shipway_workflow::job::StoredArtifact {
        name: "theirs".to_owned(),
        digest: "sha256:00".to_owned(),
        size: 7,
    };
    let bench = Bench::with(&[earlier]);
    let (status, answer) = bench.artifact("CreateArtifact", json!({"name": "theirs"}));
    assert_eq!((status, &answer["code"]), (409, &json!("already_exists")));
    let (status, answer) = bench.artifact("GetSignedArtifactURL", json!({"name": "theirs"}));
    assert_eq!(status, 500);
    assert!(
        answer["msg"].as_str().unwrap().contains("can't be read"),
        "{answer}"
    );
}

#[test]
fn the_endpoints_end_with_the_job() {
    let mut bench = Bench::new();
    let url = bench.env("ACTIONS_RESULTS_URL").to_owned();
    bench.runtime.served = None;
    assert!(agent().get(url).call().is_err());
}

impl Bench {
    fn cache(&self, method: &str, request: Value) -> (u16, Value) {
        self.call("CacheService", method, request)
    }

    fn keep(&self, key: &str, text: &str) -> (u16, Value) {
        let (status, answer) = self.cache("CreateCacheEntry", json!({"key": key, "version": "v"}));
        if status != 200 {
            return (status, answer);
        }
        let url = answer["signed_upload_url"].as_str().unwrap();
        assert_eq!(put(url, text.as_bytes()), 201);
        let size = text.len().to_string();
        let finalize = json!({"key": key, "version": "v", "size_bytes": size});
        self.cache("FinalizeCacheEntryUpload", finalize)
    }

    fn find(&self, key: &str, restore_keys: &[&str]) -> Option<(String, String)> {
        let request = json!({"key": key, "restore_keys": restore_keys, "version": "v"});
        let (status, answer) = self.cache("GetCacheEntryDownloadURL", request);
        assert_eq!(status, 200, "{answer}");
        let url = answer["signed_download_url"].as_str()?;
        let text = get(url, None).body_mut().read_to_string().unwrap();
        Some((answer["matched_key"].as_str().unwrap().to_owned(), text))
    }
}

#[test]
fn caches_are_kept_once_and_found_by_key() {
    let bench = Bench::new();
    assert_eq!(bench.find("npm-1", &["npm-"]), None);
    let (status, answer) = bench.keep("npm-1", "one");
    assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
    assert!(answer["entry_id"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    let found = |key: &str, text: &str| Some((key.to_owned(), text.to_owned()));
    assert_eq!(bench.find("npm-1", &[]), found("npm-1", "one"));
    assert_eq!(bench.find("npm-2", &["npm-"]), found("npm-1", "one"));
    let (status, answer) = bench.keep("npm-1", "two");
    assert_eq!((status, &answer["code"]), (409, &json!("already_exists")));
    for bad in ["", "a,b", &"x".repeat(600)] {
        let (status, _) = bench.cache("CreateCacheEntry", json!({"key": bad, "version": "v"}));
        assert_eq!(status, 400, "{bad}");
    }
    let many = vec!["x"; 10];
    let request = json!({"key": "k", "restore_keys": many, "version": "v"});
    assert_eq!(bench.cache("GetCacheEntryDownloadURL", request).0, 400);
    let never = json!({"key": "never", "version": "v", "size_bytes": "1"});
    assert_eq!(bench.cache("FinalizeCacheEntryUpload", never).0, 404);
}
