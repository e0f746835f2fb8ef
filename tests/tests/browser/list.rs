//! The list of runs: filtered again and again, left and come back to, on a narrow screen.

use std::time::Duration;

use serde_json::json;

use super::{PATH, Stage};

const LIMIT: Duration = Duration::from_secs(180);

/// More pages than a browser has connections for one host.
const PAGES: usize = 10;
/// Milliseconds that a page may take to load on a busy machine: one that waits for a connection takes longer.
const LOADING: f64 = 20_000.0;

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_left_hold_nothing_that_the_next_page_needs() {
    let stage = Stage::start().await;
    stage.open("/").await;
    for turn in 0..PAGES {
        let fill = format!("(document.querySelector('form.filter').branch.value = 'b{turn}') && 'filled'");
        stage.until(&fill).await;
        stage.browser.press("Filter").await.unwrap();
        let loaded = format!(
            "(() => {{
               const [page] = performance.getEntriesByType('navigation');
               const here = new URLSearchParams(location.search).get('branch') === 'b{turn}';
               return here && page.loadEventEnd > 0 && document.querySelector('#runs[data-live]') && String(page.duration);
             }})()"
        );
        let took: f64 = stage.until(&loaded).await.parse().unwrap();
        assert!(took < LOADING, "page {turn} took {took} ms");
    }
    stage.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_left_tells_what_happened_meanwhile_once_it_is_come_back_to() {
    let stage = Stage::start().await;
    stage.open("/").await;
    stage.until("dispatchEvent(new Event('pagehide')) && 'left'").await;
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    assert_eq!(stage.until("String(document.querySelectorAll('#runs tbody tr').length)").await, "0");
    stage.until("dispatchEvent(new Event('pageshow')) && 'back'").await;
    stage.until("document.querySelector('#runs tbody .failure')?.textContent").await;
    stage.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_screen_shows_no_headings_and_what_a_filter_means_wrongly_is_said_above_the_list() {
    let stage = Stage::start().await;
    let narrow = json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true});
    stage.browser.devtools("Emulation.setDeviceMetricsOverride", narrow).await.unwrap();
    for path in ["/", "/pool"] {
        stage.open(path).await;
        let heading = "String(Math.round(document.querySelector('table.list thead').getBoundingClientRect().width))";
        assert_eq!(stage.until(heading).await, "1", "{path}");
        stage.is_sound().await;
    }
    stage.open("/?author=somebody").await;
    let problem = stage.until("document.querySelector('main .problem')?.textContent").await;
    assert!(problem.contains("`somebody` is no key: write an npub"), "{problem}");
    stage.until("document.querySelectorAll('#runs tbody tr').length === 0 && 'none'").await;
}
