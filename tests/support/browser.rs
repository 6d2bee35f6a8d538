//! A real browser without a screen: Chromium, driven through `chromedriver` by plain HTTP.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "no test uses all of it; a harness fails loudly"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually};

/// Set to `required` where the browser has to be there: then a test that finds none fails.
const WANTED: &str = "SWEEPD_TEST_BROWSER";

/// A browser with one page. Dropping it ends it.
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one with a window of this size; `None`, loudly, where there is none to start.
    pub fn start(width: u32, height: u32) -> Option<Self> {
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = driver else {
            let required = std::env::var(WANTED).is_ok_and(|word| word == "required");
            assert!(!required, "there is no chromedriver: install chromium and chromium-driver, or unset {WANTED}");
            eprintln!("SKIPPED: there is no chromedriver, so the page is not looked at in a browser");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| line.ok()?.strip_suffix('.')?.split_once("on port ")?.1.parse::<u16>().ok());
        let profile = tempfile::Builder::new().prefix("sweepd-browser-").tempdir().unwrap();
        let mut browser = Self {
            driver,
            address: format!("127.0.0.1:{}", port.expect("chromedriver says its port")),
            session: String::new(),
            profile,
        };
        let size = format!("--window-size={width},{height}");
        let folder = format!("--user-data-dir={}", browser.profile.path().to_str().unwrap());
        // Root, as in a container, has no sandbox; the rest keeps it from calling home.
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--lang=en",
            &size,
            &folder,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let opened = browser.call("POST", "/session", &wanted);
        opened["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        browser.devtools("Emulation.setTimezoneOverride", &json!({ "timezoneId": "Europe/Berlin" }));
        Some(browser)
    }

    /// One request to the driver; returns the `value` of its answer.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len(),
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().unwrap_or_else(|_| panic!("{name}: {value}"));
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text).unwrap();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        assert!(answer["value"]["error"].is_null(), "{method} {path} {body}: {}", answer["value"]);
        answer["value"].clone()
    }

    fn of_session(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{path}", self.session), body)
    }

    /// A command of the developer tools.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.of_session("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&self, url: &str) {
        self.of_session("url", &json!({ "url": url }));
    }

    /// What an expression comes to on the page.
    pub fn eval(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"))
    }

    /// What a function's body returns on the page.
    pub fn run(&self, script: &str) -> Value {
        self.of_session("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text that is to be seen of the first element of this selector; empty without one.
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits until an expression is true on the page.
    pub async fn until(&self, what: &str, expression: &str) {
        eventually(what, || (self.eval(expression) == true).then_some(())).await;
    }

    /// Presses keys where the focus is; `\u{e004}` is the tabulator, `\u{e007}` the enter key.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        self.of_session("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }));
    }

    /// What the page has complained of in the console: errors, refused resources, breaches of its policy.
    pub fn complaints(&self) -> Vec<Value> {
        let log = self.of_session("se/log", &json!({ "type": "browser" }));
        log.as_array()
            .unwrap()
            .iter()
            .filter(|line| line["level"] != "INFO" && line["level"] != "DEBUG")
            .cloned()
            .collect()
    }

    /// The page as that of a screen so wide and high, light or dark.
    pub fn screen(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// A picture of what the window shows.
    pub fn picture(&self) -> Vec<u8> {
        let answer = self.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        STANDARD.decode(answer.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        // It may have ended by itself; either way it is gone afterwards.
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
