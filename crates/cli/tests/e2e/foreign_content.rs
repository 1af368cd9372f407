//! Submodules and files of Git LFS in a pushed repository: what a release lacks is said, and jobs fetch it.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{
    shop::Shop,
    site::{Site, free_address, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const RUN: &str = "
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { strategy: recreate, drain: 1s } }
";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";

/// A server of the files in a folder, over HTTP.
struct FileServer {
    address: String,
    process: Child,
}

impl FileServer {
    fn start(folder: &std::path::Path) -> Self {
        let address = free_address();
        let port = address.rsplit(':').next().unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        command.arg(folder).arg(port);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        until("the file server to answer", || {
            TcpStream::connect(&address).is_ok()
        });
        Self {
            process: process.unwrap(),
            address,
        }
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_release_of_the_tree_says_what_it_lacks_and_the_server_refuses_large_files() {
    let site = Site::started();
    let shop = site.shop();
    fs::remove_file(shop.path.join(".github/workflows/cd.yml")).unwrap();
    shop.write(
        "shipway.yaml",
        &format!("service: shop\nartifact: {{ source: . }}\n{RUN}"),
    );
    let pushed = said(&shop.ship("1.0"));
    assert_says(&pushed, &["#1 serves production"]);
    assert_silent_of(&pushed, &["warning"]);
    shop.write(".gitattributes", "*.bin -text filter=lfs\n");
    for name in ["a.bin", "b.bin"] {
        shop.write(name, POINTER);
    }
    shop.write(
        ".gitmodules",
        "[submodule \"vendor/lib\"]\n\tpath = vendor/lib\n\turl = ../lib\n",
    );
    let link = format!("160000,{},vendor/lib", "1".repeat(40));
    shop.git(&["update-index", "--add", "--cacheinfo", &link]);
    fs::create_dir_all(shop.path.join("vendor/lib")).unwrap();
    let words = [
        "which has an empty folder instead of vendor/lib",
        "`submodules: true`",
        "which has a pointer of Git LFS instead of a.bin and 1 more",
        "`lfs: true`",
        "#2 serves production",
    ];
    assert_says(&said(&shop.ship("2.0")), &words);
    let checked = crate::site::shipway_in(&shop.path, &["check"])
        .output()
        .unwrap();
    assert_says(
        &said(&checked),
        &[
            "empty folders instead of the submodules",
            "pointers instead of",
        ],
    );

    let batch = site.url("/git/shop/info/lfs/objects/batch");
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::from(agent.build());
    let request = agent
        .post(batch)
        .content_type("application/vnd.git-lfs+json");
    let mut answer = request
        .send(json!({ "operation": "upload" }).to_string())
        .unwrap();
    assert_eq!(answer.status(), 501);
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "application/vnd.git-lfs+json");
    let message = answer.body_mut().read_to_string().unwrap();
    assert_says(
        &message,
        &[
            "\"message\"",
            "stores no files of Git LFS",
            "GIT_LFS_SKIP_PUSH=1 git push",
        ],
    );
}

#[test]
fn a_job_builds_a_release_with_its_submodule() {
    let site = Site::started();
    let forge = site.folder.path().join("forge");
    fs::create_dir_all(forge.join("trees/lib")).unwrap();
    let library = Shop::of(&forge.join("trees/lib"), "unused");
    library.write("greeting", "from the submodule\n");
    library.commit("1");
    let bare = forge.join("acme/lib.git");
    library.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    library.git(&["-C", bare.to_str().unwrap(), "update-server-info"]);
    let server = FileServer::start(&forge);
    let head = fs::read_to_string(bare.join("packed-refs")).unwrap();
    let head = head
        .lines()
        .find(|line| line.ends_with("refs/heads/main"))
        .unwrap();
    let head = head.split(' ').next().unwrap();

    let shop = site.shop();
    let repository = format!(
        "service: shop\nrepository: http://{}/acme/shop\n{RUN}",
        server.address
    );
    shop.write("shipway.yaml", &repository);
    let workflow = ".github/workflows/cd.yml";
    shop.edit(
        workflow,
        "actions/checkout@v4",
        "actions/checkout@v4\n        with: { submodules: true }",
    );
    shop.edit(workflow, "\\nMOOD\"", "\\nMOOD\\nlib/greeting\"");
    shop.write(
        ".gitmodules",
        "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n",
    );
    shop.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{head},lib"),
    ]);
    fs::create_dir_all(shop.path.join("lib")).unwrap();
    let pushed = said(&shop.ship("1.0"));
    assert_says(&pushed, &["#1 serves production"]);
    let app = site
        .data()
        .join("instances/shop.production.1/1/app/lib/greeting");
    assert_eq!(fs::read_to_string(app).unwrap(), "from the submodule\n");

    // A relative URL needs the repository's URL on a forge.
    shop.write(
        "shipway.yaml",
        &repository.replace("repository:", "# repository:"),
    );
    assert_says(&said(&shop.ship("2.0")), &["`repository:` in shipway.yaml"]);
    let log = site.shipway(&["logs", "shop/r2"]);
    assert_ends(&log, 0, &["the submodule lib has the address ../lib.git"]);
}
