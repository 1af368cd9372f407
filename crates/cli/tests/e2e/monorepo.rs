//! Several services in one repository: each is released when its paths changed, and decides for itself.

use std::fs;

use serde_json::Value;

use crate::{
    first_use::{next_commands, paste},
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const CONFIG: &str = "
service: NAME
artifact: { source: . }
run:
  command: exec python3 -m http.server --bind 127.0.0.1 $PORT
  health: { http: /, interval: 100ms, timeout: 2s }
environments: { production: { path: /NAME, strip_prefix: true, watch: none, strategy: recreate, drain: 1s } }
";

/// Runs for each service that changed, and is red where its folder has a file `RED`.
const SHARED: &str = "
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: echo \"testing $SHIPWAY_SERVICE in $SHIPWAY_FOLDER of $GITHUB_REPOSITORY\" && test ! -e \"$SHIPWAY_FOLDER/RED\"
";

fn add_service(repository: &Shop, name: &str, more: &str) {
    let folder = format!("services/{name}");
    fs::create_dir_all(repository.path.join(&folder)).unwrap();
    let config = CONFIG.replace("NAME", name) + more;
    repository.write(&format!("{folder}/shipway.yaml"), &config);
    repository.write(&format!("{folder}/page"), &format!("{name} 1"));
}

fn empty_repository(site: &Site, name: &str) -> Shop {
    let path = site.folder.path().join(name);
    fs::create_dir_all(&path).unwrap();
    Shop::of(&path, &site.url(&format!("/git/{name}")))
}

/// A repository with the services `cart`, `mail` and `till`; `till` and `mail` use `libs` too.
fn repository(site: &Site, name: &str) -> Shop {
    let repository = empty_repository(site, name);
    fs::create_dir(repository.path.join("libs")).unwrap();
    add_service(&repository, "cart", "");
    add_service(&repository, "mail", "paths: ['libs/**', '!**/*.md']\n");
    add_service(&repository, "till", "paths: [libs/**]\n");
    repository.write("libs/money", "1");
    repository
}

fn page(site: &Site, service: &str) -> Option<String> {
    let answer = site.ask(&format!("/{service}/page"));
    answer
        .filter(|(status, _)| *status == 200)
        .map(|(_, page)| page)
}

/// The stable release of a service.
fn stable(site: &Site, service: &str) -> u64 {
    let view = site.get(&format!("/api/v1/services/{service}"));
    let view = view.unwrap_or_default();
    view["environments"][0]["stable"]["number"]
        .as_u64()
        .unwrap_or_default()
}

fn stables(site: &Site) -> [u64; 3] {
    ["cart", "mail", "till"].map(|service| stable(site, service))
}

#[test]
fn one_push_releases_the_services_whose_paths_changed() {
    let mut site = Site::started();
    let repository = repository(&site, "mono");
    let told = said(&repository.ship("1"));
    for service in ["cart", "mail", "till"] {
        let new = format!("{service}: new service in services/{service} of the repository mono");
        assert_says(
            &told,
            &[&new, &format!("{service}: ✓ #1 serves production")],
        );
        assert_eq!(page(&site, service), Some(format!("{service} 1")));
    }

    repository.write("services/cart/page", "cart 2");
    let told = said(&repository.ship("2"));
    let words = [
        "cart: changed: services/cart/page",
        "cart: ✓ #2 serves",
        "mail: unchanged, not released",
        "till: unchanged, not released",
    ];
    assert_says(&told, &words);
    assert_eq!(page(&site, "cart"), Some("cart 2".to_owned()));
    assert_eq!(stables(&site), [2, 1, 1]);

    repository.write("libs/money", "2");
    let told = said(&repository.ship("3"));
    assert_says(
        &told,
        &["cart: unchanged", "mail: ✓ #2 serves", "till: ✓ #2 serves"],
    );
    repository.write("libs/README.md", "money");
    let told = said(&repository.ship("4"));
    assert_says(
        &told,
        &["cart: unchanged", "mail: unchanged", "till: ✓ #3 serves"],
    );
    assert_eq!(stables(&site), [2, 2, 3]);

    // The log knows all of it: a restart takes nothing for a missed push.
    let before = site.get("/api/v1/rollouts?limit=200").unwrap();
    site.stop();
    site.start();
    assert_eq!(site.get("/api/v1/rollouts?limit=200").unwrap(), before);
    let cart = repository.path.join("services/cart");
    let history = said(&site.shipway_in(&cart, &["history"]));
    assert_says(&history, &["ro2", "#2"]);
    assert_silent_of(&history, &["#3"]);
}

#[test]
fn merges_force_pushes_and_branches_are_compared_with_what_is_released() {
    let site = Site::started();
    let repository = repository(&site, "mono");
    said(&repository.ship("1"));
    // A branch releases nothing. Its merge brings all that it changed.
    repository.git(&["switch", "--quiet", "--create", "topic"]);
    repository.write("services/cart/page", "cart 2");
    repository.commit("2");
    repository.write("services/till/page", "till 2");
    repository.commit("3");
    let told = said(&repository.push("topic"));
    assert_silent_of(&told, &["serves", "not released"]);
    repository.git(&["switch", "--quiet", "main"]);
    repository.git(&["merge", "--quiet", "--no-ff", "--message", "both", "topic"]);
    let told = said(&repository.push("main"));
    assert_says(
        &told,
        &["cart: ✓ #2 serves", "till: ✓ #2 serves", "mail: unchanged"],
    );
    // Back to the first commit.
    repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let told = said(&repository.push("+main"));
    assert_says(
        &told,
        &["cart: ✓ #3 serves", "till: ✓ #3 serves", "mail: unchanged"],
    );
    assert_eq!(page(&site, "cart"), Some("cart 1".to_owned()));
    // No branch has the merge any more; its releases keep it in the repository that they share.
    repository.git(&["push", "--quiet", &site.url("/git/mono"), ":topic"]);
    assert_ends(&site.shipway(&["admin", "prune"]), 0, &[]);
    let retained = site.data().join("git/mono.git/refs/shipway/retained");
    let loose = fs::read_dir(retained).map_or(0, Iterator::count);
    let packed = fs::read_to_string(site.data().join("git/mono.git/packed-refs"));
    let packed = packed
        .unwrap_or_default()
        .matches("refs/shipway/retained")
        .count();
    assert!(loose + packed >= 2, "{loose} {packed}");
}

#[test]
fn each_service_is_decided_by_its_own_run_and_a_red_one_is_tried_again_by_the_next_push() {
    let site = Site::started();
    let repository = repository(&site, "mono");
    fs::create_dir_all(repository.path.join(".github/workflows")).unwrap();
    repository.write(".github/workflows/test.yml", SHARED);
    let only_till = SHARED.replace("on: push", "on: { push: { paths: [services/till/**] } }");
    repository.write(".github/workflows/till.yml", &only_till);
    repository.write("services/cart/RED", "");
    let told = said(&repository.ship("1"));
    let words = [
        "mail: ✓ #1 serves",
        "till: ✓ #1 serves",
        "cart: ✗ run r1 failed",
        "cart: not released: not successful: r1",
    ];
    assert_says(&told, &words);
    assert_silent_of(&told, &["cart: run r2", "mail: run r2"]);
    assert_says(&told, &["till: run r2 · .github/workflows/till.yml"]);
    assert_eq!(stables(&site), [0, 1, 1]);
    let log = said(&site.shipway(&["logs", "mail/r1"]));
    assert_says(&log, &["testing mail in services/mail of shipway/mono"]);

    // Nothing of cart changes, but its change is still to be released.
    let lenient = SHARED.replace(" && test ! -e \"$SHIPWAY_FOLDER/RED\"", "");
    repository.write(".github/workflows/test.yml", &lenient);
    let told = said(&repository.ship("2"));
    assert_says(
        &told,
        &["cart: ✓ #1 serves", "mail: unchanged", "till: unchanged"],
    );
    assert_eq!(stables(&site), [1, 1, 1]);
}

#[test]
fn a_mistake_stops_its_own_service_and_names_are_not_taken_over() {
    let site = Site::started();
    let repository = repository(&site, "mono");
    said(&repository.ship("1"));
    let config = repository.path.join("services/cart/shipway.yaml");
    let good = fs::read_to_string(&config).unwrap();
    repository.write("services/cart/shipway.yaml", &good.replace("run:", "rnu:"));
    repository.write("services/till/page", "till 2");
    let told = said(&repository.ship("2"));
    let words = [
        "services/cart/shipway.yaml:4:1: error: unknown key `rnu`",
        "cart: not released: services/cart/shipway.yaml has errors",
        "till: ✓ #2 serves",
    ];
    assert_says(&told, &words);
    assert_eq!(stables(&site), [1, 1, 2]);
    repository.write("services/cart/shipway.yaml", &good);
    // A second file with the name, a link out of the repository, and a file without a name.
    for folder in ["copy", "link", "nameless"] {
        fs::create_dir_all(repository.path.join("services").join(folder)).unwrap();
    }
    repository.write("services/copy/shipway.yaml", &good);
    repository.write("services/nameless/shipway.yaml", "run: {}\n");
    let link = repository.path.join("services/link/shipway.yaml");
    std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
    std::os::unix::fs::symlink("/etc", repository.path.join("services/outside")).unwrap();
    repository.write("services/till/page", "till 3");
    let told = said(&repository.ship("3"));
    let words = [
        "services/cart/shipway.yaml and services/copy/shipway.yaml name the same service: cart",
        "services/link/shipway.yaml is a symbolic link, which is not followed",
        "services/nameless/shipway.yaml: its service is not known",
        "till: ✓ #3 serves",
    ];
    assert_says(&told, &words);
    assert_silent_of(&told, &["root:", "cart: "]);
    assert_eq!(stables(&site), [1, 1, 3]);

    let others = self::repository(&site, "others");
    add_service(&others, "news", "");
    let told = said(&others.ship("1"));
    let owned = "✗ the service cart is in services/cart of the repository mono: push to /git/mono, or give this service another name";
    assert_says(&told, &[owned, "news: ✓ #1 serves"]);
    assert_silent_of(&told, &["cart: #", "till: #"]);
    assert_eq!(stables(&site), [1, 1, 3]);
    // A repository of the service's name.
    let shop = Shop::create(&site.folder.path().join("cart"), &site.url("/git/cart"));
    let refused = shop.ship("1.0");
    assert_says(
        &said(&refused),
        &["cart is in services/cart of the repository mono: push to /git/mono"],
    );
    assert!(!refused.status.success());
    let taken = empty_repository(&site, "third");
    add_service(&taken, "mono", "");
    let told = said(&taken.ship("1"));
    assert_says(
        &told,
        &["mono: ✗ the service mono is in the repository mono"],
    );
}

#[test]
fn a_repository_of_a_thousand_services_is_refused_with_the_number() {
    let site = Site::started();
    let repository = empty_repository(&site, "many");
    for number in 0..1_000 {
        add_service(&repository, &format!("s{number}"), "");
    }
    let told = said(&repository.ship("1"));
    assert_says(
        &told,
        &["services/ has 1000 services, but a repository may have 100"],
    );
    assert_eq!(
        site.get("/api/v1/services").unwrap()["items"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_removed_folder_stops_nothing_and_a_deleted_service_leaves_the_others() {
    let mut site = Site::started();
    let repository = repository(&site, "mono");
    said(&repository.ship("1"));
    repository.git(&["rm", "--quiet", "-r", "services/cart"]);
    let told = said(&repository.ship("2"));
    let words = [
        "cart: services/cart/shipway.yaml is gone, so nothing is released; what runs keeps running until: shipway delete cart",
        "till: unchanged",
    ];
    assert_says(&told, &words);
    assert_eq!(page(&site, "cart"), Some("cart 1".to_owned()));
    assert_ends(
        &site.shipway(&["delete", "cart", "--yes"]),
        0,
        &["deleted: service cart"],
    );
    assert_eq!(page(&site, "cart"), None);
    site.stop();
    site.start();
    assert_eq!(site.get("/api/v1/services/cart"), None);
    repository.write("services/till/page", "till 2");
    let told = said(&repository.ship("3"));
    assert_says(&told, &["till: ✓ #2 serves", "mail: unchanged"]);
    assert_silent_of(&told, &["cart"]);
    // The name is free for another repository now.
    let others = empty_repository(&site, "others");
    add_service(&others, "cart", "");
    assert_says(&said(&others.ship("1")), &["cart: ✓ #2 serves"]);
}

#[test]
fn a_server_killed_between_the_services_of_a_push_starts_each_of_them_once() {
    let mut site = Site::started();
    let repository = repository(&site, "mono");
    said(&repository.ship("1"));
    // Each service is told by some five events; its rollout adds others meanwhile.
    for (release, events) in (2..).zip([1, 3, 5, 7, 9, 12, 15, 19]) {
        for service in ["cart", "mail", "till"] {
            let page = format!("services/{service}/page");
            repository.write(&page, &format!("{service} {release}"));
        }
        site.stop();
        site.env = vec![("SHIPWAY_CRASH_AFTER_EVENTS", events.to_string())];
        site.start();
        repository.ship(&format!("{release}"));
        until("the crash", || site.ended());
        site.stop();
        site.env.clear();
        site.start();
        // A server that died before git took the commit in left nothing to go on with: people push again.
        repository.push("main");
        until(&format!("all releases after event {events}"), || {
            stables(&site) == [release; 3]
        });
        for service in ["cart", "mail", "till"] {
            assert_eq!(page(&site, service), Some(format!("{service} {release}")));
        }
    }
    let log = site.log();
    let recovered = log.matches("recording pushes that arrived while no server was running");
    assert!(recovered.count() >= 4, "{log}");
}

#[test]
fn the_root_is_one_more_service() {
    let site = Site::started();
    let repository = empty_repository(&site, "shop");
    add_service(&repository, "cart", "");
    let config = CONFIG.replace("NAME", "shop") + "paths: ['!services/**', '!VERSION']\n";
    repository.write("shipway.yaml", &config);
    repository.write("page", "shop 1");
    let told = said(&repository.ship("1"));
    assert_says(&told, &["shop: ✓ #1 serves", "cart: ✓ #1 serves"]);
    repository.write("services/cart/page", "cart 2");
    let told = said(&repository.ship("2"));
    assert_says(
        &told,
        &["shop: unchanged, not released", "cart: ✓ #2 serves"],
    );
    repository.write("page", "shop 2");
    let told = said(&repository.ship("3"));
    assert_says(&told, &["shop: ✓ #2 serves", "cart: unchanged"]);
    // The repository stays for the other service, and the root's does not come back by a restart.
    assert_ends(
        &site.shipway(&["delete", "shop", "--yes"]),
        0,
        &["deleted: service shop"],
    );
    assert!(site.data().join("git/shop.git").exists());
    let mut site = site;
    site.stop();
    site.start();
    assert_eq!(site.get("/api/v1/services/shop"), None);
    repository.write("services/cart/page", "cart 3");
    repository.git(&["rm", "--quiet", "shipway.yaml"]);
    assert_says(&said(&repository.ship("4")), &["cart: ✓ #3 serves"]);
}

/// A server of the text in `greeting.py`.
const PYTHON_SERVER: &str = r#"import http.server, os
from greeting import TEXT
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(TEXT.encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

#[test]
fn init_in_two_folders_serves_both_without_an_edit_and_a_change_of_one_releases_that_one() {
    let site = Site::started();
    let mono = empty_repository(&site, "mono");
    for folder in ["services/a", "services/b"] {
        fs::create_dir_all(mono.path.join(folder)).unwrap();
    }
    mono.write("services/a/app.py", PYTHON_SERVER);
    mono.write("services/a/greeting.py", "TEXT = 'from a'\n");
    mono.write("services/b/index.html", "from b");
    let mut commands = Vec::new();
    for (name, kind) in [("a", "a Python program"), ("b", "a static site")] {
        let folder = mono.path.join("services").join(name);
        let begun = paste(&folder, &format!("shipway init --server {}", site.url("")));
        let words = [
            &format!("Found {kind}"),
            &format!("Wrote services/{name}/shipway.yaml"),
            &format!("Wrote .github/workflows/{name}.yml"),
        ];
        assert_ends(&begun, 0, &words.map(String::as_str));
        assert!(!folder.join(".github").exists());
        commands = next_commands(&said(&begun));
    }
    let checked = site.shipway_in(&mono.path, &["check"]);
    assert_ends(&checked, 0, &["4 files checked: 0 errors, 0 warnings"]);
    let folder = mono.path.join("services/b");
    let mut told = String::new();
    for command in commands {
        if command != "shipway server" {
            let done = paste(&folder, &command);
            told = said(&done);
            assert!(done.status.success(), "{command}: {told}");
        }
    }
    assert_says(
        &told,
        &[
            "a: ✓ #1 serves production",
            "b: ✓ #1 serves production",
            "a: run r1 · .github/workflows/a.yml",
            "b: run r1 · .github/workflows/b.yml",
        ],
    );
    assert_eq!(site.ask("/a/"), Some((200, "from a".to_owned())));
    assert_eq!(site.ask("/b/"), Some((200, "from b".to_owned())));

    mono.write("services/a/greeting.py", "TEXT = 'from a 2'\n");
    let push = mono.ship_begun("2");
    // People who know the release don't wait for the holds of its canary.
    until("a #2 in production", || {
        site.shipway(&["promote", "a/ro4"]).status.success()
    });
    let told = said(&push.wait_with_output().unwrap());
    assert_says(
        &told,
        &[
            "a: changed: services/a/greeting.py",
            "a: ✓ #2 serves production",
            "b: unchanged, not released",
        ],
    );
    assert_silent_of(&told, &["b: run", "b: #2", "a: run r3"]);
    assert_eq!([stable(&site, "a"), stable(&site, "b")], [2, 1]);
    assert_eq!(site.ask("/a/"), Some((200, "from a 2".to_owned())));
}

#[test]
fn check_at_the_root_knows_what_a_push_reads() {
    let site = Site::new();
    let mono = repository(&site, "mono");
    let check = || said(&paste(&mono.path, "shipway check"));
    assert_says(&check(), &["3 files checked: 0 errors, 0 warnings"]);

    add_service(&mono, "copy", "paths: [lib/**, '!**/*.txt']\n");
    let copy = mono.path.join("services/copy/shipway.yaml");
    let text = fs::read_to_string(&copy).unwrap();
    fs::write(&copy, text.replace("service: copy", "service: cart")).unwrap();
    add_service(&mono, "group/mail", "");
    let config = "services/group/mail/shipway.yaml";
    mono.write(config, &CONFIG.replace("NAME", "deep"));
    add_service(&mono, "ignored", "");
    mono.write(".gitignore", "ignored/\n");
    fs::create_dir_all(mono.path.join("services/link")).unwrap();
    let link = mono.path.join("services/link/shipway.yaml");
    std::os::unix::fs::symlink("../till/shipway.yaml", link).unwrap();
    fs::create_dir_all(mono.path.join("tests/shop")).unwrap();
    mono.write("tests/shop/shipway.yaml", &CONFIG.replace("NAME", "cart"));
    let checked = paste(&mono.path, "shipway check");
    let words = [
        "services/copy/shipway.yaml names the service cart too: neither is released",
        "services/cart/shipway.yaml names the service cart too: neither is released",
        "the pattern `lib/**` of `paths` matches no file of the repository",
        "only shipway.yaml and services/*/shipway.yaml of a repository are services",
        "move the folder to services/mail",
        "git ignores services/ignored/shipway.yaml, so no push has it",
        "services/link/shipway.yaml is a symbolic link, which a push does not follow",
        "8 files checked: 2 errors, 4 warnings",
    ];
    assert_ends(&checked, 2, &words);
    assert_silent_of(&said(&checked), &["till too", "tests/shop"]);
}

#[test]
fn check_compares_each_service_with_the_workflows_that_its_changes_start() {
    const UPLOADS: &str = "on: { push: { branches: [main], paths: [PATHS] } }\njobs: { b: { runs-on: ubuntu-latest, steps: [{ uses: actions/upload-artifact@v4, with: { name: app, path: . } }] } }\n";
    let site = Site::new();
    let mono = repository(&site, "mono");
    for service in ["cart", "till"] {
        let path = format!("services/{service}/shipway.yaml");
        mono.edit(&path, "artifact: { source: . }", "artifact: app");
    }
    fs::create_dir_all(mono.path.join(".github/workflows")).unwrap();
    let workflow = ".github/workflows/app.yml";
    let check = |paths: &str| {
        mono.write(workflow, &UPLOADS.replace("PATHS", paths));
        said(&paste(&mono.path, "shipway check"))
    };
    let missing = "no workflow that a push of main starts uploads the artifact `app`";
    assert_says(&check("services/**"), &["0 errors, 0 warnings"]);
    // `till` uses libs, `cart` does not.
    let told = check("libs/**");
    assert_says(&told, &[missing, "0 errors, 1 warning"]);
    assert_says(&told, &["services/cart/shipway.yaml"]);
    assert_silent_of(&told, &["services/till/shipway.yaml"]);
}

#[test]
fn init_in_a_folder_that_no_push_reads_says_so_and_check_too() {
    let site = Site::new();
    let mono = empty_repository(&site, "mono");
    fs::create_dir_all(mono.path.join("apps/cart")).unwrap();
    mono.write("apps/cart/index.html", "x");
    let folder = mono.path.join("apps/cart");
    assert_ends(
        &paste(&folder, "shipway init"),
        0,
        &["A push does not read it here: move the folder to services/cart"],
    );
    assert_ends(
        &paste(&folder, "shipway check"),
        0,
        &["a push does not read this file"],
    );
}
