//! A real OpenID Connect provider (npm's oidc-provider), and a browser that goes there and back.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::site::{Site, free_address};

/// Where `./test` has installed it; none where it is not.
fn modules() -> Option<PathBuf> {
    let folder = std::env::var_os("SHIPWAY_TEST_OIDC_PROVIDER").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/oidc-provider-9.13.3"),
        PathBuf::from,
    );
    if folder.join("node_modules/oidc-provider").is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none() || folder.as_os_str() == "none",
        "CI has no oidc-provider; ./test installs it"
    );
    println!("skipped, because oidc-provider is not installed");
    None
}

/// A provider that runs.
pub struct TestProvider {
    /// `127.0.0.1:port`.
    pub address: String,
    redirect_uri: String,
    modules: PathBuf,
    process: Option<Child>,
}

impl TestProvider {
    /// A provider for a site, which has flags for it now.
    pub fn for_site(site: &mut Site) -> Option<Self> {
        let mut provider = Self {
            address: free_address(),
            redirect_uri: site.url("/login/oidc/callback"),
            modules: modules()?,
            process: None,
        };
        provider.start();
        let flags = [
            ("--oidc-issuer", provider.issuer()),
            ("--oidc-client-id", "shipway".to_owned()),
            ("--oidc-name", "Acme".to_owned()),
            ("--oidc-allow", "*@example.com".to_owned()),
            ("--oidc-allow", "@devs".to_owned()),
            ("--oidc-group", "devs=platform".to_owned()),
            ("--oidc-scope", "openid,profile,email,groups".to_owned()),
        ];
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        site.flags.extend(flags);
        let secret = "a client secret: 100%".to_owned();
        site.env.push(("SHIPWAY_OIDC_CLIENT_SECRET", secret));
        Some(provider)
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it, with new keys.
    pub fn start(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider/provider.mjs");
        let (_, port) = self.address.split_once(':').unwrap();
        let mut process = Command::new("node")
            .arg(script)
            .arg(&self.modules)
            .args([port, &self.redirect_uri])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap() == "ready"),
            "the provider did not start"
        );
        self.process = Some(process);
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().unwrap();
        }
    }

    /// Changes its behaviour; its answer.
    pub fn control(&self, what: &str, body: &Value) -> Value {
        let address = format!("{}/control/{what}", self.issuer());
        let mut answer = ureq::post(address).send_json(body).unwrap();
        answer.body_mut().read_json().unwrap()
    }

    /// The next person who signs in, with more claims.
    pub fn person(&self, subject: &str, claims: Value) {
        let mut person = claims;
        person["sub"] = json!(subject);
        self.control("person", &person);
    }

    /// Requests that it got for a path.
    pub fn requests(&self, path: &str) -> u64 {
        self.control("requests", &json!({}))[path]
            .as_u64()
            .unwrap_or_default()
    }
}

impl Drop for TestProvider {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A response in a browser, after all redirects.
pub struct Visited {
    pub status: u16,
    pub address: String,
    pub body: String,
}

/// A browser with cookies.
#[derive(Clone, Default)]
pub struct Browser {
    /// By host and port, then by name.
    pub cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Addresses where it stops instead of following.
    pub stop_at: Option<&'static str>,
}

impl Browser {
    /// Goes to an address, and wherever that leads.
    pub fn visit(&mut self, address: &str) -> Visited {
        let mut address = address.to_owned();
        for _ in 0..12 {
            let (status, location, body) = self.fetch(&address);
            let Some(next) = location else {
                return Visited {
                    status,
                    address,
                    body,
                };
            };
            address = match next.starts_with('/') {
                true => format!("http://{}{next}", host(&address)),
                false => next,
            };
            if self.stop_at.is_some_and(|end| address.contains(end)) {
                return Visited {
                    status,
                    address,
                    body,
                };
            }
        }
        panic!("too many redirects at {address}");
    }

    /// The cookies for an address.
    pub fn cookie(&self, address: &str) -> String {
        let own = self.cookies.get(host(address)).cloned().unwrap_or_default();
        let own = own.iter().map(|(name, value)| format!("{name}={value}"));
        own.collect::<Vec<_>>().join("; ")
    }

    fn fetch(&mut self, address: &str) -> (u16, Option<String>, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let request = agent.get(address).header("accept", "text/html");
        let mut answer = request
            .header("cookie", self.cookie(address))
            .call()
            .unwrap();
        let own = self.cookies.entry(host(address).to_owned()).or_default();
        for value in answer.headers().get_all("set-cookie") {
            let value = value.to_str().unwrap();
            let (name, rest) = value.split_once('=').unwrap();
            let content = rest.split(';').next().unwrap();
            match content.is_empty() {
                true => own.remove(name),
                false => own.insert(name.to_owned(), content.to_owned()),
            };
        }
        let location = answer.headers().get("location");
        let location = location.map(|it| it.to_str().unwrap().to_owned());
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        (answer.status().as_u16(), location, body)
    }
}

fn host(address: &str) -> &str {
    let (_, rest) = address.split_once("://").unwrap();
    rest.split(['/', '?']).next().unwrap()
}
