//! A job that waits for somebody's word, which a button of its run's page gives.

use longshore_tests::harness::{
    browser::Browser,
    client::sign_at,
    pool::Pool,
    world::{Relay, World},
};
use nostr::{Keys, Timestamp};

use super::PATH;

const WORKFLOW: &str = "\
on: push
jobs:
  deploy:
    runs-on: ubuntu-latest
    environment: production
    steps:
      - run: echo deployed
";

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_approves_with_a_button_that_nobody_else_has() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path()).unwrap();
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await.unwrap();
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_ENVIRONMENTS", "[{ repository = \"*\", name = \"production\" }]");
    let coordinator = pool.coordinator().unwrap();
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();
    let (run, _) = world.send(&world.press(pool.pubkey, PATH)).await.unwrap();
    let page = format!("{}/runs/{}", pool.http, run.id.to_hex());
    let signed_in =
        "[...document.querySelectorAll('#who button')].some((button) => button.textContent === 'Sign out') && 'in'";
    let waits = "document.querySelector('.approval[data-approvers]')?.textContent";
    let buttons = "[...document.querySelectorAll('.approval button')].map((button) => button.textContent).join()";

    for (keys, expected) in [(Keys::generate(), ""), (world.owner.clone(), "Approve,Reject")] {
        let browser = Browser::start().await.unwrap();
        let until = async |expression: &str| {
            let found = browser.until(expression).await;
            let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", coordinator.text()));
            found.as_str().unwrap_or_default().to_owned()
        };
        let signer = browser.sign_with(keys).await.unwrap();
        // The run may not be there yet.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while reqwest::get(&page).await.unwrap().status() != 200 && std::time::Instant::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        browser.client.goto(&page).await.unwrap();
        browser.sign_in().await.unwrap();
        until(signed_in).await;
        let said = until(waits).await;
        assert!(said.starts_with("Environment production: "), "{said}");
        // Its buttons come with the run's own.
        until("document.querySelector('#actions button') && 'there'").await;
        assert_eq!(until(&format!("`[${{{buttons}}}]`")).await, format!("[{expected}]"));
        if !expected.is_empty() {
            assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
            let seen = "[...document.querySelectorAll('.approval button')].every((one) => one.getBoundingClientRect().bottom < 800)";
            until(&format!("{seen} && 'without scrolling'")).await;
            until("(document.querySelector('.approval input').value = 'ship it') && 'typed'").await;
            browser.press("Approve").await.unwrap();
            until("document.querySelector('#state.success')?.textContent").await;
            let said = until("document.querySelector('.approval:not([data-approvers])')?.textContent").await;
            assert!(said.contains("approved by ") && said.ends_with(": ship it"), "{said}");
            assert_eq!(browser.complaints().await.unwrap(), Vec::<String>::new());
        }
        signer.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintainer_approves_the_run_of_a_strangers_pull_request_on_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path()).unwrap();
    let workflow = WORKFLOW.replace("on: push", "on: pull_request").replace("    environment: production\n", "");
    let world = World::new(&relay.url, &[(PATH, &workflow)]).await.unwrap();
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_TRIGGERS_REPOSITORIES", &world.address());
    let mut coordinator = pool.coordinator().unwrap();
    coordinator.line(std::time::Duration::from_secs(60), |line| line.contains("its refs are known")).unwrap();
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();
    let topic = world.repository.commit("a thing", &[("a", "1")]).unwrap();
    world.repository.publish(&world.git.folder, "fork.git").unwrap();
    let tags = [
        ["a", &world.address()],
        ["subject", "Add <b>a thing</b>"],
        ["c", &topic],
        ["clone", &world.git.clone_url("fork.git")],
    ];
    let tags = tags.map(|tag| tag.map(str::to_owned).to_vec()).to_vec();
    let at = Timestamp::from(Timestamp::now().as_secs() + 1);
    world.listener.publish(&sign_at(&Keys::generate(), 1618, tags, at).unwrap()).await.unwrap();

    let page = format!("{}/runs/1", pool.http);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while reqwest::get(&page).await.unwrap().status() != 200 && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let browser = Browser::start().await.unwrap();
    let until = async |expression: &str| {
        let found = browser.until(expression).await;
        let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", coordinator.text()));
        found.as_str().unwrap_or_default().to_owned()
    };
    let signer = browser.sign_with(world.owner.clone()).await.unwrap();
    browser.client.goto(&page).await.unwrap();
    browser.sign_in().await.unwrap();
    let said = until("document.querySelector('.approval[data-approvers]')?.textContent").await;
    assert!(said.contains("who is no maintainer") && said.contains("gets no secrets"), "{said}");
    let title = until("document.querySelector('h1 .subject')?.textContent").await;
    assert_eq!(title, "Add <b>a thing</b> (#1)");
    until("document.querySelector('.approval button')?.textContent").await;
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
    browser.press("Approve").await.unwrap();
    until("document.querySelector('#state.success')?.textContent").await;
    let said = until("document.querySelector('.approval:not([data-approvers])')?.textContent").await;
    assert!(said.starts_with("This run was approved by "), "{said}");
    assert_eq!(browser.complaints().await.unwrap(), Vec::<String>::new());
    signer.abort();
}
