//! The floors of the benchmark measure what they say, on the real engine, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::HashMap, time::Duration};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, StartContainerOptions};
use longshore_tests::{
    bench::{engine::Engine, floor::Floor},
    harness::engine::available,
};

#[tokio::test]
async fn a_floor_runs_in_a_copy_of_a_running_container_and_everything_is_removed() {
    if !available("a_floor_runs_in_a_copy_of_a_running_container_and_everything_is_removed") {
        return;
    }
    let engine = Engine::connect().await.unwrap();
    // In a task of its own, so that what it made is removed however it ends.
    let ended = tokio::spawn(copy_and_measure(engine.clone())).await;
    engine.clean_up().await.unwrap();
    ended.unwrap();
    let label = format!("longshore.bench={}", std::process::id());
    let ours = HashMap::from([("label".to_owned(), vec![label])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
    assert_eq!(engine.api.list_containers(Some(options)).await.unwrap(), []);
}

async fn copy_and_measure(engine: Engine) {
    let marker = format!("sleep 600.0{}", std::process::id());
    assert!(engine.copy(&marker).await.unwrap().is_none(), "nothing runs it yet");

    let plain = engine.plain().await.unwrap();
    let arguments: Vec<&str> = marker.split(' ').collect();
    let original = engine.create(&plain, &arguments).await.unwrap();
    engine.api.start_container(&original.id, None::<StartContainerOptions>).await.unwrap();
    let copied = engine.copy(&marker).await.unwrap().expect("it runs now");
    let copy = engine.create(&copied, &["true"]).await.unwrap();
    let (of, like) = (host(&engine, &original.id).await, host(&engine, &copy.id).await);
    for key in ["Memory", "PidsLimit", "CapAdd", "CapDrop", "SecurityOpt", "LogConfig", "IpcMode"] {
        assert_eq!(of[key], like[key], "{key}");
    }
    for (mount, other) in of["Mounts"].as_array().unwrap().iter().zip(like["Mounts"].as_array().unwrap()) {
        assert_eq!(mount["Target"], other["Target"]);
        assert_ne!(mount["Source"], other["Source"], "a writable volume belongs to one container");
    }
    assert_ne!(of["NetworkMode"], like["NetworkMode"], "a network has one container");

    let mut floor = Floor::new(engine, copied);
    assert!(floor.cold().await.unwrap() > Duration::ZERO);
    assert!(floor.exec().await.unwrap() > Duration::ZERO);
}

async fn host(engine: &Engine, id: &str) -> serde_json::Value {
    let container = engine.api.inspect_container(id, None::<InspectContainerOptions>).await.unwrap();
    serde_json::to_value(container.host_config.unwrap()).unwrap()
}
