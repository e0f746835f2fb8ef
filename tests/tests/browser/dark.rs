//! Every page is sound in dark colours as well, signed in, and the settings in both.

use std::time::Duration;

use serde_json::json;

use super::{PATH, SIGNED_IN, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_sound_in_dark_colours_and_the_settings_in_both() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, Duration::from_secs(180)).await.unwrap();
    stage.open("/").await;
    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;
    let (repository, id) = (format!("/repositories/{}", stage.world.address()), job.id.to_hex());
    let settings = format!("{repository}/settings");
    stage.open(&settings).await;
    stage.until("document.querySelector('main form, main button')?.tagName").await;
    stage.is_sound().await;
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    stage.browser.devtools("Emulation.setEmulatedMedia", dark).await.unwrap();
    let pages = [
        "/".to_owned(),
        format!("/runs/{id}"),
        format!("/runs/{id}/log?job=build"),
        "/pool".to_owned(),
        "/repositories".to_owned(),
        repository.clone(),
        format!("{repository}/edit?path={PATH}"),
        settings,
    ];
    for page in pages {
        stage.open(&page).await;
        stage.until("document.readyState === 'complete' && getComputedStyle(document.body).colorScheme").await;
        stage.is_sound().await;
    }
    // A dialog.
    stage.open("/").await;
    stage.until(SIGNED_IN).await;
    stage.browser.press("Run workflow").await.unwrap();
    stage.until("document.querySelector('dialog[open]') && 'open'").await;
    stage.is_sound().await;
    signer.abort();
}
