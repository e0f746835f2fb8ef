//! The list of runs: searched, left and come back to, on a narrow screen, and when nobody keeps it up to date.

use std::time::Duration;

use nix::sys::signal::Signal;
use nostr::{EventBuilder, Kind};
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
        let fill = format!("(document.querySelector('form.search').q.value = 'branch:b{turn}') && 'filled'");
        stage.until(&fill).await;
        stage.browser.press("Search").await.unwrap();
        let loaded = format!(
            "(() => {{
               const [page] = performance.getEntriesByType('navigation');
               const here = new URLSearchParams(location.search).get('q') === 'branch:b{turn}';
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
    assert_eq!(stage.until("String(document.querySelectorAll('#runs li').length)").await, "0");
    stage.until("dispatchEvent(new Event('pageshow')) && 'back'").await;
    stage.until("document.querySelector('#runs .failure')?.textContent").await;
    let failed = stage.until("document.querySelector('#runs .what-failed')?.textContent").await;
    assert!(failed.starts_with("Build <script>") && failed.ends_with(" · Decide"), "{failed}");
    stage.is_sound().await;
    stage.open("/").await;
    assert_eq!(stage.until("document.querySelector('#runs .what-failed')?.textContent").await, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_screen_shows_no_headings_and_what_a_filter_means_wrongly_is_said_above_the_list() {
    let stage = Stage::start().await;
    let narrow = json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true});
    stage.browser.devtools("Emulation.setDeviceMetricsOverride", narrow).await.unwrap();
    stage.open("/pool").await;
    let heading = "String(Math.round(document.querySelector('table.list thead').getBoundingClientRect().width))";
    assert_eq!(stage.until(heading).await, "1");
    stage.is_sound().await;
    stage.open("/?author=somebody").await;
    let problem = stage.until("document.querySelector('main .problem')?.textContent").await;
    assert!(problem.contains("`somebody` is no key: write an npub"), "{problem}");
    stage.until("document.querySelectorAll('#runs li').length === 0 && 'none'").await;
}

/// Most bytes of the first page, with all that it loads.
const FIRST_LOAD: f64 = 60.0 * 1024.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_known_by_its_message_its_branch_and_its_person_and_is_found_by_them() {
    let stage = Stage::start().await;
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    let profile = EventBuilder::new(Kind::Metadata, r#"{"name":"Ann <b>"}"#);
    stage.world.listener.publish(&profile.sign_with_keys(&stage.world.owner).unwrap()).await.unwrap();
    stage.open("/").await;
    let row = stage.until("document.querySelector('#runs li')?.innerText").await;
    for part in ["#1", "first", "my-repo", "main", "npub1", "just now"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(row.trim_end().ends_with('s'), "it says how long it took, in ms or s: {row}");
    let drawn = "document.querySelector('#runs li .avatar')?.naturalWidth > 0 && 'drawn'";
    assert_eq!(stage.until(drawn).await, "drawn");
    let loaded = "(() => {
        const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        return all.length > 8 && String(all.reduce((sum, one) => sum + one.encodedBodySize, 0)); })()";
    let loaded: f64 = stage.until(loaded).await.parse().unwrap();
    assert!(loaded < FIRST_LOAD, "{loaded} bytes");
    for (search, count) in
        [("first", 1), ("FIRS my-re", 1), ("repo:my-repo status:failure", 1), ("second", 0), ("repo:my", 0)]
    {
        let fill = format!("(document.getElementById('search').value = '{search}') && 'filled'");
        stage.until(&fill).await;
        stage.browser.press("Search").await.unwrap();
        let shown = format!(
            "new URLSearchParams(location.search).get('q') === '{search}' && document.getElementById('search')?.value === '{search}'
             && document.querySelector('#runs[data-live]') && String(document.querySelectorAll('#runs li').length)"
        );
        assert_eq!(stage.until(&shown).await, count.to_string(), "{search}");
    }
    stage.is_sound().await;
    // The coordinator has asked its relays for the name of the person meanwhile.
    let mut name = String::new();
    for _ in 0..50 {
        stage.open("/").await;
        name = stage.until("document.querySelector('#runs li .person')?.textContent").await;
        if name == "Ann <b>" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(name, "Ann <b>");
    // The keyboard leads to the search, and what is typed is completed from what the runs have.
    stage.open("/").await;
    stage
        .until("dispatchEvent(new KeyboardEvent('keydown', { key: '/', bubbles: true, cancelable: true })) || 'taken'")
        .await;
    stage.until("document.activeElement.id === 'search' && 'there'").await;
    let offers = "(() => { const field = document.getElementById('search'); field.value = 'status:failure bra';
        field.dispatchEvent(new Event('input')); return [...document.getElementById('search-terms').options].map((one) => one.value).join(); })()";
    assert_eq!(stage.until(offers).await, "status:failure branch:main");
}

/// Keys as WebDriver has them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
/// Presses of Tab that lead to whatever a page has first.
const PRESSES: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_alone_leads_from_the_list_to_the_failing_line() {
    let stage = Stage::start().await;
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    stage.open("/").await;
    stage.until("document.querySelector('#runs li a') && 'listed'").await;
    for link in ["#runs li a", ".failed a[href*='/log?']"] {
        let there = format!("return document.activeElement.matches(\"{link}\")");
        let mut presses = 0;
        while stage.browser.client.execute(&there, Vec::new()).await.unwrap() != json!(true) {
            presses += 1;
            assert!(presses < PRESSES, "{link}");
            stage.browser.client.active_element().await.unwrap().send_keys(TAB).await.unwrap();
        }
        stage.browser.client.active_element().await.unwrap().send_keys(ENTER).await.unwrap();
        stage.until("document.querySelector('.failed a, #log .row.error, #log .row.here') && 'there'").await;
    }
    let seen = "(() => { const sight = document.getElementById('log').getBoundingClientRect(); const line = document.querySelector('#log .row.here')?.getBoundingClientRect();
        return line && line.top >= sight.top && line.bottom <= sight.bottom && document.querySelector('#log .row.here .text').textContent; })()";
    assert_eq!(stage.until(seen).await, "<b>it does not pass</b>");
    stage.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_within_three_seconds_that_the_coordinator_stopped_and_takes_it_back() {
    let stage = Stage::start().await;
    stage.open("/").await;
    stage.until("document.querySelector('#runs[data-live]') && 'live'").await;
    // The stream is there once a run appears without a reload.
    stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.until("document.querySelector('#runs li') && 'streams'").await;
    stage
        .until(
            "(() => { window.stopped = Date.now(); const place = document.getElementById('stale');
             new MutationObserver(() => { if (place.textContent) window.said ??= Date.now(); }).observe(place, { childList: true });
             return 'watched'; })()",
        )
        .await;
    stage.dev.process.signal(Signal::SIGSTOP).unwrap();
    let took: f64 = stage.until("window.said && String(window.said - window.stopped)").await.parse().unwrap();
    assert!(took <= 3000.0, "said after {took} ms");
    assert_eq!(stage.browser.audit().await.unwrap(), Vec::<String>::new());
    stage.dev.process.signal(Signal::SIGCONT).unwrap();
    stage.until("!document.getElementById('stale').textContent && 'up to date'").await;
}
