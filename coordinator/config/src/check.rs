//! Says what cannot work in a configuration before anything begins.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::{Config, Environment, Policy, RepositoryConfig, Retention, Tls, VisibilityConfig, keys};

impl Config {
    /// A configuration with a value for every optional key; tells `load` which keys there are.
    pub fn complete() -> Self {
        let tls = Some(Tls { certificate: "server.pem".into(), key: "server.key".into() });
        let policy = Policy { list: Some(String::new()), ..Policy::default() };
        Self { tls, policy, ..Self::default() }
    }

    /// Checks what can be checked without a network. Returns warnings.
    pub fn check(&self) -> anyhow::Result<Vec<String>> {
        keys::read_nostr_key(&self.key_file)?;
        keys::read_store_key(&self.store_key_file)?;
        for (key, address) in [("http", &self.http), ("grpc", &self.grpc)] {
            let parsed: Result<SocketAddr, _> = address.parse();
            ensure!(parsed.is_ok(), "{key} = \"{address}\": write it as ADDRESS:PORT, e.g. 127.0.0.1:7080");
        }
        for (key, urls) in [
            ("relays.read", &self.relays.read),
            ("relays.write", &self.relays.write),
            ("relays.index", &self.relays.index),
            ("relays.lookup", &self.relays.lookup),
        ] {
            for url in urls {
                let parsed = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "ws" | "wss"));
                ensure!(parsed.is_some(), "{key}: `{url}` is no relay address: write it as wss://HOST");
            }
        }
        ensure!(
            !self.relays.read.is_empty(),
            "relays.read is empty: name at least one relay that job events come from"
        );
        ensure!(!self.relays.write.is_empty(), "relays.write is empty: name at least one relay that takes results");
        self.nip_c1.addresses()?;
        let url = &self.store.url;
        ensure!(
            url.is_empty() || url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "store.url is no address of a database: write it as postgres://USER:PASSWORD@HOST/DATABASE, or leave it \
             empty for a SQLite file in the data folder"
        );
        ensure!(
            self.keep_days.saturating_mul(24 * 3600) >= self.limits.age,
            "keep_days = {} is shorter than limits.age = {} s: a request that is forgotten could be taken in again; \
             raise keep_days or lower limits.age",
            self.keep_days,
            self.limits.age
        );
        let Retention { log_bytes, mirror_bytes, cache_bytes, artifact_bytes } = self.retention;
        for (key, bytes) in [
            ("log_bytes", log_bytes),
            ("mirror_bytes", mirror_bytes),
            ("cache_bytes", cache_bytes),
            ("artifact_bytes", artifact_bytes),
        ] {
            ensure!(bytes > 0, "retention.{key} = 0 would remove everything at once: give the bytes that it may take");
        }
        self.web.proxies()?;
        for (key, all, each) in [
            ("connections", self.limits.connections, self.limits.connections_per_address),
            ("streams", self.limits.streams, self.limits.streams_per_address),
        ] {
            ensure!(
                0 < each && each <= all,
                "limits.{key} = {all} and limits.{key}_per_address = {each}: give both, the second no more than the first"
            );
        }
        for base in &self.actions.bases {
            let parsed = url::Url::parse(base).ok();
            let known = parsed.is_some_and(|url| matches!(url.scheme(), "https" | "http" | "file"));
            ensure!(known, "actions.bases: `{base}` is no git server: write it as https://HOST");
        }
        for name in self.actions.mirrors.keys() {
            ensure!(name.split('/').count() == 2, "actions.mirrors: `{name}` is no repository: write it as owner/repo");
        }
        for environment in &self.environments {
            environment.check()?;
        }
        for (name, repository) in &self.repositories {
            repository.check(name)?;
        }
        let mut places = std::collections::HashSet::new();
        for hook in &self.webhooks {
            let parsed = url::Url::parse(&hook.url).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
            ensure!(parsed.is_some(), "webhooks: `{}` is no web address: write it as https://HOST/PATH", hook.url);
            ensure!(
                hook.secret.len() >= 16,
                "webhooks: the secret of {} is too short to sign with: `openssl rand -hex 32` makes one",
                hook.url
            );
            ensure!(places.insert(&hook.url), "webhooks: {} is named twice: list its events once", hook.url);
        }
        for identity in &self.workers {
            let is_key = hex::decode(identity).is_ok_and(|key| key.len() == 32);
            ensure!(
                is_key,
                "workers: `{identity}` is no worker identity: `longshore keygen` prints one (64 hex digits)"
            );
        }
        let mut warnings: Vec<String> =
            [&self.key_file, &self.store_key_file].into_iter().filter_map(|path| keys::too_open(path)).collect();
        if let Some(tls) = &self.tls {
            readable("tls.certificate", &tls.certificate)?;
            readable("tls.key", &tls.key)?;
            warnings.extend(keys::too_open(&tls.key));
        } else if !self.grpc.starts_with("127.0.0.1:") && !self.grpc.starts_with("[::1]:") {
            bail!(
                "grpc = \"{}\" without [tls]: jobs and their secrets would cross the network in plain text; set \
                 tls.certificate and tls.key (`longshore keygen` makes both) or listen on 127.0.0.1",
                self.grpc
            );
        }
        warnings.extend(self.policy.check()?);
        self.triggers.check()?;
        Ok(warnings)
    }
}

impl Environment {
    fn check(&self) -> anyhow::Result<()> {
        let named = &self.name;
        ensure!(!named.is_empty(), "environments: a name is empty: name one, or write `*` for all");
        let repository = &self.repository;
        let is_known = repository == "*" || repository.starts_with("30617:") || repository.starts_with("npub1");
        ensure!(
            is_known,
            "environments: `{repository}` is no repository: write 30617:<owner hex>:<d>, <npub>/<d>, or `*` for all"
        );
        for key in self.approvers.iter().flatten() {
            let parsed = nostr::PublicKey::parse(key);
            ensure!(parsed.is_ok(), "environments: the approver `{key}` of {named} is no key: give npub1… or 64 hex");
        }
        let asks_nobody = self.approvers.as_ref().is_some_and(Vec::is_empty);
        ensure!(
            !asks_nobody || self.wait_minutes > 0 || !self.branches.is_empty(),
            "environments: {named} holds nothing back: leave `approvers` out for the maintainers, name keys, or set \
             `wait_minutes` or `branches`"
        );
        Ok(())
    }
}

impl RepositoryConfig {
    fn check(&self, name: &str) -> anyhow::Result<()> {
        let is_private = self.visibility == VisibilityConfig::Readers;
        for key in &self.readers {
            let parsed = nostr::PublicKey::parse(key);
            ensure!(parsed.is_ok(), "repositories.{name}: the reader `{key}` is no key: give npub1… or 64 hex");
        }
        for key in &self.trusted {
            let parsed = nostr::PublicKey::parse(key);
            ensure!(parsed.is_ok(), "repositories.{name}.trusted: `{key}` is no key: give npub1… or 64 hex");
        }
        ensure!(
            is_private || self.readers.is_empty(),
            "repositories.{name}: its runs are public, so `readers` keeps nobody out: set `visibility = \"readers\"`"
        );
        ensure!(
            self.list.is_none(),
            "repositories.{name}.list: lists of readers are not read: name each key in `readers`, or set `maintainers`"
        );
        Ok(())
    }
}

fn readable(key: &str, path: &PathBuf) -> anyhow::Result<()> {
    fs::read(path).map(drop).with_context(|| format!("{key} {}: `longshore keygen` makes it", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Webhook;

    fn environment(c: &mut Config, repository: &str, name: &str, approvers: &[&str]) {
        c.environments.push(Environment {
            repository: repository.into(),
            name: name.into(),
            approvers: Some(approvers.iter().map(ToString::to_string).collect()),
            wait_minutes: 0,
            branches: Vec::new(),
        });
    }

    fn private(c: &mut Config, spoil: fn(&mut RepositoryConfig)) {
        let mut repository = RepositoryConfig { visibility: VisibilityConfig::Readers, ..RepositoryConfig::default() };
        spoil(&mut repository);
        c.repositories.insert("*".into(), repository);
    }

    #[test]
    fn what_cannot_work_is_said_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let made = keys::make_keys(folder.path(), &["localhost".into()]).unwrap();
        let mut good = Config {
            key_file: made.nostr,
            store_key_file: made.store,
            tls: Some(made.tls),
            workers: vec![made.worker_identity],
            ..Config::default()
        };
        good.relays.read = vec!["wss://relay.example".into()];
        good.relays.write = good.relays.read.clone();
        good.policy.pubkeys = vec!["aa".repeat(32)];
        assert_eq!(good.check().unwrap(), Vec::<String>::new());

        type Break = fn(&mut Config);
        let hook = |url: &str, secret: &str| Webhook {
            url: url.into(),
            secret: secret.into(),
            events: Vec::new(),
            allow_private: false,
        };
        good.webhooks = vec![hook("https://h.example/x", "0123456789abcdef")];
        assert!(!format!("{good:?}").contains("0123456789abcdef"), "a secret is not shown");
        let cases: [(Break, &str); 25] = [
            (|c| c.policy.repositories.push("mine".into()), "policy.repositories: `mine`"),
            (|c| c.policy.owners.push("me".into()), "policy.owners: `me`"),
            (|c| c.retention.log_bytes = 0, "give the bytes"),
            (|c| c.web.trusted_proxies.push("proxy".into()), "10.0.0.0/8"),
            (|c| c.limits.streams_per_address = c.limits.streams + 1, "no more than the first"),
            (|c| private(c, |r| r.readers.push("bob".into())), "npub1"),
            (|c| private(c, |r| r.trusted.push("watcher".into())), "repositories.*.trusted"),
            (|c| private(c, |r| r.list = Some("30000:aa:team".into())), "name each key in `readers`"),
            (
                |c| {
                    private(c, |r| {
                        r.visibility = VisibilityConfig::Public;
                        r.readers.push("aa".repeat(32));
                    });
                },
                "visibility",
            ),
            (|c| c.webhooks[0].url = "h.example".into(), "https://HOST/PATH"),
            (|c| c.webhooks[0].secret = "short".into(), "openssl rand"),
            (|c| c.webhooks.push(c.webhooks[0].clone()), "named twice"),
            (|c| environment(c, "mine", "production", &[]), "<npub>/<d>"),
            (|c| environment(c, "*", "", &[]), "name one"),
            (|c| environment(c, "*", "production", &["me"]), "npub1"),
            (|c| environment(c, "*", "production", &[]), "holds nothing back"),
            (|c| c.actions.bases.push("github.com".into()), "https://HOST"),
            (|c| drop(c.actions.mirrors.insert("tool".into(), String::new())), "owner/repo"),
            (|c| c.key_file = "/nowhere".into(), "longshore keygen"),
            (|c| c.http = "localhost".into(), "ADDRESS:PORT"),
            (|c| c.tls = None, "plain text"),
            (|c| c.relays.read.clear(), "name at least one relay"),
            (|c| c.relays.write.push("https://x".into()), "wss://HOST"),
            (|c| c.workers.push("abc".into()), "64 hex digits"),
            (|c| c.store_key_file = c.key_file.with_file_name("server.pem"), "64 hex digits"),
        ];
        for (spoil, remedy) in cases {
            let mut config = good.clone();
            spoil(&mut config);
            let error = format!("{:#}", config.check().unwrap_err());
            assert!(error.contains(remedy), "{error}");
        }
        good.policy.pubkeys.clear();
        assert!(good.check().unwrap()[0].contains("nobody may run"));
    }
}
