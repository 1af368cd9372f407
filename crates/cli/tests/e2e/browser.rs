//! A real browser: Debian's Chromium without a window, driven through its debugging protocol over a pipe
//! (`--remote-debugging-pipe`): it needs neither a port nor a separate driver.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::Engine;
use serde_json::{Value, json};

use crate::site::PATIENCE;

/// A page in a browser of its own.
pub struct Browser {
    child: Child,
    requests: File,
    answers: BufReader<File>,
    next: u64,
    session: String,
    /// Exceptions of scripts and errors of the console, such as a refusal by the content policy.
    pub errors: Vec<String>,
    /// Addresses that pages have loaded something from.
    pub requested: Vec<String>,
    _folder: tempfile::TempDir,
}

/// How a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub scheme: &'static str,
}

pub const WIDE: Screen = Screen {
    width: 1280,
    height: 800,
    scheme: "light",
};

/// Records what a page moves on the screen without an input of the person, until it shows something newer: ages have other widths then.
const LAYOUT_SHIFTS: &str = "
  window.layoutShifts = [];
  const isNewer = (at) => performance.getEntriesByType('resource')
    .some(({ name, responseEnd }) => name === location.href.split('#')[0] && responseEnd <= at);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const moved = entry.sources.map((source) => source.node?.outerHTML?.slice(0, 120) ?? String(source.node?.nodeName));
      if (!entry.hadRecentInput && !isNewer(entry.startTime)) layoutShifts.push(`${entry.value}: ${moved.join(' | ')}`);
    }
  }).observe({ type: 'layout-shift', buffered: true });
";

/// Two frames: what has changed is laid out and painted.
const PAINTED: &str =
    "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";

/// The four variants that pages are looked at in, by their names.
pub const SCREENS: [(&str, Screen); 4] = [
    ("wide-light", WIDE),
    (
        "wide-dark",
        Screen {
            scheme: "dark",
            ..WIDE
        },
    ),
    (
        "narrow-light",
        Screen {
            width: 390,
            height: 844,
            scheme: "light",
        },
    ),
    (
        "narrow-dark",
        Screen {
            width: 390,
            height: 844,
            scheme: "dark",
        },
    ),
];

impl Browser {
    /// Starts a browser with an empty page; `None` where there is no Chromium.
    pub fn start() -> Option<Self> {
        let program = ["/usr/bin/chromium", "/usr/bin/google-chrome"];
        let program = program.into_iter().find(|path| Path::new(path).exists())?;
        let folder = tempfile::Builder::new()
            .prefix("shipway-browser-")
            .tempdir()
            .unwrap();
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            path
        };
        let (requests, answers) = (pipe("requests"), pipe("answers"));
        let data = folder.path().join("profile");
        let child = Command::new("sh")
            .args(["-c", r#"exec "$1" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --user-data-dir="$2" --remote-debugging-pipe about:blank 3<"$3" 4>"$4""#, "sh", program])
            .args([&data, &requests, &answers])
            // A killed browser leaves its temporary folders behind.
            .env("TMPDIR", folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let requests = File::options().write(true).open(requests).unwrap();
        let answers = BufReader::new(File::open(answers).unwrap());
        let mut browser = Self {
            child,
            requests,
            answers,
            next: 0,
            session: String::new(),
            errors: Vec::new(),
            requested: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in [
            "Page.enable",
            "Runtime.enable",
            "Log.enable",
            "Network.enable",
        ] {
            browser.call(domain, json!({}));
        }
        let observe = json!({ "source": LAYOUT_SHIFTS });
        browser.call("Page.addScriptToEvaluateOnNewDocument", observe);
        browser.show_on(WIDE);
        Some(browser)
    }

    /// Calls a method of the protocol; its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut request = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&request).unwrap();
        bytes.push(0);
        self.requests.write_all(&bytes).unwrap();
        loop {
            let message = self.receive();
            if message["id"] == self.next {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn receive(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).unwrap();
        assert!(bytes.pop().is_some(), "the browser has ended");
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        let is_error = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => message["params"]["entry"]["level"] == "error",
            Some("Runtime.consoleAPICalled") => message["params"]["type"] == "error",
            Some("Network.requestWillBeSent") => {
                let url = message["params"]["request"]["url"].as_str();
                self.requested.push(url.unwrap_or_default().to_owned());
                false
            }
            _ => false,
        };
        if is_error {
            self.errors.push(message["params"].to_string());
        }
        message
    }

    /// Sets the size of the screen and the colour scheme.
    pub fn show_on(&mut self, screen: Screen) {
        let size = json!({ "width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme =
            json!({ "features": [{ "name": "prefers-color-scheme", "value": screen.scheme }] });
        self.call("Emulation.setEmulatedMedia", scheme);
    }

    /// Opens an address and waits until its scripts have run.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.wait_for("document.readyState === 'complete'");
    }

    /// The value of an expression; a promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let request =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", request);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        let safely =
            format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        while self.evaluate(&safely) != true {
            if Instant::now() >= deadline {
                let page = self.evaluate("document.body.innerText");
                let errors = &self.errors;
                panic!("waited in vain for {expression}; errors: {errors:?}; the page: {page}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks with the mouse at the middle of the first element of a selector.
    pub fn click(&mut self, selector: &str) {
        self.wait_for(&format!("document.querySelector({selector:?})"));
        let script = format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView({{ block: 'center' }}); const box = it.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; }})()"
        );
        let place = self.evaluate(&script);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Whether an element is within the window and within every box that scrolls around it.
    pub fn is_on_screen(&mut self, selector: &str) -> bool {
        let script = format!(
            "(() => {{
               const it = document.querySelector({selector:?});
               if (!it) return false;
               const box = it.getBoundingClientRect();
               const seen = document.elementFromPoint(box.left + Math.min(60, box.width / 2), box.top + box.height / 2);
               return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && it.contains(seen);
             }})()"
        );
        self.evaluate(&script) == true
    }

    /// Waits until [`Browser::is_on_screen`].
    pub fn wait_until_on_screen(&mut self, selector: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.is_on_screen(selector) {
            assert!(Instant::now() < deadline, "{selector} is not on the screen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until two frames are painted; what the page has moved since it was opened.
    pub fn layout_shifts(&mut self) -> Vec<String> {
        self.evaluate(PAINTED);
        let shifts = self.evaluate("window.layoutShifts ?? []");
        serde_json::from_value(shifts).unwrap()
    }

    /// Lets pages run scripts, or not.
    pub fn allow_scripts(&mut self, is_allowed: bool) {
        let value = json!({ "value": !is_allowed });
        self.call("Emulation.setScriptExecutionDisabled", value);
    }

    /// Types a text into a field.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.wait_for(&format!("document.querySelector({selector:?})"));
        self.evaluate(&format!(
            "(() => {{ const field = document.querySelector({selector:?}); field.focus(); field.select?.(); }})()"
        ));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// The text of a page as it is shown.
    pub fn text(&mut self) -> String {
        let text = self.evaluate("document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Stores a whole page below `target/screenshots`, in all variants, up to a height.
    pub fn take_page_screenshots(&mut self, name: &str) {
        for (variant, screen) in SCREENS {
            self.show_on(screen);
            self.evaluate(PAINTED);
            let size = self.call("Page.getLayoutMetrics", json!({}));
            let height = size["cssContentSize"]["height"].as_f64().unwrap();
            let clip = json!({ "x": 0, "y": 0, "width": screen.width, "height": height.min(2_600.0), "scale": 1 });
            let request = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
            let image = self.call("Page.captureScreenshot", request);
            store_screenshot(&format!("{name}-{variant}"), &image);
        }
        self.show_on(WIDE);
    }

    /// Stores the screen below `target/screenshots`, in all variants.
    pub fn take_screenshots(&mut self, name: &str) {
        for (variant, screen) in SCREENS {
            self.show_on(screen);
            self.evaluate(PAINTED);
            let image = self.call("Page.captureScreenshot", json!({ "format": "png" }));
            store_screenshot(&format!("{name}-{variant}"), &image);
        }
        self.show_on(WIDE);
    }
}

fn store_screenshot(name: &str, image: &Value) {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(image["data"].as_str().unwrap())
        .unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
