//! The running program: listeners, background tasks, readiness and the way down.

use crate::{
    access::CurrentAccess,
    api::{self, App},
    config::Config,
    database::Database,
    poke::Poker,
    store::Store,
    telemetry,
};
use hyper::Request;
use listenfd::ListenFd;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    admin::{self, Readiness},
    http::{self, Limits, RequestBody},
    postgres, process,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Between two warnings that unsigned webhooks are taken.
const UNSIGNED_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Why the program cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use or not ours.
    #[error("{variable}: cannot listen on {address}: {error}")]
    Listen {
        /// The variable to change.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// More sockets than this program serves.
    #[error(
        "the service manager passes {0} sockets, expected one: keep a single ListenStream= in the .socket unit"
    )]
    Sockets(usize),
    /// It is no TCP socket that listens.
    #[error(
        "the socket that the service manager passes cannot be used: {0}. It must be a ListenStream= of TCP"
    )]
    Passed(std::io::Error),
    /// The pool cannot be built from the URL.
    #[error(transparent)]
    Postgres(#[from] postgres::PostgresError),
}

/// A program that listens.
#[derive(Debug)]
pub struct Serving {
    /// The public listener's address.
    pub address: SocketAddr,
    /// The admin listener's address.
    pub admin_address: SocketAddr,
    /// Who may send, for whoever reads it again.
    pub access: CurrentAccess,
    /// Ends when the shutdown is complete.
    pub done: JoinHandle<()>,
}

/// Starts to listen; Postgres may be away. Cancelling `shutdown` drains and ends everything.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Serving, StartError> {
    let (listener, address) = match passed_by_the_service_manager()? {
        Some(listener) => with_address("INGEST_LISTEN", config.listen, Ok(listener))?,
        None => bind("INGEST_LISTEN", config.listen).await?,
    };
    let (admin_listener, admin_address) = bind("INGEST_ADMIN_LISTEN", config.admin_listen).await?;
    let readiness = Readiness::waiting_for(&["postgres"]);
    let metrics = admin::install_metrics(telemetry::METRICS);
    telemetry::begin(&config.access);
    let access = CurrentAccess::new(config.access.clone());
    let poker = Poker::default();
    let database = Database::over(&config)?;
    let store = Store::new(&config, database.clone(), poker.clone());
    let app = App::new(&config, access.clone(), readiness.clone(), store.clone());
    tracing::info!(%address, admin = %admin_address, "listening");
    if !config.access.lets_anybody_in() {
        tracing::warn!("no source has a secret and there are no API tokens: nothing can be stored");
    }
    let background = CancellationToken::new();
    let url = config.database_url.expose().to_owned();
    tokio::spawn(database.watch(readiness.clone(), background.clone()));
    tokio::spawn(poker.run(url, background.clone()));
    tokio::spawn(warn_of_unsigned(config.access.verifiers.allow_unsigned, background.clone()));
    tokio::spawn(admin::keep_metrics(metrics.clone(), background.clone()));
    tokio::spawn(process::keep_watchdog(store.makes_progress(), background.clone()));
    let admin = serve_admin(
        admin_listener,
        config.limits.header_timeout,
        app.clone(),
        readiness.clone(),
        metrics,
        background.clone(),
    );
    let done = tokio::spawn(async move {
        let admin = tokio::spawn(admin);
        serve_public(listener, &config, app, readiness, shutdown).await;
        if timeout(config.limits.drain_timeout, store.all_committed()).await.is_err() {
            tracing::warn!("some commits did not end within the drain time; their senders got no 200");
        }
        background.cancel();
        let _ = admin.await;
        tracing::info!("stopped");
    });
    Ok(Serving { address, admin_address, access, done })
}

async fn bind(variable: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    with_address(variable, address, TcpListener::bind(address).await)
}

fn with_address(
    variable: &'static str,
    address: SocketAddr,
    listener: std::io::Result<TcpListener>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = listener.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    bound.map_err(|error| StartError::Listen { variable, address, error })
}

/// The socket of a systemd .socket unit, which stays open while this program restarts: nobody's connection is refused meanwhile.
fn passed_by_the_service_manager() -> Result<Option<TcpListener>, StartError> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        return Err(StartError::Sockets(passed.len()));
    }
    let taken = passed.take_tcp_listener(0).and_then(|listener| {
        let Some(listener) = listener else { return Ok(None) };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Some)
    });
    taken.map_err(StartError::Passed)
}

/// Until the shutdown, and on until open requests have ended. Readiness goes first, so that a load balancer
/// that still sees the admin listener sends nobody any more.
async fn serve_public(
    listener: TcpListener,
    config: &Config,
    app: Arc<App>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let limits = Limits {
        connections: config.limits.connections,
        header_timeout: config.limits.header_timeout,
        drain_timeout: config.limits.drain_timeout,
        open: Some(telemetry::OPEN_CONNECTIONS),
        closed: (telemetry::CLOSED_CONNECTIONS, "public"),
    };
    let told = shutdown.clone();
    let leaving = tokio::spawn(async move {
        told.cancelled().await;
        readiness.set("shutdown", Err("shutting down".into()));
    });
    let handler = move |request: Request<RequestBody>| api::handle(app.clone(), request);
    http::serve(listener, limits, shutdown, handler).await;
    leaving.abort();
}

async fn serve_admin(
    listener: TcpListener,
    header_timeout: Duration,
    app: Arc<App>,
    readiness: Readiness,
    metrics: Option<PrometheusHandle>,
    end: CancellationToken,
) {
    let limits = Limits {
        connections: admin::CONNECTIONS,
        header_timeout,
        drain_timeout: Duration::from_secs(1),
        open: None,
        closed: (telemetry::CLOSED_CONNECTIONS, "admin"),
    };
    let handler = move |request: Request<RequestBody>| {
        if request.uri().path() == admin::METRICS_PATH {
            app.measure();
        }
        let answer = admin::answer(request.method(), request.uri().path(), &readiness, metrics.as_ref());
        async move { answer }
    };
    http::serve(listener, limits, end, handler).await;
}

async fn warn_of_unsigned(allowed: bool, end: CancellationToken) {
    if !allowed {
        return;
    }
    let warn = async {
        let mut minutes = interval(UNSIGNED_WARNING_INTERVAL);
        loop {
            minutes.tick().await;
            tracing::warn!(
                "INGEST_INSECURE_ALLOW_UNSIGNED is on: webhooks of sources without a secret are taken from anybody"
            );
        }
    };
    end.run_until_cancelled(warn).await;
}
