// Uses caches and artifacts as actions do, and says what came of it in lines that begin with a mark.
import * as cache from '@actions/cache';
import artifact from '@actions/artifact';
import * as fs from 'node:fs';
import * as path from 'node:path';
const say = (...words) => console.log('>', ...words);
const file = (name, text) => { fs.mkdirSync(path.dirname(name), {recursive: true}); fs.writeFileSync(name, text); };
const attempt = async (name, f) => { try { return await f(); } catch (e) { say(name, 'failed:', e.message); } };
(async () => {
console.log(process.env.ACTIONS_RESULTS_URL, process.env.GITHUB_SERVER_URL);
file('kept/a.txt', 'kept ' + 'x'.repeat(100000));
say('first restore', await attempt('restore', () => cache.restoreCache(['kept'], 'deps-1', ['deps-'])));
say('saved', (await attempt('save', () => cache.saveCache(['kept'], 'deps-1'))) > 0);
fs.rmSync('kept', {recursive: true});
say('restored', await attempt('restore', () => cache.restoreCache(['kept'], 'deps-2', ['deps-'])), fs.existsSync('kept/a.txt') && fs.readFileSync('kept/a.txt', 'utf8').length);
say('again', await attempt('save', () => cache.saveCache(['kept'], 'deps-1')));
file('out/report.txt', 'report');
file('out/deep/big.bin', Buffer.alloc(20 << 20, 7));
const made = await attempt('upload', () => artifact.uploadArtifact('report', ['out/report.txt', 'out/deep/big.bin'], 'out', {retentionDays: 1}));
say('uploaded', made?.size > 0, !!made?.id, made?.digest?.length);
const {artifacts} = await attempt('list', () => artifact.listArtifacts());
say('listed', artifacts.map(a => a.name).join());
const found = await attempt('get', () => artifact.getArtifact('report'));
const got = await attempt('download', () => artifact.downloadArtifact(found.artifact.id, {path: 'back', expectedHash: found.artifact.digest}));
say('downloaded', fs.readFileSync('back/report.txt', 'utf8'), fs.statSync('back/deep/big.bin').size, got?.digestMismatch);
await attempt('duplicate', () => artifact.uploadArtifact('report', ['out/report.txt'], 'out'));
const gone = await attempt('delete', () => artifact.deleteArtifact('report'));
say('deleted', gone?.id === found.artifact.id);
})().catch(e => { console.error(e); process.exit(1); });
