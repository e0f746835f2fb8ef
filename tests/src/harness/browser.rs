//! A real Chromium without a window, driven through chromedriver. It keeps what it complained of and where it went.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fantoccini::{Client, ClientBuilder, Locator, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, PublicKey, Tag, Timestamp, nips::nip44};
use serde_json::{Value, json};
use url::Url;

use super::process::{Process, free_port};

/// How long the driver and the browser may take to be there on a busy machine.
const START: Duration = Duration::from_secs(120);
/// How long a page may take to come to what is waited for.
const LIMIT: Duration = Duration::from_secs(180);

/// Checks pages for people who see, hear or move differently (axe-core, MPL-2.0).
const AXE: &str = include_str!("../../vendor/axe/axe.min.js");

/// Stands for a signer's extension (NIP-07): what is asked of it waits until the test, which has the key, answers.
const SIGNER: &str = r#"
(() => {
  const asked = [];
  const waiting = new Map();
  let count = 0;
  const ask = (what, ...values) => new Promise((done, fail) => {
    count += 1;
    waiting.set(count, { done, fail });
    asked.push({ id: count, what, values });
  });
  window.nostr = {
    getPublicKey: () => ask("key"),
    signEvent: (event) => ask("sign", event),
    nip44: { encrypt: (to, text) => ask("encrypt", to, text) },
  };
  window.signerAsked = () => asked.splice(0);
  window.signerAnswers = (id, value) => waiting.get(id).done(value);
})();
"#;

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    /// The window.
    pub client: Client,
    _driver: Process,
    _folder: tempfile::TempDir,
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (hyper::Method, Option<String>) {
        (hyper::Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// Starts driver and browser.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let program = found("chromedriver")?;
        let driver = Process::start_program(
            &program,
            &[&format!("--port={port}")],
            &[],
            &folder.path().join("chromedriver.log"),
        )?;
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let mut arguments = vec![
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1280,900",
            &profile,
        ];
        // The browser's own sandbox does not start for root.
        if nix::unistd::geteuid().is_root() {
            arguments.push("--no-sandbox");
        }
        let wanted = json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let Value::Object(wanted) = wanted else { bail!("capabilities are an object") };
        let until = Instant::now() + START;
        loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder.capabilities(wanted.clone()).connect(&format!("http://127.0.0.1:{port}")).await {
                Ok(client) => return Ok(Self { client, _driver: driver, _folder: folder }),
                Err(error) if Instant::now() > until => {
                    return Err(error).with_context(|| format!("no browser within {START:?}: {}", driver.text()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn vendor(&self, path: &'static str, body: Value) -> Result<Value> {
        Ok(self.client.issue_cmd(Vendor { path, body }).await?)
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.vendor("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Every page from now on has a signer with this key; answered while the task runs.
    pub async fn sign_with(&self, keys: Keys) -> Result<tokio::task::JoinHandle<()>> {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": SIGNER})).await?;
        let client = self.client.clone();
        Ok(tokio::spawn(async move {
            loop {
                let asked = client.execute("return window.signerAsked ? window.signerAsked() : []", Vec::new()).await;
                for one in asked.ok().as_ref().and_then(Value::as_array).into_iter().flatten() {
                    let Ok(answer) = answer(&keys, one) else { continue };
                    // The page may be gone meanwhile: then nobody waits for the answer.
                    let _ = client
                        .execute("window.signerAnswers(arguments[0], arguments[1])", vec![one["id"].clone(), answer])
                        .await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }

    /// Waits until a script's expression is true, and gives its value.
    pub async fn until(&self, expression: &str) -> Result<Value> {
        let until = Instant::now() + LIMIT;
        loop {
            // A page that is being replaced can't be asked.
            let value = self.client.execute(&format!("return ({expression})"), Vec::new()).await;
            match value {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) => return Ok(value),
                _ if Instant::now() > until => {
                    let page = self.client.execute("return document.body.innerText", Vec::new()).await?;
                    bail!(
                        "not within {LIMIT:?}: {expression} ({value:?}) on {}\n{page}",
                        self.client.current_url().await?
                    );
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Clicks the first element that a selector finds, once it is there.
    pub async fn click(&self, selector: &str) -> Result<()> {
        self.click_on(Locator::Css(selector)).await
    }

    /// Clicks the button with a text.
    pub async fn press(&self, text: &str) -> Result<()> {
        let path = format!("//button[normalize-space()='{text}' and not(@hidden)]");
        self.click_on(Locator::XPath(&path)).await
    }

    /// Signs in with the signer that the page has.
    pub async fn sign_in(&self) -> Result<()> {
        self.press("Sign in").await?;
        self.press("Browser extension").await
    }

    /// A live page may put another element in the place of one that was just found: then that one is clicked.
    async fn click_on(&self, what: Locator<'_>) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let clicked = match self.client.find(what).await {
                Ok(element) => element.click().await,
                Err(error) => Err(error),
            };
            match clicked {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error).with_context(|| format!("no {what:?}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What stands in the console that should not, since it was asked last.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.vendor("se/log", json!({"type": "browser"})).await?;
        let bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        Ok(entries.as_array().into_iter().flatten().filter(bad).map(text).collect())
    }

    /// Addresses it asked for since it was asked last.
    pub async fn requests(&self) -> Result<Vec<String>> {
        let entries = self.vendor("se/log", json!({"type": "performance"})).await?;
        let mut found = Vec::new();
        for entry in entries.as_array().into_iter().flatten() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let message = &message["message"];
            if message["method"] == "Network.requestWillBeSent"
                && let Some(url) = message["params"]["request"]["url"].as_str()
                // The browser's own first page is within it: nobody is spoken to.
                && !url.starts_with("chrome://")
            {
                found.push(url.to_owned());
            }
        }
        Ok(found)
    }

    /// Serious findings about the page as it stands.
    pub async fn audit(&self) -> Result<Vec<String>> {
        self.client.execute(AXE, Vec::new()).await?;
        let script = "const done = arguments[arguments.length - 1];
            axe.run({ resultTypes: ['violations'] }).then((found) => done(found.violations), (error) => done([{ impact: 'critical', id: String(error), nodes: [] }]));";
        let found = self.client.execute_async(script, Vec::new()).await?;
        let serious = |finding: &&Value| matches!(finding["impact"].as_str(), Some("serious" | "critical"));
        let text = |finding: &Value| {
            let places: Vec<_> =
                finding["nodes"].as_array().into_iter().flatten().map(|node| node["html"].to_string()).collect();
            format!("{} ({}): {}", finding["id"], finding["help"], places.join(" | "))
        };
        Ok(found.as_array().into_iter().flatten().filter(serious).map(text).collect())
    }
}

/// What a signer with this key answers.
fn answer(keys: &Keys, asked: &Value) -> Result<Value> {
    let values = &asked["values"];
    Ok(match asked["what"].as_str() {
        Some("key") => json!(keys.public_key().to_hex()),
        Some("encrypt") => {
            let to = PublicKey::from_hex(values[0].as_str().unwrap_or_default())?;
            json!(nip44::encrypt(keys.secret_key(), &to, values[1].as_str().unwrap_or_default(), nip44::Version::V2)?)
        }
        _ => serde_json::from_str(&sign(keys, &values[0])?.as_json())?,
    })
}

/// The event that a page wants signed.
pub(super) fn sign(keys: &Keys, wanted: &Value) -> Result<Event> {
    let kind = Kind::from(u16::try_from(wanted["kind"].as_u64().context("no kind")?)?);
    let tags: Vec<Vec<String>> = serde_json::from_value(wanted["tags"].clone())?;
    let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>()?;
    let at = Timestamp::from(wanted["created_at"].as_u64().context("no time")?);
    let builder = EventBuilder::new(kind, wanted["content"].as_str().unwrap_or_default());
    Ok(builder.tags(tags).custom_created_at(at).allow_self_tagging().sign_with_keys(keys)?)
}

fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([Path::new("/usr/bin").to_owned()]);
    let found = places.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()));
    found.with_context(|| {
        format!("{program} is not installed: `./deploy/setup.sh --tests` installs Chromium and its driver")
    })
}
