// What actions that bring a tool use besides: files, a cache of tools, and the commands of a step, before, in and after it.
import * as core from '@actions/core';
import * as exec from '@actions/exec';
import * as glob from '@actions/glob';
import * as io from '@actions/io';
import * as tools from '@actions/tool-cache';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as path from 'node:path';

const say = (...words) => console.log('>', ...words);
async function main() {
  say('inputs', core.getInput('name'), core.getBooleanInput('loud'), core.getMultilineInput('lines').join('+'));
  say('state', core.getState('begun'), core.isDebug(), core.platform.isLinux);

  await io.mkdirP('made/deep');
  fs.writeFileSync('made/deep/a.txt', 'a');
  fs.writeFileSync('made/b.txt', 'b');
  fs.writeFileSync('made/c.log', 'c');
  await io.cp('made', 'copied', {recursive: true});
  await io.mv('copied/deep', 'moved');
  await io.rmRF('copied');
  const globber = await glob.create('made/**\n!made/**/*.log', {matchDirectories: false});
  const found = (await globber.glob()).map(file => path.relative(process.env.GITHUB_WORKSPACE, file));
  say('files', found.sort().join(), fs.existsSync('copied'), fs.existsSync('moved/a.txt'));
  core.setOutput('hash', await glob.hashFiles('made/**/*.txt'));
  say('which', path.basename(await io.which('git', true)), await io.which('no-such-program'));

  // A release of a tool, from a server of its own.
  fs.mkdirSync('release/bin', {recursive: true});
  fs.writeFileSync('release/bin/hello', '#!/bin/sh\necho "hello from $1"\n', {mode: 0o755});
  await exec.exec('tar', ['-czf', 'hello.tar.gz', '-C', 'release', 'bin']);
  const server = http.createServer((_, answer) => fs.createReadStream('hello.tar.gz').pipe(answer));
  await new Promise(done => server.listen(0, '127.0.0.1', done));
  const archive = await tools.downloadTool(`http://127.0.0.1:${server.address().port}/hello.tar.gz`);
  server.close();
  const unpacked = await tools.extractTar(archive);
  const kept = await tools.cacheDir(unpacked, 'hello', '1.2.3');
  say('kept', kept === tools.find('hello', '1.x'), tools.findAllVersions('hello').join(), kept.startsWith(process.env.RUNNER_TOOL_CACHE));
  core.addPath(path.join(kept, 'bin'));
  await exec.exec('hello', ['a tool'], {listeners: {stdline: line => say('says', line)}, silent: true});

  core.setOutput('text', 'one\ntwo');
  core.setOutput('object', {list: [1, 2]});
  core.exportVariable('FROM_ACTION', 'first line\nsecond');
  const made = `made-${6 * 7}-in-the-action`;
  core.setSecret(made);
  core.info(`> the secret is ${made}`);
  core.startGroup('a group');
  core.notice('a notice of the action', {title: 'Title', file: 'made/b.txt', startLine: 3});
  core.warning('a warning of the action');
  core.endGroup();
  await core.summary.addHeading('Sizes').addTable([[{data: 'file', header: true}], ['made/b.txt']]).addRaw(made).write();
  if (process.env.ACTIONS_ID_TOKEN_REQUEST_URL) {
    const token = await core.getIDToken('audience');
    say('identity', JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).aud);
  }
  core.saveState('done', 'in main');
}
async function after() {
  say('after', core.getState('begun'), core.getState('done'), process.env.FROM_ACTION.split('\n').length);
}
async function before() {
  core.saveState('begun', 'before');
  say('before', core.getInput('name'));
}
const stages = {'before.js': before, 'after.js': after};
(stages[path.basename(process.argv[1])] ?? main)().catch(error => core.setFailed(error));
