//! What the runs of one command share: the sandbox, the services that actions call, and the signals that end them.

use std::{path::Path, sync::Arc};

use actions_api::ActionsApi;
use anyhow::{Context, Result};
use blobs::Blobs;
use config::CacheAndArtifactLimits;
use domain::id::RunId;
use store::Store;
use worker::{config::Config, sandbox::Sandbox};

use super::{
    Args, PreparedRun, RunValues,
    interrupt::InterruptSignals,
    local_runner::{self, LocalRun, Superseding},
    own_repository::OwnRepository,
    report::RunReport,
    view::ViewMode,
};
use crate::label_images;

/// Where runs take place.
pub(super) struct LocalEngine {
    config: Config,
    origin: ActionsApi,
    sandbox: Arc<dyn Sandbox>,
    pub(super) interrupt: InterruptSignals,
}

impl LocalEngine {
    /// Makes it; `None`: somebody ended it meanwhile.
    pub(super) async fn start(args: &Args) -> Result<Option<Self>> {
        let mut config = Config { sandbox: args.sandbox, ..Config::default() };
        config.name = format!("exec-{}", std::process::id());
        config.pool.size = 0;
        // Its jobs are its user's own.
        config.local_images = vec!["*".to_owned()];
        config.disk.fixed_volumes = false;
        config.disk.min_free = 0;
        label_images::use_present_images(&mut config, &args.images).await;
        config.labels.extend(args.images.iter().cloned());
        config.node.clone_from(&args.node);
        if !args.sandbox.is_isolated() {
            tracing::warn!("--sandbox host: steps run as processes of this machine, with your rights and your files");
        }
        if let Some(folder) = &args.artifacts {
            // Before the run: after it, it would be too late.
            let unusable = || format!("--artifacts {}: make it writable or name another folder", folder.display());
            std::fs::create_dir_all(folder).with_context(unusable)?;
        }
        let origin = services(&args.cache()).await?;
        // Last: what the sandbox makes on the engine is removed only by its end, whoever asks for that.
        let mut interrupt = InterruptSignals::listen()?;
        let made = interrupt.finish(Box::pin(worker::sandbox(&config))).await;
        Ok(made.transpose()?.map(|sandbox| Self { config, origin, sandbox, interrupt }))
    }

    /// Runs to the end, which comes early where a signal or `superseding` asks for it. Artifacts are unpacked, unless other
    /// files are to be run by then.
    pub(super) async fn run(
        &mut self,
        args: &Args,
        prepared: PreparedRun,
        values: &RunValues,
        mut superseding: Option<&mut Superseding<'_>>,
    ) -> Result<(RunReport, Result<()>)> {
        let PreparedRun { checkout, planned, sources } = prepared;
        let repositories = Arc::new(OwnRepository::new(checkout.repository.clone()));
        let origin = self.origin.clone().with_repositories(repositories);
        let work = LocalRun {
            run: uuid::Uuid::now_v7().to_string().into(),
            planned,
            vars: values.vars.clone(),
            secrets: values.secrets.clone(),
            checked_out: args.workspace == "tree",
            jobs: args.jobs,
            view: match (args.json, args.plain) {
                (true, _) => ViewMode::Nothing,
                (_, true) => ViewMode::Lines,
                _ => ViewMode::Tree,
            },
            repository: checkout.root.to_string_lossy().into_owned(),
            origin: origin.clone(),
            config: self.config.clone(),
        };
        let run = work.run.clone();
        let interrupt = &mut self.interrupt;
        let report =
            local_runner::run_to_end(work, self.sandbox.clone(), sources, interrupt, superseding.as_deref_mut())
                .await?;
        let is_wanted = superseding.is_none_or(|superseding| superseding.next.is_none());
        let unpacked = match &args.artifacts {
            Some(folder) if is_wanted => unpack(&origin, &run, folder).await,
            _ => Ok(()),
        };
        Ok((report, unpacked))
    }

    /// Removes what it made. Asked twice to end, it is left as it is.
    pub(super) async fn close(mut self) {
        let _ = self.interrupt.finish(self.sandbox.close()).await;
    }
}

/// Brings a run's artifacts out.
async fn unpack(origin: &ActionsApi, run: &RunId, folder: &Path) -> Result<()> {
    let shown = folder.display();
    match origin.unpack(run, folder).await.with_context(|| format!("--artifacts {shown}"))?.join(", ").as_str() {
        "" => tracing::info!("no job uploaded an artifact"),
        names => tracing::info!("artifacts in {shown}: {names}"),
    }
    Ok(())
}

/// The services that actions call; caches and artifacts are kept beside what was fetched.
async fn services(cache: &Path) -> Result<ActionsApi> {
    let folder = cache.join("kept");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let store = Store::open(&folder.join("longshore.db")).await?;
    let blobs = Blobs::open(&folder.join("blobs"), store.clone())?;
    let now = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let origin = ActionsApi::new(
        store,
        blobs.clone(),
        &rand::random(),
        CacheAndArtifactLimits { artifact_days: 7, ..CacheAndArtifactLimits::default() },
        now,
    );
    origin.expire(now(), &config::Retention::default()).await?;
    blobs.expire(now()).await?;
    Ok(origin)
}
