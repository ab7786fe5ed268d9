//! The HTTP/1 accept loop of every listener: connection limit, header timeout, drain.
//!
//! A full listener still lets everybody in: the quietest connection without a request in hand makes room (`http/line.rs`).
//! Knows no route. A handler always answers: its failures are responses.

mod body;
mod line;

pub use body::RequestBody;

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, header, service::service_fn};
use hyper_util::{rt::TokioIo, rt::TokioTimer, server::graceful::GracefulShutdown};
use line::Line;
use metrics::Gauge;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, time};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// Every response is held in memory whole: they are all small.
pub type Reply = Response<Full<Bytes>>;

/// Bytes of a request's line and headers.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; for a further one the quietest without a request in hand is closed.
    pub connections: usize,
    /// From the first byte awaited to the end of the headers; closes idle keep-alive connections too. Also for a client that does
    /// not read its answers, which hyper would wait for for ever.
    pub header_timeout: Duration,
    /// After the shutdown token: how long open requests may take to end.
    pub drain_timeout: Duration,
    /// The gauge that counts the open connections, if one does.
    pub open: Option<&'static str>,
    /// The counter of connections that were closed for others, and its label `listener`.
    pub closed: (&'static str, &'static str),
}

/// An open connection, as long as it is.
struct Open(Gauge);

impl Open {
    fn counted(gauge: Gauge) -> Open {
        gauge.increment(1);
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// After the shutdown token: how long a client with an open connection may still send its next request. It is answered, and told that
/// the connection ends; closed at once, the connection would take a request along that is on the wire.
const LINGER: Duration = Duration::from_secs(1);

/// Serves until the token is cancelled and the open requests have ended or `drain_timeout` is over.
pub async fn serve<H, F>(listener: TcpListener, limits: Limits, shutdown: CancellationToken, handler: H)
where
    H: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (slots, line) = (Arc::new(Semaphore::new(limits.connections)), Line::default());
    let open = limits.open.map_or_else(Gauge::noop, |name| metrics::gauge!(name));
    let (closed, listener_name) = limits.closed;
    let closed = metrics::counter!(closed, "listener" => listener_name);
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    // hyper's header timeout does nothing without a timer, and its buffer may otherwise grow to 400 KiB for each connection.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(100)
        .max_buf_size(MAX_HEAD_BYTES);
    loop {
        let stream = match shutdown.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                // Out of file descriptors or a connection that died in the backlog: neither may end the loop.
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let mut slot = slots.clone().try_acquire_owned().ok();
        while slot.is_none() && !shutdown.is_cancelled() {
            let room = time::timeout(line.make_room(&closed), slots.clone().acquire_owned());
            slot = room.await.ok().and_then(Result::ok);
        }
        // Small answers must not wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.header_timeout));
        let handler = handler.clone();
        let ending = shutdown.clone();
        let place = line.place();
        let own = place.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|incoming| RequestBody::new(incoming, own.clone()));
            let (reply, ending, own) = (handler(request), ending.clone(), own.clone());
            async move {
                let mut reply = reply.await;
                own.answered();
                if ending.is_cancelled() {
                    reply.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(reply)
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
        let open = Open::counted(open.clone());
        tokio::spawn(place.holds(async move {
            // A connection's end, good or bad, concerns its client only.
            let _ = connection.await;
            drop((slot, open));
        }));
    }
    drop(listener); // refuse new connections before waiting for the open ones; they wait where the service manager holds the socket
    let end = time::Instant::now() + limits.drain_timeout;
    let every_connection = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = time::timeout(LINGER.min(limits.drain_timeout), slots.acquire_many(every_connection)).await;
    if time::timeout_at(end, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end within the drain time");
    }
}

/// A response of the given status, media type and text.
#[must_use]
pub fn reply(status: u16, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    reply.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    reply
}
