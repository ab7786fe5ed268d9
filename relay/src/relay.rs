//! The running relay: its lanes, the listener for pokes, the admin listener, and the checks of what it needs.

use crate::{
    config::Config,
    console::{Console, History},
    context::Context,
    extraction::Extractor,
    heartbeat,
    lane::{Lane, Summary, Trouble},
    maintenance, mode,
    mongo::Clients,
    operations, pauses, reading, reconcile,
    resend::Resend,
    telemetry, wake,
    workers::Identity,
};
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    admin::{self, Readiness},
    http::{Limits, serve},
    message::Operation,
    postgres, process,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

/// How long a lane waits for a free connection.
const POOL_WAIT: Duration = Duration::from_secs(3);
/// How often the relay looks whether the servers have what it needs, until they have.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A lane is silent for a lease at most, and once more where it waits for another's; longer by this, and it is dead.
const STANDSTILL_MARGIN: Duration = Duration::from_secs(60);
/// How often it looks again after that.
const RECHECK_EVERY: Duration = Duration::from_secs(30);

/// Prepares everything without touching the network.
///
/// # Errors
/// A URL cannot be used: what and why.
pub async fn context(config: &Config) -> Result<Context, String> {
    let pool = postgres::pool(config.database_url.expose(), "relay", config.pool_size, POOL_WAIT);
    let clients = Clients::new(config.mongodb_url.expose(), &config.mongodb_database, "relay").await;
    let pool = pool.map_err(|error| format!("DATABASE_URL: {error}"))?;
    let clients = clients.map_err(|error| format!("MONGODB_URL: {error}"))?;
    let clients = if config.is_shadow { clients.read_only() } else { clients };
    let mut context = Context::new(pool, clients, config.guard);
    context.is_shadow = config.is_shadow;
    context.extractor = Extractor::new(config.extractor.as_ref())?;
    let resend = config.resend.as_ref().map(Resend::new).transpose();
    context.resend = resend.map_err(|error| format!("RESEND_API_KEY: {error}"))?;
    context.mailer = config.mailer.clone();
    Ok(context)
}

/// Works until the token is cancelled: stops claiming, finishes what is under way, gives the rest back.
///
/// # Errors
/// The admin address cannot be bound, or there is no thread to be had.
pub async fn run(config: &Config, context: Context, shutdown: CancellationToken) -> anyhow::Result<Summary> {
    reading::start().map_err(anyhow::Error::msg)?;
    let listener = TcpListener::bind(config.admin_listen).await.map_err(|error| {
        anyhow::anyhow!("RELAY_ADMIN_LISTEN: cannot listen on {}: {error}", config.admin_listen)
    })?;
    let identity = Identity::of_this_process();
    tracing::info!(admin = %listener.local_addr()?, worker = identity.worker, "relay started");
    let metrics = admin::install_metrics(telemetry::METRICS); // before the lanes look theirs up
    tokio::spawn(admin::keep_metrics(metrics.clone(), shutdown.clone()));
    if config.is_shadow {
        tracing::warn!("a shadow relay: it decides and records, and writes no MongoDB and no letters");
    }
    let readiness = Readiness::waiting_for(&["postgres", "mongodb"]);
    let wake = Arc::new(Notify::new());

    context.board.hold_all(); // until the first look at what is paused
    context.board.beat();
    let operations: Vec<Operation> = configured(&context).collect();
    telemetry::begin(&context, &operations, config.reconcile.is_some());
    let longest_lease =
        operations.iter().map(|operation| operations::limits_here(&context, *operation).lease).max();
    let patience = 2 * longest_lease.unwrap_or_default() + STANDSTILL_MARGIN;
    let mut lanes = tokio::task::JoinSet::new();
    for operation in &operations {
        let lane = Lane::new(*operation, context.clone(), identity.worker.clone(), readiness.clone());
        lanes.spawn(lane.run(wake.clone(), shutdown.clone()));
    }
    let lanes_here = operations.clone();
    // Goes on while the lanes finish what they have.
    let (pool, board, stop) = (context.pool.clone(), context.board.clone(), CancellationToken::new());
    let lanes_work = {
        let board = board.clone();
        move || board.all_seen_within(patience)
    };
    tokio::spawn(process::keep_watchdog(lanes_work, stop.clone()));
    let is_shadow = config.is_shadow;
    let heartbeat = heartbeat::run(pool, board, identity, operations, is_shadow, stop.clone());
    let heartbeat = tokio::spawn(heartbeat);
    let direct = config.database_direct_url.expose().to_owned();
    tokio::spawn(wake::listen(direct, wake, shutdown.clone()));
    tokio::spawn(tend(config.clone(), context.clone(), shutdown.clone()));
    let history = History::default();
    let address = listener.local_addr()?;
    let console = Console::new(context.pool.clone(), history.clone(), config.console_tokens.clone(), address);
    tokio::spawn(history.run(context.pool.clone(), shutdown.clone()));
    tokio::spawn(check_needs(context.clone(), readiness.clone(), shutdown.clone()));
    let measure = move |readiness: &Readiness| telemetry::measure(&context, &lanes_here, readiness);
    let admin = tokio::spawn(serve_admin(listener, readiness, metrics, measure, console, shutdown));
    process::notify_ready(); // a server that is away concerns /readyz: systemd would take the start for failed, and start it again and again

    let mut total = Summary::default();
    while let Some(summary) = lanes.join_next().await {
        total = total + summary?;
    }
    stop.cancel();
    heartbeat.await?;
    admin.await?;
    tracing::info!(summary = %serde_json::to_string(&total)?, "relay stopped");
    Ok(total)
}

/// Works until nothing is due, follow-up steps included. A lane whose sink is in trouble is left out from then on, the others go on:
/// an outage is told, not waited for.
///
/// # Errors
/// The first [`Trouble`], with what has been done.
pub async fn run_once(context: &Context, shutdown: &CancellationToken) -> (Summary, Result<(), Trouble>) {
    let worker = Identity::of_this_process().worker;
    if let Err(trouble) = look_before(context, &worker).await {
        return (Summary::default(), Err(trouble));
    }
    let new =
        |operation| (operation, Lane::new(operation, context.clone(), worker.clone(), Readiness::default()));
    let mut lanes: Vec<(Operation, Lane)> = configured(context).map(new).collect();
    let total = |lanes: &[(Operation, Lane)]| {
        lanes.iter().fold(Summary::default(), |sum, (_, lane)| sum + lane.summary)
    };
    let mut left_out = HashSet::new();
    let mut first_trouble = Ok(());
    loop {
        let mut claimed = 0;
        for (operation, lane) in &mut lanes {
            if left_out.contains(operation) {
                continue;
            }
            match lane.drain(shutdown).await {
                Ok(count) => claimed += count,
                // Every lane needs it.
                Err(Trouble::Postgres(text)) => {
                    return (total(&lanes), first_trouble.and(Err(Trouble::Postgres(text))));
                }
                Err(trouble) => {
                    tracing::warn!(operation = operation.name(), "the others go on without it: {trouble}");
                    left_out.insert(*operation);
                    first_trouble = first_trouble.and(Err(trouble));
                }
            }
        }
        if claimed == 0 || shutdown.is_cancelled() {
            return (total(&lanes), first_trouble);
        }
    }
}

/// The operations that this relay carries out. Says once which it does not: their messages wait.
fn configured(context: &Context) -> impl Iterator<Item = Operation> {
    let is_configured = |operation: &Operation| {
        let is_configured = operations::is_configured(context, *operation);
        if !is_configured {
            tracing::info!(
                operation = operation.name(),
                "not configured: its messages wait for a relay that is"
            );
        }
        is_configured
    };
    Operation::ALL.into_iter().filter(is_configured)
}

/// Whether this relay may work here, and what is paused, for a run that looks once.
async fn look_before(context: &Context, worker: &str) -> Result<(), Trouble> {
    let connection = context.pool.get().await;
    let connection = connection.map_err(|error| Trouble::Postgres(postgres::pool_reason(&error)))?;
    let look = async {
        let refusal = mode::admit(&connection, context.is_shadow, worker).await?;
        Ok::<_, tokio_postgres::Error>((refusal, pauses::paused(&connection).await?))
    };
    let Ok(look) = tokio::time::timeout(POOL_WAIT, look).await else {
        postgres::abandon(connection).await;
        return Err(Trouble::Postgres("no reply to the look at what is paused".into()));
    };
    let (refusal, paused) = look.map_err(|error| Trouble::Postgres(postgres::reason(&error)))?;
    if let Some(text) = refusal {
        return Err(Trouble::Postgres(text.into()));
    }
    for operation in &paused {
        tracing::warn!(operation = operation.name(), "paused: its messages wait, see `relay status`");
    }
    context.board.pause(paused);
    Ok(())
}

async fn serve_admin(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Option<PrometheusHandle>,
    measure: impl Fn(&Readiness) + Clone + Send + 'static,
    console: Console,
    shutdown: CancellationToken,
) {
    let limits = Limits {
        connections: admin::CONNECTIONS,
        header_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(2),
        open: None,
        closed: (telemetry::CLOSED_CONNECTIONS, "admin"),
    };
    serve(listener, limits, shutdown, move |request| {
        if request.uri().path() == admin::METRICS_PATH {
            measure(&readiness);
        }
        let reply = admin::answer(request.method(), request.uri().path(), &readiness, metrics.as_ref());
        let console = console.clone();
        async move {
            let (uri, headers) = (request.uri(), request.headers());
            let page = console.answer(request.method(), uri.path(), uri.query(), headers).await;
            page.unwrap_or(reply)
        }
    })
    .await;
}

/// Removes what is old and reconciles, from when on this relay may work in the database: before, both are somebody else's.
async fn tend(config: Config, context: Context, shutdown: CancellationToken) {
    if !is_admitted(&context, &shutdown).await {
        return;
    }
    let Config { retention, mail_retention, .. } = config;
    if let Some(schedule) = config.reconcile {
        tokio::spawn(reconcile::run_regularly(context.clone(), schedule, shutdown.clone()));
    }
    maintenance::run(context.pool, retention, mail_retention, shutdown).await;
}

/// Waits until this relay may work in the database; false = it is stopped before.
pub async fn is_admitted(context: &Context, shutdown: &CancellationToken) -> bool {
    while check_postgres(context).await.is_err() {
        if shutdown.run_until_cancelled(tokio::time::sleep(CHECK_EVERY)).await.is_none() {
            return false;
        }
    }
    true
}

/// Looks for what the relay needs and says what is missing; the lanes work as far as they can meanwhile.
async fn check_needs(context: Context, readiness: Readiness, shutdown: CancellationToken) {
    loop {
        let postgres = check_postgres(&context).await;
        let mongodb = match context.clients.missing_setup().await {
            Ok(missing) if missing.is_empty() => Ok(()),
            Ok(missing) => Err(missing.join("; ")),
            Err(failure) => Err(failure.text),
        };
        let ready = postgres.is_ok() && mongodb.is_ok();
        readiness.set("postgres", postgres);
        readiness.set("mongodb", mongodb);
        let pause = if ready { RECHECK_EVERY } else { CHECK_EVERY };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether Postgres answers, has the schema, and is a database for this kind of relay.
///
/// # Errors
/// What is missing and what to do.
pub async fn check_postgres(context: &Context) -> Result<(), String> {
    let connection = context.pool.get().await;
    let connection = connection.map_err(|error| format!("Postgres: {}", postgres::pool_reason(&error)))?;
    postgres::check_schema(&connection).await?;
    let worker = Identity::of_this_process().worker;
    let refusal = mode::admit(&connection, context.is_shadow, &worker).await;
    let refusal = refusal.map_err(|error| format!("Postgres: {}", postgres::reason(&error)))?;
    refusal.map_or(Ok(()), |text| Err(text.to_owned()))
}
