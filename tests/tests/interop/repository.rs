//! The job's repository at the job's own address, as git and actions ask for it.

use super::{Stage, needs_engine};

const WORKFLOW: &str = "\
on: push
jobs:
  git:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: |
          echo \"> shallow $(git rev-parse --is-shallow-repository) $(git rev-list --count HEAD)\"
          git fetch -q origin '+refs/tags/*:refs/tags/*' && echo \"> tags $(git tag | tr '\\n' ' ')\"
          git fetch -q --unshallow origin && echo \"> whole $(git rev-list --count HEAD)\"
          git fetch -q origin side && echo \"> side $(git log -1 --format=%s FETCH_HEAD)\"
          git ls-remote origin | sed 's/.*refs/> listed refs/'
          git clone -q \"$GITHUB_SERVER_URL/$GITHUB_REPOSITORY\" \"$RUNNER_TEMP/clone\" && echo \"> cloned $(git -C \"$RUNNER_TEMP/clone\" log -1 --format=%s)\"
          git push -q origin HEAD:refs/heads/new 2>&1 | grep -o 'error: 403' | sed 's/^/> push /'
          git ls-remote \"$GITHUB_SERVER_URL/npub1other/repo\" 2>&1 | grep -o 'not found' | sed 's/^/> other /'
          git config --list --show-origin | grep -i -e extraheader -e credential || echo '> no credentials are kept'
";

#[tokio::test(flavor = "multi_thread")]
async fn git_in_a_job_has_what_the_maintainers_name_of_its_own_repository_and_nothing_else() {
    needs_engine!();
    let stage = Stage::with(WORKFLOW).await;
    let repository = &stage.world.repository;
    let first = repository.git(&["rev-parse", "HEAD"]).unwrap();
    repository.git(&["tag", "v0.9"]).unwrap();
    repository.git(&["checkout", "-q", "-b", "side"]).unwrap();
    let side = repository.commit("off to the side", &[("side.txt", "x")]).unwrap();
    repository.git(&["checkout", "-q", "-b", "hidden"]).unwrap();
    repository.commit("nobody named this", &[]).unwrap();
    repository.git(&["checkout", "-q", "main"]).unwrap();
    let main = repository.commit("next", &[]).unwrap();
    repository.publish(&stage.world.git.folder, "repo.git").unwrap();
    let refs = [("refs/heads/main", main.as_str()), ("refs/heads/side", &side), ("refs/tags/v0.9", &first)];
    stage.world.state(&refs).await.unwrap();
    let mut press = stage.press();
    press.commit = main.clone();
    let run = stage.run(press).await;
    let log = run.log().await;
    run.assert_normal_end("completed");
    let mut marked: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("] | > ").map(|(_, said)| said)).collect();
    let listed: Vec<&str> = marked.iter().filter_map(|said| said.strip_prefix("listed ")).collect();
    assert_eq!(listed, ["refs/heads/main", "refs/heads/side", "refs/tags/v0.9"], "{log}");
    marked.retain(|said| !said.starts_with("listed "));
    assert_eq!(
        marked,
        [
            "shallow true 1",
            "tags v0.9 ",
            "whole 2",
            "side off to the side",
            "cloned next",
            "push error: 403",
            "other not found",
            "no credentials are kept",
        ],
        "{log}"
    );
}

const API: &str = "\
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    steps: [{run: 'true'}]
  api:
    needs: first
    runs-on: ubuntu-latest
    steps:
      - env: {TOKEN: '${{ github.token }}'}
        run: |
          get() { curl -sS -H \"Authorization: token $TOKEN\" \"$GITHUB_API_URL/repos/$GITHUB_REPOSITORY$1\"; }
          get '' | jq -r '\"> repo \\(.full_name == env.GITHUB_REPOSITORY) \\(.default_branch)\"'
          get /commits | jq -r '\"> commits \\(map(.commit.message) | join(\",\"))\"'
          get '/commits?path=side.txt&sha=side' | jq -r '\"> of path \\(map(.commit.message) | join(\",\"))\"'
          get /commits/side | jq -r '\"> commit \\(.files[0].filename) \\(.files[0].status) \\(.stats.additions) \\(.parents | length)\"'
          get /compare/main...side | jq -r '\"> compare \\(.status) \\(.ahead_by) \\(.behind_by) \\(.files[0].filename) \\(.merge_base_commit.commit.message)\"'
          get '/contents/side.txt?ref=side' | jq -r '\"> file \\(.content | @base64d) \\(.size)\"'
          get /contents | jq -r '\"> folder \\(map(.name + \":\" + .type) | join(\",\"))\"'
          get /git/ref/tags/v0.9 | jq -r '\"> ref \\(.ref) \\(.object.type)\"'
          get /git/matching-refs/heads/ | jq -r '\"> refs \\(map(.ref) | join(\",\"))\"'
          get /branches | jq -r '\"> branches \\(map(.name) | join(\",\"))\"'
          get /actions/runs/$GITHUB_RUN_ID | jq -r '\"> run \\(.id | tostring == env.GITHUB_RUN_ID) \\(.status) \\(.event)\"'
          get /actions/runs/$GITHUB_RUN_ID/jobs | jq -r '\"> jobs \\(.jobs | map(.name + \":\" + .status) | join(\",\"))\"'
          get \"/commits/$HIDDEN\" | jq -r '\"> hidden \\(.message)\"'
          get /issues | jq -r '\"> issues \\(.message | contains(\"GITHUB_API_URL\"))\"'
";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_of_a_job_answers_what_its_own_repository_and_run_can() {
    needs_engine!();
    let stage = Stage::with(API).await;
    let repository = &stage.world.repository;
    let first = repository.git(&["rev-parse", "HEAD"]).unwrap();
    repository.git(&["tag", "v0.9"]).unwrap();
    repository.git(&["checkout", "-q", "-b", "side"]).unwrap();
    let side = repository.commit("off to the side", &[("side.txt", "x")]).unwrap();
    repository.git(&["checkout", "-q", "-b", "hidden"]).unwrap();
    let hidden = repository.commit("nobody named this", &[]).unwrap();
    repository.git(&["checkout", "-q", "main"]).unwrap();
    let main = repository.commit("next", &[]).unwrap();
    repository.publish(&stage.world.git.folder, "repo.git").unwrap();
    let refs = [("refs/heads/main", main.as_str()), ("refs/heads/side", &side), ("refs/tags/v0.9", &first)];
    stage.world.state(&refs).await.unwrap();
    let mut press = stage.press();
    press.commit = main;
    press.env = vec![("HIDDEN".into(), hidden)];
    let run = stage.run(press).await;
    let log = run.log().await;
    run.assert_normal_end("completed");
    let marked: Vec<&str> = log.lines().filter_map(|line| line.split_once("] | > ").map(|(_, said)| said)).collect();
    assert_eq!(
        marked,
        [
            "repo true main",
            "commits next,first",
            "of path off to the side",
            "commit side.txt added 1 1",
            "compare diverged 1 1 side.txt first",
            "file x 1",
            "folder .github:dir",
            "ref refs/tags/v0.9 commit",
            "refs refs/heads/main,refs/heads/side",
            "branches main,side",
            "run true in_progress push",
            "jobs first:completed,api:in_progress",
            "hidden Not Found",
            "issues true",
        ],
        "{log}"
    );
}
