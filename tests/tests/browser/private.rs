//! A private run: its readers have it on every page once they signed in, and nobody else learns that there is one.

use std::time::Duration;

use longshore_tests::harness::{
    browser::Browser,
    pool::Pool,
    world::{Relay, World},
};
use nostr::Keys;
use serde_json::Value;

use super::{PATH, SIGNED_IN};

const LIMIT: Duration = Duration::from_secs(180);
const WORKFLOW: &str = "\
name: Hush
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: echo \"nobody else reads this\"
";

#[tokio::test(flavor = "multi_thread")]
async fn a_private_run_is_shown_to_its_reader_and_leaves_no_trace_for_a_stranger() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path()).unwrap();
    let reader = Keys::generate();
    let key = reader.public_key().to_hex();
    let readers = format!("{{ \"*\" = {{ visibility = \"readers\", readers = [\"{key}\"] }} }}");
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await.unwrap();
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_REPOSITORIES", &readers);
    let coordinator = pool.coordinator().unwrap();
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();
    let (run, job) = world.send(&world.press(pool.pubkey, PATH)).await.unwrap();
    let ended = world.listener.end(&run, &job, LIMIT).await;
    ended.unwrap_or_else(|error| panic!("{error:#}\n{}", coordinator.text()));
    let page = format!("{}/runs/{}", pool.http, run.id.to_hex());
    let trace = "document.querySelector('main').textContent.match(/Hush|my-repo/)?.[0] || 'nothing'";

    for (keys, reads) in [(Keys::generate(), false), (reader, true)] {
        let browser = Browser::start().await.unwrap();
        let until = async |expression: &str| {
            let found = browser.until(expression).await;
            let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", coordinator.text()));
            found.as_str().unwrap_or_default().to_owned()
        };
        let open = async |path: &str| browser.client.goto(&format!("{}{path}", pool.http)).await.unwrap();
        let signer = browser.sign_with(keys).await.unwrap();
        open("/").await;
        browser.sign_in().await.unwrap();
        until(SIGNED_IN).await;
        if reads {
            until("document.querySelector('#runs li a')?.textContent.startsWith('Hush') && 'listed'").await;
            open("/repositories").await;
            until("document.querySelector('#repositories a')?.textContent.startsWith('my-repo') && 'listed'").await;
            browser.client.goto(&page).await.unwrap();
            until("document.querySelector('#state.success')?.textContent").await;
            assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
            // A link says for whom it was made: whoever follows it needs nothing else, and can make it no other.
            let link = until("document.querySelector('main a[download^=\"run-\"]')?.href").await;
            let followed = async |link: &str| reqwest::get(link).await.unwrap();
            let text = followed(&link).await.text().await.unwrap();
            assert!(text.contains("nobody else reads this"), "{link}: {text}");
            assert_eq!(followed(&link.replace("until=", "until=9")).await.status(), 401);
            assert_eq!(followed(link.split_once("&sig=").unwrap().0).await.status(), 404);
            browser.click("details.job summary").await.unwrap();
            browser.click("ol.steps a").await.unwrap();
            until("document.querySelector('#log')?.textContent.includes('nobody else reads this') && 'read'").await;
        } else {
            for path in ["/", "/repositories", "/pool"] {
                open(path).await;
                until(SIGNED_IN).await;
                assert_eq!(until(trace).await, "nothing", "{path}");
            }
            browser.client.goto(&page).await.unwrap();
            until(SIGNED_IN).await;
            assert_eq!(until("document.querySelector('main[data-refused] h1')?.textContent").await, "Page not found");
            assert_eq!(until(trace).await, "nothing");
        }
        signer.abort();
    }

    let runs: Value = reqwest::get(format!("{}/api/runs", pool.http)).await.unwrap().json().await.unwrap();
    assert_eq!(runs, serde_json::json!([]));
    let api = page.replace("/runs/", "/api/runs/");
    for path in [&page, &api, &format!("{api}/logs?format=text"), &format!("{api}/artifacts")] {
        assert_eq!(reqwest::get(path).await.unwrap().status(), 404, "{path}");
    }
}
