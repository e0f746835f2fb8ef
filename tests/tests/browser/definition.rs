//! A workflow definition is written on its page: colours, what is wrong, publishing, running, versions.

use nostr::{JsonUtil as _, Timestamp};

use super::{SIGNED_IN, Stage};

/// A definition whose texts would act if they were markup, with a mistake in its third line unless `job` is one.
fn night(job: &str) -> String {
    format!(
        "name: \"Night <img src=x onerror=document.title='broken-in'>\"\non: workflow_dispatch # <script>document.title='broken-in'</script>\njobs: {job}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_edited_with_what_is_wrong_in_sight_published_run_and_compared() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    let path = ".github/workflows/night.yml";
    let page = format!("/repositories/{}/edit?path={path}", stage.world.address());
    // Nobody ran or defined anything yet, and nobody is signed in.
    stage.open(&page).await;
    stage.until("document.querySelector('#colours .y-key')?.textContent").await;
    stage.is_sound().await;
    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;
    stage.until("[...document.querySelectorAll('#edit-actions button')].some((button) => button.textContent === 'Publish') && 'in'").await;

    let write = async |text: &str| {
        let text = serde_json::to_string(text).unwrap();
        let write = format!(
            "(() => {{ const text = document.getElementById('text'); if (!text || text.readOnly) return null; text.value = {text};
               text.dispatchEvent(new Event('input', {{ bubbles: true }})); return 'written'; }})()"
        );
        stage.until(&write).await
    };
    write(&night("1")).await;
    assert_eq!(stage.until("document.querySelector('#preview li.error button')?.textContent").await, "3:7");
    assert_eq!(stage.until("document.querySelector('#colours .y-bad')?.textContent").await, "jobs: 1");
    stage.is_sound().await;
    stage.browser.press("Publish").await.unwrap();
    stage.until("document.querySelector('#edit-actions .problem')?.textContent").await;
    // The place of a finding leads into the text, and Tab leads out of it.
    stage.browser.click("#preview li.error button").await.unwrap();
    stage.until("document.activeElement.id === 'text' && 'there'").await;
    let text = stage.browser.client.find(fantoccini::Locator::Id("text")).await.unwrap();
    text.send_keys("\u{e004}").await.unwrap();
    stage.until("document.activeElement.id !== 'text' && 'gone'").await;
    let shown = stage.browser.client.find(fantoccini::Locator::Id("text")).await.unwrap().prop("value").await.unwrap();
    assert_eq!(shown.unwrap(), night("1"));

    write(&night("{first: {runs-on: ubuntu-latest, steps: [{run: echo one}]}}")).await;
    assert_eq!(stage.until("document.querySelector('#preview tbody td')?.textContent").await, "first");
    stage.browser.press("Publish").await.unwrap();
    let first = stage.until("[...document.querySelectorAll('main tr')].find((row) => row.querySelector('.success'))?.querySelector('code.hex').title").await;
    stage.is_sound().await;

    stage.browser.press("Run it").await.unwrap();
    stage.until("document.querySelector('dialog[open]') && 'open'").await;
    stage.is_sound().await;
    stage.browser.press("Start run").await.unwrap();
    stage
        .until("location.pathname.startsWith('/runs/') && document.querySelector('#state.success')?.textContent")
        .await;
    assert_eq!(stage.until("document.querySelector('.definition a[href*=\"/edit?\"]')?.title").await, first);
    stage.is_sound().await;

    stage.browser.click(".definition a[href*=\"/edit?\"]").await.unwrap();
    write(&night("{second: {runs-on: ubuntu-latest, steps: [{run: echo two}]}}")).await;
    stage.browser.press("Publish").await.unwrap();
    stage.browser.click("a[href*=\"&from=\"]").await.unwrap();
    let added = stage.until("document.querySelector('.row.added .text')?.textContent").await;
    assert!(added.starts_with("jobs: {second:"), "{added}");
    let removed = stage.until("document.querySelector('.row.removed .text')?.textContent").await;
    assert!(removed.starts_with("jobs: {first:"), "{removed}");
    stage.is_sound().await;
    // It stands on the page of the repository, as a workflow that can be run.
    stage.open(page.split("/edit").next().unwrap()).await;
    let card = "[...document.querySelectorAll('.workflow')].find((one) => one.querySelector('a.tag'))?.innerText";
    let card = stage.until(card).await;
    assert!(card.contains("definition") && card.contains("#1"), "{card}");
    stage.until("[...document.querySelectorAll('.workflow')].find((one) => one.querySelector('a.tag'))?.querySelector('button')?.textContent").await;
    stage.is_sound().await;

    // Another client dated its version ahead: what is published next is dated later still, and counts.
    let at = Timestamp::from(Timestamp::now().as_secs() + 30);
    let text = night("{ahead: {runs-on: ubuntu-latest, steps: [{run: echo ahead}]}}");
    let ahead = stage.world.definition(&stage.world.owner, path, Some(&text), at).unwrap();
    let handed = reqwest::Client::new().post(format!("{}/api/definitions", stage.dev.http));
    let handed = handed.body(format!("{{\"event\": {}}}", ahead.as_json())).send().await.unwrap();
    assert_eq!(handed.status(), 202);
    stage.open(&page).await;
    write(&night("{third: {runs-on: ubuntu-latest, steps: [{run: echo three}]}}")).await;
    stage.browser.press("Publish").await.unwrap();
    let counts = "[...document.querySelectorAll('main tr')].find((row) => row.querySelector('.success'))?.textContent";
    stage.until(&format!("!{counts}?.includes('{}') && {counts}", ahead.id.to_hex())).await;

    // What is withdrawn runs no more; the versions stay.
    stage.open(&page).await;
    stage.browser.press("Withdraw").await.unwrap();
    stage
        .until(
            "[...document.querySelectorAll('main td')].some((cell) => cell.textContent === 'withdrawn') && 'withdrawn'",
        )
        .await;
    stage.until("[...document.querySelectorAll('main tr')].length >= 4 && 'kept'").await;
    stage.is_sound().await;
    signer.abort();
}
