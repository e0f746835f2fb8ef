//! A data folder of an earlier version, ended by kill -9 then, goes on in today's.

use std::path::Path;

use longshore_tests::harness::client::{Listener, refers_to};

use super::*;

/// Ports of the relays that the folder's events go to. The second never answered while it was written.
const RELAYS: [u16; 2] = [18881, 18883];
/// Job events of its runs: one has ended, one is running and its time is over since, one waits for a worker.
const RUNNING: &str = "513bc46c3c5082ca23cc7fc9abe55f290e85d415540b7a154093856c616cc444";
const WAITING: &str = "593f8c328af6965a0c74ae77aaa3bde9164268b947be11187f6e7e9f71113df3";
/// Events that the second relay never got, and the time of the last of them.
const UNSENT: usize = 8;
const WRITTEN: u64 = 1_796_005_251;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_schema_6_goes_on_with_its_runs_and_delivers_what_it_owed() {
    let folder = tempfile::tempdir().unwrap();
    let relays = RELAYS.map(|port| Relay::start_on(folder.path(), port).unwrap());
    let urls = relays.each_ref().map(|relay| relay.url.clone());
    let heard = Listener::connect(&urls[1..]).await.unwrap();
    let pool = Pool::create(&folder.path().join("pool"), &urls).unwrap();
    take_over(&pool.folder);
    let coordinator = pool.coordinator().unwrap();
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();

    let ended = |events: &[Event], job: &str| {
        let of = events.iter().filter(|event| event.kind.as_u16() == kind::STATUS && refers_to(event, job));
        of.map(|event| tag(event, "status")).find(|status| !matches!(status.as_str(), "queued" | "running"))
    };
    let both = |events: &[Event]| ended(events, RUNNING).is_some() && ended(events, WAITING).is_some();
    let events = heard.until(LIMIT, both).await.unwrap();
    assert_eq!(ended(&events, WAITING).unwrap(), "completed", "{}", coordinator.text());
    assert_eq!(ended(&events, RUNNING).unwrap(), "timeout", "it may not last longer than an hour");
    let owed = events.iter().filter(|event| event.created_at.as_secs() <= WRITTEN).count();
    assert_eq!(owed, UNSENT);
    for job in [RUNNING, WAITING] {
        let results = events.iter().filter(|event| event.kind.as_u16() == kind::RESULT && refers_to(event, job));
        assert_eq!(results.count(), 1);
    }
}

/// Puts the earlier version's keys and data in the place of the pool's own.
fn take_over(pool: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data-folder-schema-6");
    let data = pool.join("data");
    for key in ["nostr.key", "store.key"] {
        std::fs::copy(fixture.join(key), pool.join(key)).unwrap();
    }
    for kept in ["longshore.db", "oidc.key", "blobs", "logs", "mirrors"] {
        copy(&fixture.join(kept), &data.join(kept));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    if from.is_file() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}
