//! A few kills of each role; `make failures` does many.

use longshore_tests::kills::{self, Kill, Role};

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_of_a_role_at_any_moment_loses_a_request_or_publishes_anything_twice() {
    // The first seeds from there on that meet all three roles.
    let all = |first: u64| {
        [Role::Relay, Role::Coordinator, Role::Worker]
            .iter()
            .all(|role| (first..first + 3).any(|seed| Kill::of(seed).role == *role))
    };
    let first = (0..1000).find(|first| all(*first)).unwrap();
    let mut said = Vec::new();
    let (passed, failed) = kills::run(3, first, |line| said.push(line.to_owned())).await.unwrap();
    assert_eq!((passed, failed), (3, 0), "{}", said.join("\n"));
}
