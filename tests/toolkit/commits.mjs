// Reads commits and comparisons through GitHub's API, as release and changelog actions do. Lines that count begin with a mark.
import * as core from '@actions/core';
import * as github from '@actions/github';

const say = (...words) => console.log('>', ...words);
const first = commit => commit.commit.message.split('\n')[0];
async function run() {
  const octokit = github.getOctokit(core.getInput('token', {required: true}));
  const {repo, sha, runId} = github.context;
  const {data: own} = await octokit.rest.repos.get(repo);
  say('repository', own.full_name === `${repo.owner}/${repo.repo}`, own.default_branch);

  const pages = [];
  for await (const {data} of octokit.paginate.iterator(octokit.rest.repos.listCommits, {...repo, per_page: 2})) {
    pages.push(data.map(first).join('+'));
  }
  say('commits', pages.join(' | '));
  // How programs count the commits of a branch without reading them.
  const one = await octokit.rest.repos.listCommits({...repo, per_page: 1});
  say('counted', one.headers.link.match(/[?&]page=(\d+)[^>]*>; rel="last"/)[1]);
  const compared = await octokit.rest.repos.compareCommitsWithBasehead({...repo, basehead: `v1.0...${sha}`});
  const {status, ahead_by, total_commits, commits, files} = compared.data;
  say('compared', status, ahead_by, total_commits, commits.map(first).join('+'));
  say('files', files.map(file => `${file.filename} ${file.status} ${file.patch.split('\n').pop()}`).join(', '));
  const long = octokit.rest.repos.compareCommitsWithBasehead;
  const parts = await octokit.paginate(long, {...repo, basehead: `v1.0...${sha}`, per_page: 2}, part => part.data.commits.map(first));
  say('compared by pages', parts.join('+'));
  const diff = await octokit.rest.repos.compareCommits({...repo, base: 'v1.0', head: sha, mediaType: {format: 'diff'}});
  say('as a diff', diff.data.startsWith('diff --git a/'), diff.data.includes('+three'));

  const {data: tags} = await octokit.rest.repos.listTags(repo);
  say('tags', tags.map(tag => tag.name).join());
  const {data: ref} = await octokit.rest.git.getRef({...repo, ref: 'tags/v1.0'});
  const {data: tag} = await octokit.rest.git.getTag({...repo, tag_sha: ref.object.sha});
  const {data: tagged} = await octokit.rest.git.getCommit({...repo, commit_sha: tag.object.sha});
  say('tag', ref.object.type, tag.tag, tag.message.trim(), tagged.message, tags[0].commit.sha === tagged.sha);
  const {data: tree} = await octokit.rest.git.getTree({...repo, tree_sha: tagged.tree.sha, recursive: '1'});
  say('tree', tree.tree.map(entry => `${entry.path}:${entry.type}`).join(), tree.truncated);
  const raw = await octokit.rest.repos.getContent({...repo, path: 'notes/a.txt', ref: sha, mediaType: {format: 'raw'}});
  const {data: file} = await octokit.rest.repos.getContent({...repo, path: 'notes/a.txt'});
  say('content', JSON.stringify(raw.data), raw.data === Buffer.from(file.content, 'base64').toString());
  const {data: id} = await octokit.rest.repos.getCommit({...repo, ref: 'main', mediaType: {format: 'sha'}});
  say('id of main', id === sha);

  const jobs = await octokit.paginate(octokit.rest.actions.listJobsForWorkflowRun, {...repo, run_id: runId, per_page: 1});
  say('jobs', jobs.length, jobs.every(job => Number.isSafeInteger(job.id)), jobs.find(job => job.name === github.context.job).status);
  const missing = await octokit.rest.git.getRef({...repo, ref: 'tags/none'}).catch(error => error);
  say('missing', missing.status, missing.message.split(' - ')[0]);
  const issue = await octokit.rest.issues.createComment({...repo, issue_number: 1, body: 'x'}).catch(error => error);
  say('not here', issue.status, issue.message.includes('env: {GITHUB_API_URL: https://api.github.com}'));
  const query = await octokit.graphql('{ viewer { login } }').catch(error => error);
  say('nor', query.status);
  const {data: check} = await octokit.rest.checks.create({...repo, name: 'lint', head_sha: sha, status: 'in_progress'});
  const annotation = {path: 'notes/a.txt', start_line: 2, end_line: 2, annotation_level: 'warning', message: 'found here'};
  const output = {title: '1 found', summary: '**one** problem', annotations: [annotation]};
  const ended = {...repo, check_run_id: check.id, conclusion: 'failure', output};
  const {data: changed} = await octokit.rest.checks.update(ended);
  say('check', check.status, changed.status, changed.conclusion, changed.output.annotations_count);
  core.setOutput('commits', total_commits);
}
run().catch(error => core.setFailed(error));
