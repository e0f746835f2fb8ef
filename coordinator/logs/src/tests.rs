#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use proto::worker::LogRecord;
use sha2::{Digest, Sha256};

use super::*;

fn record(text: &str) -> LogRecord {
    LogRecord { time_ms: 1, step: 0, stream: 1, text: text.as_bytes().to_vec().into(), mark: None }
}

fn logs() -> (tempfile::TempDir, Logs) {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new(folder.path());
    (folder, logs)
}

#[tokio::test]
async fn an_offset_that_repeats_is_skipped_and_a_gap_is_refused() {
    let (_folder, logs) = logs();
    let (run, build) = (RunId::from("run"), JobKey::from("build"));
    let append = |offset, data: &'static [u8]| logs.append(&run, &build, 1, offset, Bytes::from_static(data));
    assert_eq!(logs.open(&"run".into(), &"build".into(), 1).await.unwrap(), 0);
    assert_eq!(append(0, b"abcd").await.unwrap(), 4);
    assert_eq!(append(0, b"abcd").await.unwrap(), 4);
    assert_eq!(append(2, b"cdef").await.unwrap(), 6);
    assert!(append(7, b"x").await.unwrap_err().to_string().contains("only 6 bytes"));
    assert_eq!(logs.sync(&"run".into(), &"build".into(), 1).await.unwrap(), 6);
    let hash = Sha256::digest(b"abcdef");
    assert!(logs.close(&"run".into(), &"build".into(), 1, 7, &hash).await.is_err());
    assert!(logs.close(&"run".into(), &"build".into(), 1, 6, &[0; 32]).await.is_err());
    logs.close(&"run".into(), &"build".into(), 1, 6, &hash).await.unwrap();
    logs.close(&"run".into(), &"build".into(), 1, 6, &hash).await.unwrap();
}

#[tokio::test]
async fn a_restarted_coordinator_goes_on_where_the_file_ends() {
    let (folder, logs) = logs();
    logs.append(&"run".into(), &"test/2".into(), 3, 0, Bytes::from_static(b"abc")).await.unwrap();
    let again = Logs::new(folder.path());
    assert_eq!(again.open(&"run".into(), &"test/2".into(), 3).await.unwrap(), 3);
    again.append(&"run".into(), &"test/2".into(), 3, 3, Bytes::from_static(b"def")).await.unwrap();
    again.close(&"run".into(), &"test/2".into(), 3, 6, &Sha256::digest(b"abcdef")).await.unwrap();
    assert_eq!(again.attempts(&"run".into()).await.unwrap(), [("test/2".into(), 3, 6)]);
    again.remove(&"run".into()).await.unwrap();
    assert_eq!(again.attempts(&"run".into()).await.unwrap(), []);
    again.remove(&"run".into()).await.unwrap();
}

#[tokio::test]
async fn a_tail_is_woken_gives_whole_records_and_resumes_from_its_positions() {
    let (_folder, logs) = logs();
    let mut tail = logs.tail(&"run".into(), Positions::default());
    assert_eq!(tail.read().await.unwrap(), None);
    let bytes = record::encode(&[record("one\n"), record("two\n")]);
    let (head, rest) = bytes.split_at(bytes.len() - 3);

    let writer = logs.clone();
    let first = Bytes::copy_from_slice(head);
    let writing =
        tokio::spawn(async move { writer.append(&"run".into(), &"build".into(), 1, 0, first).await.unwrap() });
    let piece = loop {
        tail.wait().await;
        if let Some(piece) = tail.read().await.unwrap() {
            break piece;
        }
    };
    let written = writing.await.unwrap();
    assert_eq!(record::decode(&piece.bytes).records, [record("one\n")]);
    assert_eq!(tail.read().await.unwrap(), None);

    let mut resumed = logs.tail(&"run".into(), Positions::parse(&tail.positions().to_string()));
    assert_eq!(resumed.positions(), tail.positions());
    logs.append(&"run".into(), &"build".into(), 1, written, Bytes::copy_from_slice(rest)).await.unwrap();
    for tail in [&mut tail, &mut resumed] {
        let piece = tail.read().await.unwrap().unwrap();
        assert_eq!((piece.job.as_str(), piece.attempt), ("build", 1));
        assert_eq!(record::decode(&piece.bytes).records, [record("two\n")]);
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_costs_the_writer_nothing_and_finds_everything() {
    let (_folder, logs) = logs();
    let mut slow = logs.tail(&"run".into(), Positions::default());
    let big = record(&"x".repeat(300_000));
    let mut offset = 0;
    for _ in 0..20 {
        let bytes = Bytes::from(record::encode(std::slice::from_ref(&big)));
        offset = logs.append(&"run".into(), &"build".into(), 1, offset, bytes).await.unwrap();
    }
    let mut count = 0;
    while let Some(piece) = slow.read().await.unwrap() {
        count += record::decode(&piece.bytes).records.len();
    }
    assert_eq!(count, 20);
}

#[tokio::test]
async fn the_full_text_has_every_attempt_in_order() {
    use futures::TryStreamExt;
    let (_folder, logs) = logs();
    for (job, attempt, line) in [("b", 1, "first\n"), ("a", 2, "retried"), ("a", 1, "lost\n")] {
        let bytes = Bytes::from(record::encode(&[record(line)]));
        logs.append(&"run".into(), &job.into(), attempt, 0, bytes).await.unwrap();
    }
    let read = async |of| {
        let parts: Vec<Bytes> = logs.full_text(&"run".into(), of).try_collect().await.unwrap();
        String::from_utf8(parts.concat()).unwrap()
    };
    let text = read(None).await;
    let time = "1970-01-01T00:00:00.001Z";
    let expected =
        format!("==== a, attempt 1\n{time} lost\n==== a, attempt 2\n{time} retried\n==== b, attempt 1\n{time} first\n");
    assert_eq!(text, expected);
    assert_eq!(read(Some(("a".into(), 2))).await, format!("==== a, attempt 2\n{time} retried\n"));
}

#[tokio::test]
async fn a_job_that_prints_without_end_holds_no_later_one_up() {
    let (_folder, logs) = logs();
    let line = Bytes::from(record::encode(&[record("line\n")]));
    let mut tail = logs.tail(&"run".into(), Positions::default());
    let mut offset = logs.append(&"run".into(), &"a".into(), 1, 0, line.clone()).await.unwrap();
    assert_eq!(tail.read().await.unwrap().unwrap().job, "a");
    logs.append(&"run".into(), &"b".into(), 1, 0, line.clone()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        offset = logs.append(&"run".into(), &"a".into(), 1, offset, line.clone()).await.unwrap();
        seen.push(tail.read().await.unwrap().unwrap().job);
    }
    assert_eq!(seen, ["b", "a"]);
}

#[tokio::test]
async fn nothing_is_kept_open_for_a_run_that_ended_and_nobody_follows() {
    let (_folder, logs) = logs();
    for run in 0..10 {
        let run = run.to_string().into();
        let mut viewer = logs.tail(&run, Positions::default());
        logs.append(&run, &"build".into(), 1, 0, Bytes::from_static(b"")).await.unwrap();
        viewer.read().await.unwrap();
        logs.close(&run, &"build".into(), 1, 0, &Sha256::digest(b"")).await.unwrap();
    }
    assert_eq!((logs.open_count(), logs.followed_count()), (0, 0));
}
