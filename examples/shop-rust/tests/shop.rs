//! What the shop promises, asked of the program itself over HTTP.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

/// The program in a folder of its own; both are gone afterwards.
struct Running {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Running {
    fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "shop-test-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = env::temp_dir().join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
            .env("PORT", "0")
            .env("DATA_DIR", &folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().split("http://").nth(1).unwrap().to_owned();
        Self {
            child,
            address,
            folder,
        }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            serde_json::from_str(body).unwrap(),
        )
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn it_says_who_it_is_and_what_it_sells() {
    let shop = Running::start();
    assert_eq!(
        shop.get("/"),
        (
            200,
            json!({ "service": "shop", "version": shop::api::version() })
        )
    );
    assert_eq!(shop.get("/items?page=1").1["items"][1]["name"], "pot");
    assert_eq!(shop.get("/cars").0, 404);
    assert_eq!(shop.ask("DELETE", "/items", "").0, 405);
}

#[test]
fn an_order_takes_goods_off_the_shelf() {
    let shop = Running::start();
    let (status, order) = shop.ask("POST", "/orders", r#"{"item_id": 2, "quantity": 3}"#);
    assert_eq!((status, &order["total_cents"]), (201, &json!(8700)));
    assert_eq!(shop.get("/orders/1"), (200, order));
    assert_eq!(shop.get("/items").1["items"][1]["stock"], 17);
}

#[test]
fn what_is_not_there_cannot_be_ordered() {
    let shop = Running::start();
    let cases = [
        (r#"{"item_id": 99}"#, 404),
        (r#"{"item_id": 2, "quantity": 21}"#, 409),
        (r#"{"item_id": 2, "quantity": 0}"#, 422),
        ("two pots please", 422),
    ];
    for (body, status) in cases {
        assert_eq!(shop.ask("POST", "/orders", body).0, status, "{body}");
    }
    assert_eq!(shop.get("/orders/1").0, 404);
    assert_eq!(
        shop.get("/items").1["items"][1]["stock"],
        20,
        "a refused order takes nothing"
    );
}

#[test]
fn readiness_names_the_dependency_that_is_down() {
    let shop = Running::start();
    assert_eq!(
        shop.get("/health/ready"),
        (200, json!({ "ready": true, "checks": { "journal": true } }))
    );
    fs::remove_dir_all(&shop.folder).unwrap();
    assert_eq!(
        shop.get("/health/ready"),
        (
            503,
            json!({ "ready": false, "checks": { "journal": false } })
        )
    );
    assert_eq!(
        shop.get("/health").0,
        200,
        "a lost journal is no reason to restart"
    );
    assert_eq!(
        shop.ask("POST", "/orders", r#"{"item_id": 1}"#).0,
        500,
        "and no order is lost in it"
    );
}

#[test]
fn sigterm_ends_it_well() {
    let mut shop = Running::start();
    let pid = shop.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(shop.child.wait().unwrap().success());
}
