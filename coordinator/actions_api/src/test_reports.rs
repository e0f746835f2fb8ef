//! Makes a report of the tests that an artifact holds, when it comes: within bounds for the archive, its run and its author.

use std::{collections::HashMap, time::Duration};

use domain::id::BlobHash;
use store::{FailedSince, ListedTest, TestList, TestOutcome, TestReport};
use workflow::name_pattern::NamePatterns;

use super::{
    ActionsApi, JobIdentity,
    archive::ReadLimits,
    junit::{TestCase, TestResults},
};

/// Names of artifacts that hold tests, whatever the repository says.
const NAMES: &str = "test-results*";
/// Names of files.
const ENDING: &str = ".xml";
/// What is unpacked of an archive.
const LIMITS: ReadLimits = ReadLimits { files: 500, file: 8 << 20, all: 32 << 20 };
/// Bytes of a list, of the lists of a run, and of those of all runs of an author.
const LIST: usize = 512 << 10;
const LISTS_OF_RUN: u64 = 2 << 20;
const LISTS_OF_AUTHOR: u64 = 64 << 20;
/// Archives that are read for a run, also where they are removed again.
const READ_FOR_RUN: u32 = 100;
/// How long a job waits for its report.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files whose mistakes are named.
const UNREAD: usize = 20;

/// The tests of an archive, and what of it could not be read.
struct ArchiveReader {
    results: TestResults,
    unread: Vec<String>,
}

impl ActionsApi {
    /// Reports the tests of an artifact that was kept, where its name says that it holds some. What can't be read is no
    /// error of the job.
    pub(super) async fn report_tests(&self, identity: &JobIdentity, id: u64, name: &str, sha256: &BlobHash, size: u64) {
        if !self.holds_tests(identity, name).await {
            return;
        }
        let run = identity.run.as_str();
        let read = self.reported.get(run).unwrap_or_default();
        if read >= READ_FOR_RUN {
            tracing::info!(run, artifact = name, "no test report: {READ_FOR_RUN} artifacts of the run were read");
            return;
        }
        self.reported.insert(run.to_owned(), read + 1);
        let work = self.make_report(identity, id, name, sha256, size);
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(run, artifact = name, "no test report: {error:#}"),
            Err(_) => tracing::warn!(run, artifact = name, "no test report: reading the artifact takes too long"),
        }
    }

    async fn holds_tests(&self, identity: &JobIdentity, name: &str) -> bool {
        if NamePatterns::new(&[NAMES.to_owned()]).matches(name) {
            return true;
        }
        let Some(repositories) = &self.repositories else { return false };
        let named = repositories.test_result_names(identity).await;
        !named.is_empty() && NamePatterns::new(&named).matches(name)
    }

    async fn make_report(
        &self,
        identity: &JobIdentity,
        id: u64,
        name: &str,
        sha256: &BlobHash,
        size: u64,
    ) -> anyhow::Result<()> {
        let (of_run, of_author) = self.store.test_report_bytes(&identity.run, &identity.author).await?;
        let room = LISTS_OF_RUN.saturating_sub(of_run).min(LISTS_OF_AUTHOR.saturating_sub(of_author));
        let room = usize::try_from(room).unwrap_or(LIST).min(LIST);
        let reader = ArchiveReader { results: TestResults::new(room), unread: Vec::new() };
        let reading = self.archives.read_each(sha256, size, (ENDING, LIMITS), reader, ArchiveReader::read);
        let ArchiveReader { results, unread } = reading.await?;
        let before = match results.failed {
            0 => None,
            _ => self.store.test_report_before(&identity.run, name).await?,
        };
        let number = identity.github.get("run_number").and_then(number).unwrap_or_default();
        let own = FailedSince { run: identity.run.clone(), number };
        let TestResults { failed, skipped, passed, millis, .. } = results;
        let list = list(results, before.map(|report| report.list).unwrap_or_default(), &own, unread, room)?;
        let report = TestReport {
            artifact: id,
            run: identity.run.clone(),
            job: identity.job.clone(),
            author: identity.author.clone(),
            name: name.to_owned(),
            failed,
            skipped,
            passed,
            millis,
            trusted: identity.trusted,
            list,
        };
        Ok(self.store.commit(vec![report.into()]).await?)
    }
}

impl ArchiveReader {
    fn read(&mut self, path: &str, bytes: Result<Vec<u8>, String>) {
        let read = bytes.and_then(|bytes| self.results.read(&bytes).map_err(|error| error.to_string()));
        if let Err(why) = read
            && self.unread.len() < UNREAD
        {
            self.unread.push(format!("{path}: {why}"));
        }
    }
}

/// GitHub's context has numbers as text.
fn number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// As many tests as there is room for, the failed ones first.
fn list(
    results: TestResults,
    before: TestList,
    own: &FailedSince,
    unread: Vec<String>,
    room: usize,
) -> anyhow::Result<TestList> {
    let total = results.total();
    let failed_before = before.tests.into_iter().filter(|test| test.outcome == TestOutcome::Failed);
    let since: HashMap<(String, String), FailedSince> =
        failed_before.filter_map(|test| Some(((test.suite, test.name), test.since?))).collect();
    let (skipped, passed): (Vec<_>, Vec<_>) =
        results.others.into_iter().partition(|case| case.outcome == TestOutcome::Skipped);
    let mut listed = TestList { unread, ..TestList::default() };
    let mut taken = serde_json::to_string(&listed)?.len();
    for case in results.failures.into_iter().chain(skipped).chain(passed) {
        let test = listed_test(case, &since, own);
        taken += serde_json::to_string(&test)?.len() + 1;
        if taken > room {
            break;
        }
        listed.tests.push(test);
    }
    listed.omitted = total.saturating_sub(listed.tests.len() as u64);
    Ok(listed)
}

fn listed_test(case: TestCase, since: &HashMap<(String, String), FailedSince>, own: &FailedSince) -> ListedTest {
    let TestCase { suite, name, outcome, millis, message, output } = case;
    let key = (suite, name);
    let since = (outcome == TestOutcome::Failed).then(|| since.get(&key).unwrap_or(own).clone());
    let (suite, name) = key;
    ListedTest { suite, name, outcome, millis, message, output, since }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn case(name: &str, outcome: TestOutcome) -> TestCase {
        TestCase {
            suite: "s".into(),
            name: name.into(),
            outcome,
            millis: Some(1),
            message: String::new(),
            output: "x".repeat(100),
        }
    }

    fn results(failed: &[&str], passed: usize) -> TestResults {
        let mut results = TestResults::new(LIST);
        results.failed = failed.len() as u64;
        results.passed = passed as u64;
        results.failures = failed.iter().map(|name| case(name, TestOutcome::Failed)).collect();
        results.others = (0..passed).map(|number| case(&number.to_string(), TestOutcome::Passed)).collect();
        results
    }

    fn since(run: &str, number: u64) -> FailedSince {
        FailedSince { run: run.into(), number }
    }

    #[test]
    fn a_test_failed_since_the_first_run_from_which_on_it_failed_each_time() {
        let run = |failed: &[&str], before: TestList, number: u64| {
            let own = since(&format!("run-{number}"), number);
            list(results(failed, 1), before, &own, Vec::new(), LIST).unwrap()
        };
        let numbers = |list: &TestList| {
            let of = |test: &ListedTest| test.since.as_ref().map(|since| since.number);
            list.tests.iter().map(of).collect::<Vec<_>>()
        };
        let first = run(&["a"], TestList::default(), 1);
        assert_eq!(numbers(&first), [Some(1), None]);
        let second = run(&["a", "b"], first, 2);
        assert_eq!(numbers(&second), [Some(1), Some(2), None]);
        let third = run(&["b"], second, 3);
        assert_eq!(numbers(&run(&["a", "b"], third, 4)), [Some(4), Some(2), None], "it passed in between");
    }

    #[test]
    fn a_list_has_the_failed_tests_first_and_as_many_as_there_is_room_for() {
        let listed = list(results(&["a", "b"], 1000), TestList::default(), &since("r", 1), Vec::new(), 2000).unwrap();
        let failed = listed.tests.iter().filter(|test| test.outcome == TestOutcome::Failed).count();
        assert!(failed == 2 && listed.tests[0].name == "a", "{listed:?}");
        assert_eq!(listed.omitted, 1002 - listed.tests.len() as u64);
        assert!(serde_json::to_string(&listed).unwrap().len() <= 2000 + 20);
        let none = list(results(&["a"], 3), TestList::default(), &since("r", 1), Vec::new(), 0).unwrap();
        assert_eq!((none.tests.len(), none.omitted), (0, 4));
    }
}
